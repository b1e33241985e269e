//! The Anthropic Messages API: structured output, prompt caching.
//!
//! `POST {base}/v1/messages` with `output_config.format` (a JSON schema) and a cached
//! system block; `stop_reason` decides whether the text is whole. Promises: the key is in
//! a header and nowhere else. Must not know: what is asked for.

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::Writer;
use super::jobs::Batch;
use super::spend::Usage;
use crate::contract::Params;
use crate::http::{Environment, Http, HttpError, Payload, Request};

const VERSION: &str = "2023-06-01";
const DEFAULT_BASE: &str = "https://api.anthropic.com";
const DEFAULT_MODEL: &str = "claude-sonnet-4-6";

pub(super) struct Anthropic {
    base: String,
    model: String,
    key: Option<SecretString>,
    system: String,
    max_tokens: i64,
}

impl Anthropic {
    pub(super) fn new(
        params: &Params,
        environment: &Environment,
        system: String,
        max_tokens: i64,
    ) -> Self {
        let base = params.text("base_url");
        let base = base.or_else(|| environment.get("ANTHROPIC_BASE_URL").map(str::to_owned));
        let base = base.unwrap_or_else(|| DEFAULT_BASE.to_owned());
        Self {
            base: base.trim_end_matches('/').to_owned(),
            model: params
                .text("model")
                .unwrap_or_else(|| DEFAULT_MODEL.to_owned()),
            key: environment.secret(&["ANTHROPIC_API_KEY"]),
            system,
            max_tokens,
        }
    }
}

impl Writer for Anthropic {
    fn body(&self, batch: &Batch<'_>) -> Value {
        json!({
            "model": self.model,
            "max_tokens": self.max_tokens,
            "system": [{"type": "text", "text": self.system, "cache_control": {"type": "ephemeral"}}],
            "messages": [{"role": "user", "content": batch.task}],
            "output_config": {"format": {"type": "json_schema", "schema": batch.schema}},
        })
    }

    fn ask(&self, http: &Http<'_>, body: &Value) -> Result<Value, HttpError> {
        let url = format!("{}/v1/messages", self.base);
        let mut request =
            Request::new(url, Payload::Json(body)).header("anthropic-version", VERSION.to_owned());
        if let Some(key) = &self.key {
            request = request.header("x-api-key", key.expose_secret().to_owned());
        }
        // Asked again by the caller, who keeps account of what may have been billed.
        request.repeatable = false;
        let mut reply = http.send(&request)?;
        if reply.ok() {
            return reply.json();
        }
        let said = http.redact(&reply.text());
        let said = serde_json::from_str::<Value>(&said).ok().and_then(|body| {
            let error = &body["error"];
            let kind = error["type"].as_str()?;
            Some(format!(
                "{kind}: {}",
                error["message"].as_str().unwrap_or("")
            ))
        });
        Err(reply.refused(&said.unwrap_or_else(|| "no reason given".to_owned())))
    }

    fn read(&self, answer: &Value) -> Result<String, &'static str> {
        match answer["stop_reason"].as_str() {
            Some("end_turn" | "stop_sequence") => {}
            Some("refusal") => return Err("refusal"),
            Some("max_tokens" | "model_context_window_exceeded") => return Err("truncated"),
            _ => return Err("odd-stop-reason"),
        }
        let blocks = answer["content"].as_array().map_or(&[][..], Vec::as_slice);
        let text: String = blocks
            .iter()
            .filter(|block| block["type"] == "text")
            .filter_map(|block| block["text"].as_str())
            .collect();
        if text.is_empty() {
            Err("empty")
        } else {
            Ok(text)
        }
    }

    fn usage(&self, answer: &Value) -> Usage {
        let count = |name: &str| answer["usage"][name].as_u64().unwrap_or(0);
        Usage {
            input: count("input_tokens"),
            cache_write: count("cache_creation_input_tokens"),
            cache_read: count("cache_read_input_tokens"),
            output: count("output_tokens"),
        }
    }
}
