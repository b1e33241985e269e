//! A self-hosted server that speaks the chat completions dialect (vLLM, llama.cpp, ...).
//!
//! Promises: OpenAI's own hosts are refused: their terms forbid training other models on
//! their answers. Must not know: what is asked for.

use secrecy::SecretString;
use serde_json::{Value, json};

use super::Writer;
use super::jobs::Batch;
use super::spend::Usage;
use crate::contract::{Params, StageError};
use crate::http::{Environment, Http, HttpError, Payload, Request};

pub(super) struct OpenAi {
    base: String,
    model: String,
    key: Option<SecretString>,
    system: String,
    max_tokens: i64,
}

/// Hosts whose answers may not train other models.
const REFUSED: [&str; 4] = [
    "openai.com",
    "openai.azure.com",
    "chatgpt.com",
    "oaiusercontent.com",
];

/// Why `base` may not be asked, or `None`.
pub(in crate::synthesize) fn refused_host(base: &str) -> Option<String> {
    let rest = base.split_once("://").map_or(base, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let host = authority.rsplit('@').next().unwrap_or(authority);
    let host = host
        .split(':')
        .next()
        .unwrap_or(host)
        .trim_end_matches('.')
        .to_lowercase();
    let refused = REFUSED
        .iter()
        .any(|name| host == *name || host.ends_with(&format!(".{name}")));
    refused.then_some(host)
}

/// The refusal as an error.
pub(in crate::synthesize) fn refusal(host: &str) -> StageError {
    StageError::new(
        "synthesize::openai-terms",
        format!("`{host}` is OpenAI's: its terms forbid training other models on its answers"),
        "use `provider: anthropic`, or a server of your own with an open model",
    )
    .at("with.base_url")
}

impl OpenAi {
    pub(super) fn new(
        params: &Params,
        environment: &Environment,
        system: String,
        max_tokens: i64,
    ) -> Result<Self, StageError> {
        let (Some(base), Some(model)) = (params.text("base_url"), params.text("model")) else {
            return Err(StageError::new(
                "synthesize::no-server",
                "the provider `openai-compatible` needs a server and a model",
                "set `base_url` (without `/v1`) and `model`",
            )
            .at("with.base_url"));
        };
        if let Some(host) = refused_host(&base) {
            return Err(refusal(&host));
        }
        Ok(Self {
            base: base
                .trim_end_matches('/')
                .trim_end_matches("/v1")
                .to_owned(),
            model,
            key: environment.secret(&["SYNTHESIZE_API_KEY"]),
            system,
            max_tokens,
        })
    }
}

impl Writer for OpenAi {
    fn body(&self, batch: &Batch<'_>) -> Value {
        json!({
            "model": self.model,
            "max_tokens": self.max_tokens,
            "messages": [
                {"role": "system", "content": self.system},
                {"role": "user", "content": batch.task},
            ],
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "examples", "strict": true, "schema": batch.schema},
            },
        })
    }

    fn ask(&self, http: &Http<'_>, body: &Value) -> Result<Value, HttpError> {
        let url = format!("{}/v1/chat/completions", self.base);
        let mut request = Request::new(url, Payload::Json(body)).bearer(self.key.as_ref());
        request.repeatable = false;
        let mut reply = http.send(&request)?;
        if reply.ok() {
            return reply.json();
        }
        let said = http.redact(&reply.text());
        Err(reply.refused(&said))
    }

    fn read(&self, answer: &Value) -> Result<String, &'static str> {
        let choice = &answer["choices"][0];
        match choice["finish_reason"].as_str() {
            Some("stop") => {}
            Some("length") => return Err("truncated"),
            Some("content_filter") => return Err("refusal"),
            _ => return Err("odd-stop-reason"),
        }
        match choice["message"]["content"].as_str() {
            Some(text) if !text.is_empty() => Ok(text.to_owned()),
            _ => Err("empty"),
        }
    }

    fn usage(&self, answer: &Value) -> Usage {
        Usage {
            input: answer["usage"]["prompt_tokens"].as_u64().unwrap_or(0),
            output: answer["usage"]["completion_tokens"].as_u64().unwrap_or(0),
            ..Usage::default()
        }
    }
}
