//! The phrase book: `data/grammar.yaml`, read and checked as a whole.
//!
//! Promises: a book that loads names only phrases, slots, fields, tools and parameters
//! that exist; every fault of it is reported at once, with its place. Must not know: how
//! rows are drawn.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::moment::{KINDS, Moment};
use super::template::Template;
use crate::conversation::Kind;
use crate::tools::ToolSet;

/// A checked book.
pub(super) struct Book {
    pub(super) mix: BTreeMap<Kind, f64>,
    pub(super) typos: BTreeMap<String, Vec<String>>,
    pub(super) phrases: BTreeMap<String, Vec<Template>>,
    pub(super) slots: BTreeMap<String, Vec<Entry>>,
    pub(super) lessons: Vec<Lesson>,
}

/// One value of a slot: its fields; a plain text is the field `text`.
pub(super) type Entry = BTreeMap<String, Template>;

/// A family of rows.
pub(super) struct Lesson {
    pub(super) kind: Kind,
    pub(super) name: String,
    pub(super) weight: f64,
    /// Each a way to make one row, or the two rows of a pair.
    pub(super) variants: Vec<Vec<Script>>,
}

/// The turns of one row.
pub(super) type Script = Vec<Turn>;

/// One turn; its texts are alternatives.
#[derive(Clone)]
pub(super) enum Turn {
    User(Vec<Template>),
    Say(Vec<Template>, Vec<CallShape>),
    Result(Shape),
    /// From here on the row may end, so that not every call has a result.
    MayEnd,
}

/// A call to fill in.
#[derive(Clone)]
pub(super) struct CallShape {
    pub(super) tool: String,
    pub(super) params: Vec<(String, Shape)>,
}

/// JSON with templates for texts.
#[derive(Clone)]
pub(super) enum Shape {
    Plain(Value),
    /// Alternatives, `a ?? b`: the first that can be filled.
    Text(Vec<Template>),
    /// `#{temp}`: a number.
    Number(Template),
    List(Vec<Shape>),
    Object(Vec<(String, Shape)>),
}

