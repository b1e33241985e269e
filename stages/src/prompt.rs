//! The system prompt: generated from the tool list, once, for training, eval and the
//! deployed Worker.
//!
//! Promises: the same tools give the same text; every tool is one line, so that the ten
//! tools of the assistant stay near 350 tokens. Must not know: rows, models, tokenizers.

use serde_json::Value;

use crate::tools::ToolSpec;

/// Raised whenever the text changes for the same tools.
pub const PROMPT_VERSION: u32 = 1;

/// The system prompt for a tool list.
pub fn system_prompt<'a>(tools: impl IntoIterator<Item = &'a ToolSpec>) -> String {
    let lines: Vec<String> = tools.into_iter().map(signature).collect();
    format!(
        "You are a personal assistant. Your tools (? means optional):\n\
         {}\n\
         To use a tool, say in one short sentence what you will do, then write the call:\n\
         \n\
         ```json\n\
         {{\"tool\": \"name\", \"params\": {{\"key\": \"value\"}}}}\n\
         ```\n\
         \n\
         One block for each call. When no tool fits, answer in plain text. \
         Take ids from the conversation. \
         A message may begin with the current time in brackets. \
         Write times as 2026-03-03T09:00:00Z.",
        lines.join("\n")
    )
}

/// `createTask(title, dueDate?, priority?: low|medium|high) - Add a to-do.`
fn signature(tool: &ToolSpec) -> String {
    let params: Vec<String> = tool
        .fields()
        .into_iter()
        .map(|(name, schema, required)| {
            let mark = if required { "" } else { "?" };
            match shape(schema) {
                Some(shape) => format!("{name}{mark}: {shape}"),
                None => format!("{name}{mark}"),
            }
        })
        .collect();
    let about = tool.description.trim();
    let dash = if about.is_empty() { "" } else { " - " };
    format!("{}({}){dash}{about}", tool.name, params.join(", "))
}

/// What a parameter takes, when its name does not say it: plain text and times are left out.
fn shape(schema: &Value) -> Option<String> {
    if let Some(words) = schema["enum"].as_array() {
        let words: Vec<String> = words
            .iter()
            .map(|word| {
                word.as_str()
                    .map_or_else(|| word.to_string(), str::to_owned)
            })
            .collect();
        return Some(words.join("|"));
    }
    match schema["type"].as_str()? {
        "string" if schema["format"] == "date" => Some("YYYY-MM-DD".to_owned()),
        "string" => None,
        "array" => {
            let item = shape(&schema["items"]).map(|item| format!(" of {item}"));
            Some(format!("list{}", item.unwrap_or_default()))
        }
        other => Some(other.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::assistant;

    #[test]
    fn the_assistant_prompt() {
        insta::assert_snapshot!(system_prompt(assistant().specs()));
    }

    #[test]
    fn it_stays_small() {
        // English text and signatures take about 3.6 characters a token in the
        // tokenizers of the supported bases; the bar is 500 tokens.
        let prompt = system_prompt(assistant().specs());
        assert!(prompt.chars().count() < 1_600, "{}", prompt.chars().count());
    }
}
