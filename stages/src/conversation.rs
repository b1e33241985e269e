//! The canonical conversation: the one shape every row has between convert and train.
//!
//! Promises: a row that reads back is equal to the row that was written; every broken
//! line of a file is reported at once, with its file and line. Must not know: how a turn
//! is rendered (`format`), which tools exist (`tools`), any foreign dataset (`convert`).

use std::fmt;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use jiff::civil::DateTime;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::contract::StageError;
use crate::tools::ToolSpec;

/// Raised whenever the meaning or the bytes of a canonical row change.
pub const CONVERSATION_VERSION: u32 = 1;

/// One training row: one JSON object a line in `rows.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conversation {
    /// Unique over all rows of a pipeline.
    pub id: String,
    /// Who wrote it: `hand`, `glaive`, `sharegpt`, `grammar`, `anthropic`.
    pub source: String,
    /// What it teaches.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Rows of one group never straddle a split (contrastive pairs, paraphrases).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The user's wall clock at the first turn, to the minute.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "minute")]
    pub now: Option<DateTime>,
    /// The row's own tool list, instead of the pipeline's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<ToolSpec>>,
    /// Share of the loss; absent means 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// The turns, in order.
    pub messages: Vec<Message>,
}

/// What a row teaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// One request, one call.
    Single,
    /// One side of a pair that only wording tells apart.
    Contrastive,
    /// The right answer is plain text.
    Negative,
    /// Several requests that build on each other.
    MultiTurn,
    /// An id from the context is used to change or remove something.
    Crud,
    /// Several calls in one answer.
    Compound,
    /// Ordinary instructions, to keep what the base model can do.
    General,
}

impl Kind {
    /// Every kind, in the order reports show them.
    pub const ALL: [Self; 7] = [
        Self::Single,
        Self::Contrastive,
        Self::Negative,
        Self::MultiTurn,
        Self::Crud,
        Self::Compound,
        Self::General,
    ];

    /// The name used in rows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Contrastive => "contrastive",
            Self::Negative => "negative",
            Self::MultiTurn => "multi_turn",
            Self::Crud => "crud",
            Self::Compound => "compound",
            Self::General => "general",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One turn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "lowercase", deny_unknown_fields)]
pub enum Message {
    /// What the person says.
    User {
        /// Plain text.
        content: String,
    },
    /// What the assistant answers: prose, then calls.
    Assistant {
        /// Plain text without any call.
        content: String,
        /// The calls, in order.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        calls: Vec<Call>,
    },
    /// What a tool gave back.
    Tool {
        /// Any JSON value.
        content: Value,
    },
}

/// One tool call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// The tool's name.
    pub tool: String,
    /// Its parameters, in the order shown.
    pub params: Map<String, Value>,
}

impl Conversation {
    /// The texts of the user's turns, in order.
    pub fn user_texts(&self) -> impl Iterator<Item = &str> {
        self.messages.iter().filter_map(|message| match message {
            Message::User { content } => Some(content.as_str()),
            _ => None,
        })
    }

    /// All user turns in one text, a line each: what duplicates are looked for in.
    pub fn user_text(&self) -> String {
        self.user_texts().collect::<Vec<_>>().join("\n")
    }

    /// Every call, in order.
    pub fn calls(&self) -> impl Iterator<Item = &Call> {
        self.messages.iter().flat_map(|message| match message {
            Message::Assistant { calls, .. } => calls.as_slice(),
            _ => &[],
        })
    }

    /// The first tool called, or `None`.
    pub fn first_tool(&self) -> Option<&str> {
        self.calls().next().map(|call| call.tool.as_str())
    }

    /// What is wrong with the order of the turns: a row starts with the user, ends with
    /// the assistant, and a tool speaks only after a call.
    pub fn shape_faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.id.trim().is_empty() {
            faults.push("the id is empty".to_owned());
        }
        if !matches!(self.messages.first(), Some(Message::User { .. })) {
            faults.push("it does not begin with a user turn".to_owned());
        }
        if !matches!(self.messages.last(), Some(Message::Assistant { .. })) {
            faults.push("it does not end with an assistant turn".to_owned());
        }
        for (at, pair) in self.messages.windows(2).enumerate() {
            if let Some(why) = broken_step(&pair[0], &pair[1]) {
                faults.push(format!("message {}: {why}", at + 2));
            }
        }
        for (at, message) in self.messages.iter().enumerate() {
            if let Message::User { content } = message
                && content.trim().is_empty()
            {
                faults.push(format!("message {}: the user says nothing", at + 1));
            }
        }
        faults
    }
}

