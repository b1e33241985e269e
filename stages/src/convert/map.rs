//! The tool map: foreign functions that mean one of ours (`data/maps/*.yaml`).
//!
//! Promises: a mapped call fits our schema or is refused with the parameter; nothing is
//! invented. Must not know: dialogues, formats.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::foreign::Asked;
use super::times;
use crate::contract::StageError;
use crate::conversation::Call;
use crate::tools::{ToolSet, ToolSpec};

/// What happens to a row that calls a function not in the map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Otherwise {
    /// It is left out.
    #[default]
    Drop,
    /// What comes before that call is kept, if it ends in a plain answer.
    Negative,
    /// It is kept with its own tool list.
    KeepOwnTools,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct MapFile {
    #[serde(default)]
    otherwise: Otherwise,
    #[serde(default)]
    functions: BTreeMap<String, Rule>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    tool: String,
    #[serde(default)]
    params: BTreeMap<String, String>,
    #[serde(default)]
    values: BTreeMap<String, BTreeMap<String, String>>,
}

/// A checked map.
#[derive(Default)]
pub(super) struct ToolMap {
    file: MapFile,
    used: RefCell<BTreeSet<String>>,
}

impl ToolMap {
    /// Reads a map; every tool and parameter it names must exist.
    pub(super) fn read(text: &str, tools: &ToolSet) -> Result<Self, StageError> {
        let refuse = |message: String| {
            StageError::new(
                "convert::map",
                message,
                "mend the map; `data/README.md` explains its keys",
            )
            .at("inputs.map")
        };
        let file: MapFile =
            serde_saphyr::from_str(text).map_err(|error| refuse(error.to_string()))?;
        let mut faults = Vec::new();
        for (name, rule) in &file.functions {
            let Some(spec) = tools.get(&rule.tool) else {
                faults.push(format!("`{name}`: unknown tool `{}`", rule.tool));
                continue;
            };
            for ours in rule.params.keys().chain(rule.values.keys()) {
                if spec.field(ours).is_none() {
                    faults.push(format!(
                        "`{name}`: `{}` has no parameter `{ours}`",
                        rule.tool
                    ));
                }
            }
        }
        if faults.is_empty() {
            Ok(Self {
                file,
                used: RefCell::default(),
            })
        } else {
            Err(refuse(faults.join("\n")))
        }
    }

    /// What the map says about functions it does not name.
    pub(super) fn otherwise(&self) -> Otherwise {
        self.file.otherwise
    }

    /// Whether `function` is one of ours.
    pub(super) fn knows(&self, function: &str) -> bool {
        self.file.functions.contains_key(function)
    }

    /// Names that no call used.
    pub(super) fn unused(&self) -> Vec<String> {
        let used = self.used.borrow();
        let names = self.file.functions.keys();
        names
            .filter(|name| !used.contains(*name))
            .cloned()
            .collect()
    }

    /// Our call for a foreign one; `Err` names the parameter that does not fit.
    pub(super) fn call(&self, asked: &Asked, tools: &ToolSet) -> Result<Call, String> {
        let rule = &self.file.functions[&asked.name];
        self.used.borrow_mut().insert(asked.name.clone());
        let spec = tools.get(&rule.tool).expect("the map was checked");
        let mut params = Map::new();
        for (ours, schema, _) in spec.fields() {
            let Some(path) = rule.params.get(ours) else {
                continue;
            };
            let Some(found) = find(path, &asked.arguments) else {
                continue;
            };
            let found = rename(rule.values.get(ours), found);
            let value = fit(&found, schema)
                .ok_or_else(|| format!("`{}` {found} is no `{ours}`", asked.name))?;
            params.insert(ours.to_owned(), value);
        }
        let call = Call {
            tool: spec.name.clone(),
            params,
        };
        match tools.check(&call).first() {
            None => Ok(call),
            Some(fault) => Err(format!("`{}`: {fault}", asked.name)),
        }
    }
}

/// The first of `a+b|c` that the call has.
fn find(path: &str, arguments: &Map<String, Value>) -> Option<Value> {
    path.split('|').find_map(|choice| {
        let parts: Vec<&Value> = choice
            .split('+')
            .map(|name| arguments.get(name.trim()).filter(|value| given(value)))
            .collect::<Option<_>>()?;
        match parts.as_slice() {
            [one] => Some((*one).clone()),
            [day, hour] => joined(day.as_str()?, hour.as_str()?),
            _ => None,
        }
    })
}

