//! `tunesmith review`: rows as cards, decisions as lines.

use serde_json::json;
use stages::Undecided;
use stages::review::{Choice, Decision};

use super::paint::Paint;
use super::units;

/// Columns of who speaks.
const WHO: usize = 9;

/// One row: what it is, its name, who says what.
pub fn card(stage: &str, row: &Undecided, place: (usize, usize)) -> String {
    let paint = Paint::for_stdout();
    let (at, of) = place;
    let head = format!("{stage}, {at} of {of}: {}", row.what);
    let mut text = format!("{}  {}\n", paint.bold(&head), paint.dim(&row.row));
    for (who, says) in &row.says {
        for (line, said) in says.lines().enumerate() {
            let who = if line == 0 { who.as_str() } else { "" };
            let said = if said.starts_with("-> ") {
                paint.cyan(said)
            } else {
                said.to_owned()
            };
            text.push_str(&format!(
                "  {}  {said}\n",
                paint.dim(&format!("{who:WHO$}"))
            ));
        }
    }
    text
}

/// What can be answered.
pub fn question() -> String {
    let paint = Paint::for_stdout();
    let words = ["[a]ccept", "[r]eject", "[e]dit", "[s]kip", "[q]uit"];
    format!("  {} ", paint.yellow(&format!("{}?", words.join(", "))))
}

/// What was decided about one row.
pub fn decided(row: &str, decision: &Decision) -> String {
    let word = word(decision.choice);
    format!("{word} {row}  {}\n", decision.about)
}

/// The same as an object.
pub fn decided_json(stage: &str, row: &str, decision: &Decision) -> String {
    let told = json!({
        "stage": stage, "row": row, "decision": decision.choice, "about": decision.about,
        "to": decision.to,
    });
    format!("{told}\n")
}

/// A row that waits, as an object.
pub fn waiting_json(stage: &str, row: &Undecided) -> String {
    let content: serde_json::Value = serde_json::from_str(&row.text).unwrap_or_default();
    let told = json!({
        "stage": stage, "row": row.row, "decision": null, "about": row.about, "content": content,
    });
    format!("{told}\n")
}

/// The last lines: what still waits, and what to type next.
pub fn rest(waiting: usize, decided: usize, unknown: &[(String, Vec<String>)]) -> String {
    let paint = Paint::for_stdout();
    let mut text = String::new();
    for (stage, until) in unknown {
        let until = until.join("`, `");
        text.push_str(&format!("`{stage}`: not known before `{until}` is done\n"));
    }
    if waiting > 0 {
        let rows = units::count(waiting, "row");
        let verb = if waiting == 1 { "waits" } else { "wait" };
        text.push_str(&format!("{rows} {verb} for a decision\n"));
    } else if decided > 0 {
        let next = paint.cyan("tunesmith run");
        text.push_str(&format!("nothing waits any more; next: {next}\n"));
    } else if unknown.is_empty() {
        text.push_str("nothing waits for people\n");
    }
    text
}

fn word(choice: Choice) -> &'static str {
    match choice {
        Choice::Accept => "accepted",
        Choice::Reject => "rejected",
        Choice::Edit => "edited",
    }
}