fn broken_step(before: &Message, after: &Message) -> Option<&'static str> {
    match (before, after) {
        (Message::User { .. }, Message::User { .. }) => Some("two user turns in a row"),
        (Message::Assistant { .. }, Message::Assistant { .. }) => {
            Some("two assistant turns in a row")
        }
        (Message::User { .. }, Message::Tool { .. }) => Some("a tool result follows a user turn"),
        (Message::Assistant { calls, .. }, Message::Tool { .. }) if calls.is_empty() => {
            Some("a tool result follows an answer without a call")
        }
        (Message::Tool { .. }, Message::User { .. }) => {
            Some("a user turn follows a tool result; the assistant answers first")
        }
        _ => None,
    }
}

/// Where a row came from; shown in faults.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// File name, relative to the folder that was given.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// A row and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Placed {
    /// The row.
    pub row: Conversation,
    /// Its place.
    pub place: Place,
}

/// Why rows could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file or folder cannot be read.
    #[error("`{path}`: {error}")]
    Io {
        /// The path.
        path: PathBuf,
        /// The cause.
        error: std::io::Error,
    },
    /// A folder without any row file.
    #[error("`{path}` holds no `.jsonl` file")]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// Lines that are not rows; every one of them.
    #[error("{}", list(.0))]
    Lines(Vec<(Place, String)>),
}

fn list(lines: &[(Place, String)]) -> String {
    let shown: Vec<_> = lines
        .iter()
        .take(20)
        .map(|(place, cause)| format!("{place}: {cause}"))
        .collect();
    let rest = lines.len().saturating_sub(shown.len());
    let more = if rest > 0 {
        format!("\n... and {rest} more")
    } else {
        String::new()
    };
    format!("{}{more}", shown.join("\n"))
}

impl From<ReadError> for StageError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Io { path, error } => StageError::io(&path, &error),
            ReadError::Empty { .. } => StageError::new(
                "rows::empty",
                error.to_string(),
                "give a `.jsonl` file, or a folder that holds some",
            ),
            ReadError::Lines(_) => StageError::new(
                "rows::broken-line",
                error.to_string(),
                "mend these lines: one conversation a line, as `data/README.md` shows",
            ),
        }
    }
}

/// The `.jsonl` files below `path` in the order of their names, with the name shown for
/// each; `path` itself when it is a file.
pub fn row_files(path: &Path) -> Result<Vec<(PathBuf, String)>, ReadError> {
    if !path.is_dir() {
        let name = path.file_name().unwrap_or(path.as_os_str());
        return Ok(vec![(path.to_owned(), name.to_string_lossy().into_owned())]);
    }
    let mut files = Vec::new();
    for entry in walkdir::WalkDir::new(path)
        .follow_links(true)
        .sort_by_file_name() {
        let entry = entry.map_err(|error| ReadError::Io {
            path: path.to_owned(),
            error: error.into(),
        })?;
        if entry.file_type().is_file() && entry.path().extension().is_some_and(|e| e == "jsonl") {
            let shown = entry.path().strip_prefix(path).unwrap_or(entry.path());
            let shown = shown.to_string_lossy().into_owned();
            files.push((entry.into_path(), shown));
        }
    }
    if files.is_empty() {
        return Err(ReadError::Empty {
            path: path.to_owned(),
        });
    }
    Ok(files)
}

/// Reads one JSON value a line from every row file below `path`; blank lines are skipped.
pub fn read_lines<T: serde::de::DeserializeOwned>(
    path: &Path,
) -> Result<Vec<(T, Place)>, ReadError> {
    let mut rows = Vec::new();
    let mut broken = Vec::new();
    for (file, name) in row_files(path)? {
        let text = std::fs::read_to_string(&file).map_err(|error| ReadError::Io {
            path: file.clone(),
            error,
        })?;
        for (at, line) in text.lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let place = Place {
                file: name.clone(),
                line: at + 1,
            };
            match serde_json::from_str(line) {
                Ok(row) => rows.push((row, place)),
                Err(error) => broken.push((place, plain(&error))),
            }
        }
    }
    if broken.is_empty() {
        Ok(rows)
    } else {
        Err(ReadError::Lines(broken))
    }
}