/// Slots that need no list.
pub(super) const IDS: [(&str, &str); 2] = [("taskid", "task_"), ("evtid", "evt_")];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBook {
    mix: BTreeMap<Kind, f64>,
    #[serde(default)]
    typos: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    phrases: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    slots: BTreeMap<String, Vec<Value>>,
    rows: Vec<RawLesson>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLesson {
    #[serde(rename = "type")]
    kind: Kind,
    #[serde(default)]
    name: Option<String>,
    #[serde(default = "one")]
    weight: f64,
    #[serde(default)]
    pairs: Vec<(String, String)>,
    #[serde(default)]
    sides: Vec<RawSide>,
    #[serde(default)]
    turns: Vec<RawTurn>,
    #[serde(default)]
    user: Vec<String>,
    #[serde(default)]
    say: Vec<String>,
    #[serde(default)]
    call: Option<String>,
    #[serde(default)]
    params: Map<String, Value>,
    #[serde(default)]
    result: Value,
    #[serde(default)]
    done: Vec<String>,
}

fn one() -> f64 {
    1.0
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSide {
    user: Vec<String>,
    say: Vec<String>,
    call: String,
    params: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTurn {
    #[serde(default)]
    user: Vec<String>,
    #[serde(default)]
    say: Vec<String>,
    #[serde(default)]
    calls: Vec<Map<String, Value>>,
    #[serde(default)]
    result: Value,
}

/// Reads a book; all faults, each with its place.
pub(super) fn read(text: &str, tools: &ToolSet) -> Result<Book, Vec<String>> {
    let raw: RawBook = serde_saphyr::from_str(text).map_err(|error| vec![error.to_string()])?;
    let mut reader = Reader {
        tools,
        faults: Vec::new(),
    };
    let phrases = raw
        .phrases
        .iter()
        .map(|(name, texts)| {
            (
                name.clone(),
                reader.texts(&format!("phrases.{name}"), texts),
            )
        })
        .collect();
    let slots = raw
        .slots
        .iter()
        .map(|(name, values)| (name.clone(), reader.entries(name, values)))
        .collect();
    let lessons = raw
        .rows
        .iter()
        .enumerate()
        .map(|(at, lesson)| reader.lesson(at, lesson))
        .collect();
    let book = Book {
        mix: raw.mix,
        typos: raw.typos,
        phrases,
        slots,
        lessons,
    };
    let mut faults = reader.faults;
    check_names(&book, &mut faults);
    if faults.is_empty() {
        Ok(book)
    } else {
        Err(faults)
    }
}

struct Reader<'a> {
    tools: &'a ToolSet,
    faults: Vec<String>,
}

impl Reader<'_> {
    fn text(&mut self, place: &str, text: &str) -> Template {
        Template::parse(text).unwrap_or_else(|cause| {
            self.faults.push(format!("{place}: `{text}`: {cause}"));
            Template(Vec::new())
        })
    }

    fn texts(&mut self, place: &str, texts: &[String]) -> Vec<Template> {
        if texts.is_empty() {
            self.faults.push(format!("{place}: the list is empty"));
        }
        texts.iter().map(|text| self.text(place, text)).collect()
    }

    fn entries(&mut self, name: &str, values: &[Value]) -> Vec<Entry> {
        let place = format!("slots.{name}");
        if KINDS.contains(&name) || IDS.iter().any(|(id, _)| *id == name) {
            self.faults.push(format!("{place}: the name is built in"));
        }
        let mut entries = Vec::new();
        for value in values {
            let mut entry = Entry::new();
            match value {
                Value::Object(fields) => {
                    for (field, value) in fields {
                        let text = plain(value);
                        entry.insert(field.clone(), self.text(&place, &text));
                    }
                }
                other => {
                    entry.insert("text".to_owned(), self.text(&place, &plain(other)));
                }
            }
            entries.push(entry);
        }
        if entries.is_empty() {
            self.faults.push(format!("{place}: the list is empty"));
        }
        entries
    }

    fn lesson(&mut self, at: usize, raw: &RawLesson) -> Lesson {
        let name = raw.name.clone().or_else(|| raw.call.clone());
        let name = name.unwrap_or_else(|| format!("{}{at}", raw.kind));
        let place = format!("rows[{at}] {name}");
        let mut variants = Vec::new();
        for (user, say) in &raw.pairs {
            let user = Turn::User(vec![self.text(&place, user)]);
            let say = Turn::Say(vec![self.text(&place, say)], Vec::new());
            variants.push(vec![vec![user, say]]);
        }
        if !raw.sides.is_empty() {
            let sides = raw.sides.iter().map(|side| {
                let calls = vec![self.call(&place, &side.call, &side.params)];
                let say = self.texts(&place, &side.say);
                vec![
                    Turn::User(self.texts(&place, &side.user)),
                    Turn::Say(say, calls),
                ]
            });
            variants.push(sides.collect());
        }
        if !raw.turns.is_empty() {
            variants.push(vec![self.turns(&place, &raw.turns)]);
        }
        if !raw.user.is_empty() {
            variants.push(vec![self.short(&place, raw)]);
        }
        if variants.is_empty() {
            self.faults
                .push(format!("{place}: give `user`, `turns`, `sides` or `pairs`"));
        }
        Lesson {
            kind: raw.kind,
            name,
            weight: raw.weight,
            variants,
        }
    }

    fn short(&mut self, place: &str, raw: &RawLesson) -> Script {
        let calls = match &raw.call {
            Some(tool) => vec![self.call(place, tool, &raw.params)],
            None => Vec::new(),
        };
        let mut script = vec![
            Turn::User(self.texts(place, &raw.user)),
            Turn::Say(self.texts(place, &raw.say), calls),
        ];
        if !raw.done.is_empty() {
            script.push(Turn::MayEnd);
            script.push(Turn::Result(self.shape(place, &raw.result)));
            script.push(Turn::Say(self.texts(place, &raw.done), Vec::new()));
        }
        script
    }

    fn turns(&mut self, place: &str, turns: &[RawTurn]) -> Script {
        let mut script = Vec::new();
        for turn in turns {
            if !turn.user.is_empty() {
                script.push(Turn::User(self.texts(place, &turn.user)));
            } else if !turn.say.is_empty() {
                let calls = turn.calls.iter().flatten();
                let calls: Vec<CallShape> = calls
                    .map(|(tool, params)| {
                        let params = params.as_object().cloned().unwrap_or_default();
                        self.call(place, tool, &params)
                    })
                    .collect();
                script.push(Turn::Say(self.texts(place, &turn.say), calls));
            } else {
                script.push(Turn::Result(self.shape(place, &turn.result)));
            }
        }
        script
    }

    fn call(&mut self, place: &str, tool: &str, params: &Map<String, Value>) -> CallShape {
        let Some(spec) = self.tools.get(tool) else {
            self.faults.push(format!("{place}: unknown tool `{tool}`"));
            return CallShape {
                tool: tool.to_owned(),
                params: Vec::new(),
            };
        };
        let mut filled = Vec::new();
        for (name, _, required) in spec.fields() {
            match params.get(name) {
                Some(value) => filled.push((name.to_owned(), self.shape(place, value))),
                None if required => {
                    self.faults
                        .push(format!("{place}: `{tool}` needs `{name}`"));
                }
                None => {}
            }
        }
        for name in params.keys().filter(|name| spec.field(name).is_none()) {
            self.faults
                .push(format!("{place}: `{tool}` has no parameter `{name}`"));
        }
        CallShape {
            tool: tool.to_owned(),
            params: filled,
        }
    }

    fn shape(&mut self, place: &str, value: &Value) -> Shape {
        match value {
            Value::String(text) => match text.strip_prefix('#') {
                Some(number) => Shape::Number(self.text(place, number)),
                None => Shape::Text(
                    text.split(" ?? ")
                        .map(|text| self.text(place, text))
                        .collect(),
                ),
            },
            Value::Array(items) => {
                Shape::List(items.iter().map(|item| self.shape(place, item)).collect())
            }
            Value::Object(fields) => Shape::Object(
                fields
                    .iter()
                    .map(|(name, value)| (name.clone(), self.shape(place, value)))
                    .collect(),
            ),
            other => Shape::Plain(other.clone()),
        }
    }
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// `todo2` is another value of the list `todo`.
pub(super) fn base(name: &str) -> &str {
    name.trim_end_matches(|c: char| c.is_ascii_digit())
}

fn check_names(book: &Book, faults: &mut Vec<String>) {
    let mut templates: Vec<(String, &Template)> = Vec::new();
    for (name, list) in &book.phrases {
        templates.extend(list.iter().map(|t| (format!("phrases.{name}"), t)));
    }
    for (name, entries) in &book.slots {
        let fields = entries.iter().flat_map(BTreeMap::values);
        templates.extend(fields.map(|t| (format!("slots.{name}"), t)));
    }
    for (at, lesson) in book.lessons.iter().enumerate() {
        let place = format!("rows[{at}] {}", lesson.name);
        for turn in lesson.variants.iter().flatten().flatten() {
            templates.extend(turn_texts(turn).into_iter().map(|t| (place.clone(), t)));
        }
    }
    for (place, template) in templates {
        for phrase in template.phrases() {
            if !book.phrases.contains_key(phrase) {
                faults.push(format!("{place}: unknown phrase `<{phrase}>`"));
            }
        }
        for slot in template.slots() {
            if let Some(cause) = unknown_slot(book, &slot.name, slot.field.as_deref()) {
                faults.push(format!("{place}: {cause}"));
            }
        }
    }
}

fn unknown_slot(book: &Book, name: &str, field: Option<&str>) -> Option<String> {
    let list = base(name);
    // `{slot.none}` adds nothing: the text can be used only where the slot was said.
    let nothing = field == Some("none");
    if KINDS.contains(&list) {
        let field = field.filter(|_| !nothing)?;
        let known = Moment::FIELDS.contains(&field);
        return (!known).then(|| format!("a time has no field `{field}` (`{{{name}.{field}}}`)"));
    }
    if IDS.iter().any(|(id, _)| *id == list) {
        return None;
    }
    let Some(entries) = book.slots.get(list) else {
        return Some(format!("unknown slot `{{{name}}}`"));
    };
    let field = field.unwrap_or("text");
    let known = nothing || entries.iter().any(|entry| entry.contains_key(field));
    (!known).then(|| format!("`{list}` has no field `{field}`"))
}

fn turn_texts(turn: &Turn) -> Vec<&Template> {
    match turn {
        Turn::User(texts) => texts.iter().collect(),
        Turn::Say(texts, calls) => {
            let params = calls.iter().flat_map(|call| &call.params);
            let shapes = params.flat_map(|(_, shape)| shape_texts(shape));
            texts.iter().chain(shapes).collect()
        }
        Turn::Result(shape) => shape_texts(shape),
        Turn::MayEnd => Vec::new(),
    }
}

fn shape_texts(shape: &Shape) -> Vec<&Template> {
    match shape {
        Shape::Plain(_) => Vec::new(),
        Shape::Text(texts) => texts.iter().collect(),
        Shape::Number(text) => vec![text],
        Shape::List(items) => items.iter().flat_map(shape_texts).collect(),
        Shape::Object(fields) => fields.iter().flat_map(|(_, s)| shape_texts(s)).collect(),
    }
}
