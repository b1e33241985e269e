//! `worker.ts`: a Cloudflare Worker that asks the model exactly as it was trained.

use crate::contract::Context;

use super::error::UploadError;
use super::models;
use super::verify::Form;

const TEMPLATE: &str = include_str!("worker.ts");

/// Writes the product.
pub(super) fn write(
    ctx: &Context<'_>,
    model: &str,
    lora: &str,
    system: Option<&str>,
    form: Form,
) -> Result<(), UploadError> {
    let path = ctx.output.join("worker.ts");
    let text = render(model, lora, system.unwrap_or_default(), form);
    std::fs::write(&path, text).map_err(|error| UploadError::file(&path, error))
}

/// The Worker's text. A JSON string is a TypeScript string.
fn render(model: &str, lora: &str, system: &str, form: Form) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let raw = form == Form::Prompt && models::model_type(model) == Some("mistral");
    // The system prompt goes in last: whatever it says is not replaced again.
    TEMPLATE
        .replace("\"@MODEL@\"", &quoted(model))
        .replace("\"@LORA@\"", &quoted(lora))
        .replace(
            "RAW_FORM = false",
            if raw {
                "RAW_FORM = true"
            } else {
                "RAW_FORM = false"
            },
        )
        .replace("\"@SYSTEM@\"", &quoted(system))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worker_names_the_model_and_quotes_the_prompt() {
        let system = "Say \"yes\".\nUse `tools`: ${x} \"@LORA@\"";
        let text = render("@cf/mistral/x-lora", "pa-1", system, Form::Prompt);
        assert!(text.contains("const MODEL = \"@cf/mistral/x-lora\";"));
        assert!(text.contains("const LORA = \"pa-1\";"));
        assert!(text.contains(
            r#"const SYSTEM_PROMPT: string = "Say \"yes\".\nUse `tools`: ${x} \"@LORA@\"";"#
        ));
        assert!(text.contains("RAW_FORM = true"));
        assert!(
            render("@cf/google/gemma-2b-it-lora", "pa-1", "", Form::Prompt)
                .contains("RAW_FORM = false")
        );
    }
}