fn given(value: &Value) -> bool {
    !value.is_null() && value.as_str().is_none_or(|text| !text.trim().is_empty())
}

/// A date and a time of day as one; a time that is a whole moment stands alone.
fn joined(day: &str, hour: &str) -> Option<Value> {
    let moment = match (times::date(day), times::time(hour)) {
        (Some(day), Some(hour)) => day.to_datetime(hour),
        _ => times::moment(hour)?,
    };
    Some(Value::from(iso(moment)))
}

fn iso(at: jiff::civil::DateTime) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn rename(words: Option<&BTreeMap<String, String>>, value: Value) -> Value {
    let known = value.as_str().and_then(|text| {
        let text = text.trim().to_lowercase();
        words?
            .iter()
            .find(|(theirs, _)| theirs.to_lowercase() == text)
    });
    known.map_or(value, |(_, ours)| Value::from(ours.clone()))
}

/// Brings a value to what the schema wants.
fn fit(value: &Value, schema: &Value) -> Option<Value> {
    if let Some(words) = schema["enum"].as_array() {
        let text = value.as_str()?.trim().to_lowercase();
        let same = |word: &&Value| word.as_str().is_some_and(|w| w.to_lowercase() == text);
        return words.iter().find(same).cloned();
    }
    match (schema["type"].as_str()?, value) {
        ("array", Value::Array(_)) => Some(value.clone()),
        ("array", Value::String(text)) => {
            let items = text.split(',').map(|item| Value::from(item.trim()));
            Some(items.collect())
        }
        ("string", Value::Array(list)) => match list.as_slice() {
            [one] => fit(one, schema),
            _ => None,
        },
        ("string", Value::Number(number)) => Some(Value::from(number.to_string())),
        ("string", Value::String(text)) => match schema["format"].as_str() {
            Some("date-time") => times::moment(text).map(|at| Value::from(iso(at))),
            Some("date") => times::date(text).map(|day| Value::from(day.to_string())),
            _ => Some(Value::from(text.trim())),
        },
        _ => None,
    }
}

/// The sentence before a call that came without one: `get_stock_price` -> `I'll get the
/// stock price.`
pub(super) fn sentence(call: &Call, own: Option<&ToolSpec>) -> String {
    if own.is_none() {
        let said = match call.tool.as_str() {
            "createTask" => "I'll add that to your tasks.",
            "updateTask" => "I'll update the task.",
            "completeTask" => "I'll mark it as done.",
            "deleteTask" => "I'll delete the task.",
            "listTasks" => "I'll look up your tasks.",
            "createCalendarEvent" => "I'll add it to your calendar.",
            "updateCalendarEvent" => "I'll change the event.",
            "deleteCalendarEvent" => "I'll cancel the event.",
            "getWeather" => "I'll check the weather.",
            "sendEmail" => "I'll send the email.",
            _ => return verbal(&call.tool),
        };
        return said.to_owned();
    }
    verbal(&call.tool)
}

/// Verbs that names of functions begin with; `live_giveaways` begins with none.
const VERBS: &str = "add analyze apply assign book build calculate cancel change check classify close \
    compare complete compose compute convert count create delete detect determine \
    download edit encode estimate evaluate exchange execute extract fetch filter find \
    format generate get identify insert invite list look make measure merge modify move \
    open order place plan play post predict publish read recommend register remove \
    rename reschedule reserve retrieve return run save schedule search select send set \
    share show simulate solve sort start stop submit summarize track translate update \
    upload validate";

fn is_verb(word: &str) -> bool {
    VERBS.split(' ').any(|verb| verb == word)
}

fn verbal(name: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for letter in name.chars() {
        match words.last_mut() {
            _ if letter == '_' || letter == '-' || letter == '.' => words.push(String::new()),
            Some(word) if !letter.is_uppercase() => word.push(letter),
            _ => words.push(letter.to_lowercase().collect()),
        }
    }
    words.retain(|word| !word.is_empty());
    match words.split_first() {
        Some((verb, rest)) if !rest.is_empty() && is_verb(verb) => {
            format!("I'll {verb} the {}.", rest.join(" "))
        }
        _ => format!("I'll use `{name}` for that."),
    }
}