/// serde's message without its "at line 1": the line is ours to tell.
fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(cut) => format!("{} (column {})", &text[..cut], error.column()),
        None => text,
    }
}

/// Reads every conversation below `path`.
pub fn read(path: &Path) -> Result<Vec<Placed>, ReadError> {
    let rows = read_lines(path)?;
    Ok(rows
        .into_iter()
        .map(|(row, place)| Placed { row, place })
        .collect())
}

/// Writes rows, one a line.
pub fn write<'a>(
    path: &Path,
    rows: impl IntoIterator<Item = &'a Conversation>,
) -> Result<(), StageError> {
    let failed = |error: &std::io::Error| StageError::io(path, error);
    let mut file = BufWriter::new(std::fs::File::create(path).map_err(|e| failed(&e))?);
    for row in rows {
        let line = serde_json::to_string(row).expect("a conversation is always JSON");
        writeln!(file, "{line}").map_err(|e| failed(&e))?;
    }
    file.flush().map_err(|e| failed(&e))
}

/// Writes a report as indented JSON with a final newline.
pub fn write_report(path: &Path, report: &impl Serialize) -> Result<(), StageError> {
    let mut text = serde_json::to_string_pretty(report).expect("a report is always JSON");
    text.push('\n');
    std::fs::write(path, text).map_err(|error| StageError::io(path, &error))
}

/// `now` as `2026-03-02T09:00`.
pub mod minute {
    use jiff::civil::DateTime;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    const SHAPE: &str = "%Y-%m-%dT%H:%M";

    /// Writes to the minute.
    pub fn serialize<S: Serializer>(now: &Option<DateTime>, to: S) -> Result<S::Ok, S::Error> {
        match now {
            Some(now) => to.serialize_str(&now.strftime(SHAPE).to_string()),
            None => to.serialize_none(),
        }
    }

    /// Reads a wall clock time; a zone or an offset is refused.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<DateTime>, D::Error> {
        let Some(text) = Option::<String>::deserialize(from)? else {
            return Ok(None);
        };
        DateTime::strptime(SHAPE, &text).map(Some).map_err(|_| {
            D::Error::custom(format!(
                "`now` is a local minute such as `2026-03-02T09:00`, not `{text}`"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"id":"task-001","source":"hand","type":"single","group":"dentist-1","now":"2026-03-02T09:00","messages":[{"role":"user","content":"remind me to call john tomorrow"},{"role":"assistant","content":"I'll add that to your tasks.","calls":[{"tool":"createTask","params":{"title":"Call John","dueDate":"2026-03-03T09:00:00Z","priority":"medium"}}]},{"role":"tool","content":{"id":"task_81","status":"created"}},{"role":"assistant","content":"Done, it's on your list."}]}"#;

    #[test]
    fn a_row_is_written_as_it_was_read() {
        let row: Conversation = serde_json::from_str(LINE).unwrap();
        assert_eq!(serde_json::to_string(&row).unwrap(), LINE);
        assert_eq!(row.first_tool(), Some("createTask"));
        assert!(row.shape_faults().is_empty());
    }

    #[test]
    fn every_broken_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        let odd = LINE.replace("\"role\":\"tool\"", "\"role\":\"function\"");
        let late = LINE.replace("2026-03-02T09:00\"", "tomorrow\"");
        std::fs::write(&path, format!("{LINE}\n\n{odd}\n{late}\n{{\n")).unwrap();
        let error = StageError::from(read(folder.path()).unwrap_err());
        assert_eq!(error.code, "rows::broken-line");
        let lines: Vec<_> = error.message.lines().collect();
        assert_eq!(lines.len(), 3, "{}", error.message);
        assert!(
            lines[0].starts_with("rows.jsonl:3: unknown variant `function`"),
            "{}",
            lines[0]
        );
        assert!(lines[1].contains("rows.jsonl:4: `now` is a local minute"));
        assert!(lines[2].starts_with("rows.jsonl:5: EOF"));
    }

    #[test]
    fn turns_out_of_order_are_told() {
        let mut row: Conversation = serde_json::from_str(LINE).unwrap();
        row.messages.swap(0, 1);
        row.messages.pop();
        let faults = row.shape_faults();
        assert_eq!(
            faults,
            [
                "it does not begin with a user turn",
                "it does not end with an assistant turn",
                "message 3: a tool result follows a user turn",
            ]
        );
    }
}
