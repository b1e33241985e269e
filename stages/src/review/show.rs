//! A row as a person reads it. Must not know: colours, widths.

use crate::contract::Undecided;
use crate::conversation::{Call, Conversation, Message};
use crate::format::json;

/// Characters of a row's first words.
const ABOUT: usize = 72;

pub(super) fn undecided(id: String, row: &Conversation) -> Undecided {
    let mut says = Vec::new();
    if let Some(now) = &row.now {
        let now = now.strftime("%Y-%m-%d %H:%M, a %A").to_string();
        says.push(("now".to_owned(), now));
    }
    says.extend(row.messages.iter().map(turn));
    Undecided {
        row: id,
        what: format!("{}, from {}", row.kind, row.source),
        about: first_words(row.user_texts().next().unwrap_or_default()),
        says,
        text: serde_json::to_string_pretty(row).expect("a row is plain data"),
    }
}

fn turn(message: &Message) -> (String, String) {
    match message {
        Message::User { content } => ("user".to_owned(), content.clone()),
        Message::Assistant { content, calls } => {
            let lines = [content.clone()].into_iter().chain(calls.iter().map(call));
            let lines: Vec<String> = lines.filter(|line| !line.is_empty()).collect();
            ("assistant".to_owned(), lines.join("\n"))
        }
        Message::Tool { content } => ("tool".to_owned(), json(content)),
    }
}

fn call(Call { tool, params }: &Call) -> String {
    let params = params.iter();
    let params = params.map(|(name, value)| format!("{name}: {}", json(value)));
    format!("-> {tool}({})", params.collect::<Vec<_>>().join(", "))
}

fn first_words(text: &str) -> String {
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if flat.chars().count() <= ABOUT {
        return flat;
    }
    flat.chars().take(ABOUT - 1).chain(['…']).collect()
}
