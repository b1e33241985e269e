//! Alpaca: `instruction`, `input` and `output`, one question and one answer.
//!
//! Promises: an input stands below its instruction; a row that says itself that it has no
//! answer is a named drop. Must not know: our tools; calls, there are none.

use serde_json::Value;

use super::foreign::{Dropped, Foreign, Said, drop_for};

/// Reads one row; the column `text`, the same once more in a template, is not looked at.
pub(super) fn read(row: &Value) -> Result<Foreign, Dropped> {
    let text = |key: &str| row[key].as_str().map(str::trim);
    let (Some(instruction), Some(output)) = (text("instruction"), text("output")) else {
        return drop_for("not-this-format", "no texts `instruction` and `output`");
    };
    if output.is_empty() || output.to_lowercase().contains("<nooutput>") {
        return drop_for("no-answer", instruction);
    }
    let input = text("input").filter(|input| !says_nothing(input));
    let user = match input {
        Some(input) => format!("{instruction}\n\n{input}"),
        None => instruction.to_owned(),
    };
    Ok(Foreign {
        turns: vec![
            Said::User(user),
            Said::Assistant(output.to_owned(), Vec::new()),
        ],
        ..Foreign::default()
    })
}

/// `<noinput>`, `<No input>`: an input that says it is none.
fn says_nothing(input: &str) -> bool {
    let plain = input.to_lowercase().replace(' ', "");
    plain.is_empty() || plain == "<noinput>"
}
