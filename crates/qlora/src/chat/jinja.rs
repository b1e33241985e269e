//! Chat templates rendered as transformers renders them: minijinja with Python's string methods.
//!
//! Promises the same text at any time of day: `strftime_now` is not defined, so templates that ask for a
//! date take their fixed one.

use minijinja::value::{Rest, Value};
use minijinja::{Environment, ErrorKind, context};
use serde::Serialize;

use super::ChatMessage;
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// A parsed template with the tokens that its text may name.
#[derive(Debug)]
pub(super) struct Template {
    env: Environment<'static>,
    bos: String,
    eos: String,
}

const NAME: &str = "chat_template";

impl Template {
    pub(super) fn new(text: &str, tokenizer: &Tokenizer) -> Result<Self> {
        let mut env = Environment::new();
        env.set_trim_blocks(true);
        env.set_lstrip_blocks(true);
        env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        env.add_function("raise_exception", raise_exception);
        env.add_filter("tojson", to_json);
        env.add_template_owned(NAME, text.to_string())
            .map_err(|e| {
                Error::unsupported(
                    NAME,
                    e.to_string(),
                    "use a model whose chat template is plain jinja",
                )
            })?;
        let owned = |token: Option<&str>| token.unwrap_or_default().to_string();
        Ok(Self {
            env,
            bos: owned(tokenizer.bos()),
            eos: owned(tokenizer.eos()),
        })
    }

    /// The text of a conversation.
    pub(super) fn render(
        &self,
        messages: &[ChatMessage],
        add_generation_prompt: bool,
    ) -> Result<String> {
        let messages: Vec<_> = messages
            .iter()
            .map(|m| context! { role => m.role.name(), content => m.content })
            .collect();
        let values = context! {
            messages, add_generation_prompt, bos_token => self.bos, eos_token => self.eos,
        };
        let template = self
            .env
            .get_template(NAME)
            .expect("the template was added under this name");
        template.render(values).map_err(|e| Error::Chat {
            what: format!(
                "the chat template refuses the conversation: {}",
                e.detail().unwrap_or("it fails")
            ),
            mend: "bring the row into the form that the model's template asks for".into(),
        })
    }
}

fn raise_exception(message: &str) -> Result<Value, minijinja::Error> {
    Err(minijinja::Error::new(
        ErrorKind::InvalidOperation,
        message.to_string(),
    ))
}

/// Python's `json.dumps(value, ensure_ascii=False)`; minijinja's own filter escapes HTML.
fn to_json(value: &Value, options: Rest<Value>) -> Result<Value, minijinja::Error> {
    let failed =
        |e: serde_json::Error| minijinja::Error::new(ErrorKind::BadSerialization, e.to_string());
    if !options.is_empty() {
        let message = "options of `tojson` are not supported";
        return Err(minijinja::Error::new(ErrorKind::InvalidOperation, message));
    }
    let mut bytes = Vec::new();
    value
        .serialize(&mut serde_json::Serializer::with_formatter(
            &mut bytes, PythonJson,
        ))
        .map_err(failed)?;
    Ok(Value::from_safe_string(
        String::from_utf8(bytes).expect("serde_json writes UTF-8"),
    ))
}

/// `", "` and `": "`, as Python writes JSON.
struct PythonJson;

impl serde_json::ser::Formatter for PythonJson {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first {
            Ok(())
        } else {
            writer.write_all(b", ")
        }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first {
            Ok(())
        } else {
            writer.write_all(b", ")
        }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
    ) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}
