//! The file of decisions: a line a row, sorted by row, so that two people's branches merge.
//!
//! ```json
//! {"row":"3f2a9c01d4e5","decision":"accept","about":"remind me to call mum"}
//! {"row":"9be0417714aa","decision":"edit","about":"lunch w/ Ana fri","to":{"id":...}}
//! ```
//!
//! Promises: what is read is what was written; every line that is none is reported at once, and so
//! are two lines that decide differently about one row. Must not know: what a row is worth.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::contract::StageError;
use crate::conversation::Conversation;

/// What a person decides about a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    /// It goes on as it is.
    Accept,
    /// It goes.
    Reject,
    /// Another takes its place.
    Edit,
}

/// A decision.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// What is decided.
    pub choice: Choice,
    /// The row's first words, for those who read the file.
    pub about: String,
    /// The row that takes its place.
    pub to: Option<Value>,
}

impl Decision {
    /// The row that takes the place of `row`, whose content is called `name`.
    pub(crate) fn row_in_place_of(
        &self,
        name: &str,
        row: &Conversation,
    ) -> Result<Conversation, StageError> {
        let broken = |cause: String| {
            StageError::new(
                "review::broken-edit",
                format!("the decision about `{name}` edits it into no row: {cause}"),
                format!("edit it again: `tunesmith review --edit {name}`"),
            )
            .at("inputs.decisions")
        };
        let to = self.to.clone();
        let to = to.ok_or_else(|| broken("`to` is missing".to_owned()))?;
        let to: Conversation =
            serde_json::from_value(to).map_err(|error| broken(error.to_string()))?;
        // Its place among the others stays.
        Ok(Conversation {
            id: row.id.clone(),
            source: row.source.clone(),
            group: row.group.clone(),
            ..to
        })
    }
}

/// One line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    row: String,
    decision: Choice,
    #[serde(default)]
    about: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to: Option<Value>,
}

impl Line {
    fn taken_apart(self) -> (String, Decision) {
        let Self {
            row,
            decision: choice,
            about,
            to,
        } = self;
        (row, Decision { choice, about, to })
    }
}

/// All decisions, by row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decisions {
    by_row: BTreeMap<String, Decision>,
}

impl Decisions {
    /// Reads the file; one that is not there holds no decision.
    pub fn read(path: &Path) -> Result<Self, StageError> {
        match fs::read_to_string(path) {
            Ok(text) => {
                // A running stage sees it at a place of its own: the name is what people know.
                let name = path.file_name().unwrap_or(path.as_os_str());
                Self::parse(&text, &name.to_string_lossy())
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(StageError::io(path, &error).at("inputs.decisions")),
        }
    }

    pub(super) fn parse(text: &str, file: &str) -> Result<Self, StageError> {
        let mut all = Self::default();
        let mut first: BTreeMap<String, usize> = BTreeMap::new();
        let mut faults = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let at = at + 1;
            if line.trim().is_empty() {
                continue;
            }
            let (row, decision) = match serde_json::from_str(line) {
                Ok(line) => Line::taken_apart(line),
                Err(error) => {
                    faults.push(format!("{file}:{at}: no decision: {error}"));
                    continue;
                }
            };
            let other = all.by_row.get(&row);
            if other.is_some_and(|other| *other != decision) {
                let before = first[&row];
                faults.push(format!(
                    "{file}:{at}: `{row}` is decided otherwise in line {before}"
                ));
                continue;
            }
            first.entry(row.clone()).or_insert(at);
            all.by_row.insert(row, decision);
        }
        if faults.is_empty() {
            return Ok(all);
        }
        Err(StageError::new(
            "review::decisions",
            faults.join("\n"),
            "mend or remove these lines; `tunesmith review` asks about their rows again",
        )
        .at("inputs.decisions"))
    }

    /// The file's text.
    pub fn text(&self) -> String {
        let lines = self.by_row.iter().map(|(row, decision)| {
            let line = Line {
                row: row.clone(),
                decision: decision.choice,
                about: decision.about.clone(),
                to: decision.to.clone(),
            };
            serde_json::to_string(&line).expect("a decision is plain data") + "\n"
        });
        lines.collect()
    }

    /// Writes the file whole or not at all, with the folders above it.
    pub fn write(&self, path: &Path) -> Result<(), StageError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let aside = path.with_file_name(format!(".{name}.aside"));
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&aside, self.text()))
            .and_then(|()| fs::rename(&aside, path))
            .map_err(|error| StageError::io(path, &error))
    }

    /// What is decided about a row.
    pub fn get(&self, row: &str) -> Option<&Decision> {
        self.by_row.get(row)
    }

    /// Decides, or decides otherwise.
    pub fn set(&mut self, row: &str, decision: Decision) {
        self.by_row.insert(row.to_owned(), decision);
    }

    /// The names of the rows that are decided about.
    pub fn rows(&self) -> impl Iterator<Item = &str> {
        self.by_row.keys().map(String::as_str)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_row.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_row.is_empty()
    }
}
