//! Proof that the adapter is applied: the same prompts without and with it.
//!
//! A new adapter answers 3037 for a while; that is waited for. Which chat template the
//! service applies to `messages` is published nowhere, and its guide says to use plain
//! prompts with adapters: when `messages` bring no call, the plain form of the training is
//! tried, and the Worker uses the form that worked.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use regex::Regex;
use serde_json::{Value, json};

use crate::contract::{Context, Outcome};

use super::cloudflare::{Cloudflare, NOT_FOUND};
use super::error::UploadError;
use super::models;
use super::params::Settings;
use super::receipt;

static BLOCK: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"(?s)```json\s*\n(.*?)```").expect("a pattern"));

/// How the model is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Chat messages, the template is the service's.
    Messages,
    /// One text in the template of the training.
    Prompt,
}

/// One prompt, asked twice.
struct Pair {
    prompt: String,
    form: Form,
    base: String,
    lora: String,
}

/// What was asked and answered.
pub(super) struct Verification {
    pairs: Vec<Pair>,
    skipped: Option<String>,
    /// The form that brings calls.
    pub(super) form: Form,
}

impl Verification {
    /// No verification, and why.
    pub(super) fn skipped(why: &str) -> Self {
        Self {
            pairs: Vec::new(),
            skipped: Some(why.to_owned()),
            form: Form::Messages,
        }
    }

    fn differing(&self) -> usize {
        self.pairs.iter().filter(|pair| pair.differs()).count()
    }

    fn calling(&self) -> usize {
        self.pairs
            .iter()
            .filter(|pair| has_call(&pair.lora))
            .count()
    }

    /// Writes the product.
    pub(super) fn write(&self, ctx: &Context<'_>) -> Result<(), UploadError> {
        let pairs: Vec<Value> = self.pairs.iter().map(Pair::json).collect();
        let value = match &self.skipped {
            Some(why) => json!({"verified": false, "why": why}),
            None => json!({
                "verified": true,
                "form": self.form.name(),
                "differ": self.differing(),
                "with_call": self.calling(),
                "prompts": pairs,
            }),
        };
        receipt::put(ctx, "verification.json", &value)
    }

    /// Figures and notes.
    pub(super) fn outcome(&self) -> Outcome {
        let all = self.pairs.len();
        if let Some(why) = &self.skipped {
            return Outcome {
                notes: vec![format!("not verified: {why}")],
                ..Outcome::default()
            };
        }
        let share = |count: usize| count as f64 / all.max(1) as f64;
        Outcome {
            metrics: BTreeMap::from([
                ("verify.differs".to_owned(), share(self.differing())),
                ("verify.with_call".to_owned(), share(self.calling())),
            ]),
            notes: vec![format!(
                "the adapter is applied: {} of {all} answers differ from the base's, {} hold a tool call",
                self.differing(),
                self.calling()
            )],
            pin: None,
        }
    }
}

impl Form {
    fn name(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Prompt => "prompt",
        }
    }
}

impl Pair {
    fn differs(&self) -> bool {
        self.base.trim() != self.lora.trim()
    }

    fn json(&self) -> Value {
        json!({
            "prompt": self.prompt,
            "form": self.form.name(),
            "base": self.base,
            "lora": self.lora,
            "differs": self.differs(),
            "call": has_call(&self.lora),
        })
    }
}

/// Whether a text holds a fenced JSON block with `tool` and `params`.
fn has_call(text: &str) -> bool {
    BLOCK.captures_iter(text).any(|block| {
        serde_json::from_str::<Value>(&block[1])
            .is_ok_and(|call| call["tool"].is_string() && call["params"].is_object())
    })
}

/// Asks every prompt without and with the adapter.
pub(super) fn verify(
    service: &Cloudflare<'_>,
    settings: &Settings,
    model: &str,
    name: &str,
    system: Option<&str>,
) -> Result<Verification, UploadError> {
    let ctx = service.context();
    let asker = Asker {
        service,
        settings,
        model,
        name,
        system,
    };
    asker.until_ready()?;
    let mut proof = asker.all(Form::Messages)?;
    if proof.calling() == 0 && models::model_type(model) == Some("mistral") {
        let plain = asker.all(Form::Prompt)?;
        if plain.calling() > 0 || (proof.differing() == 0 && plain.differing() > 0) {
            proof = plain;
        }
    }
    if proof.differing() == 0 {
        return Err(UploadError::NotApplied {
            name: name.to_owned(),
            model: model.to_owned(),
            count: settings.prompts.len(),
        });
    }
    if proof.calling() == 0 {
        ctx.warn(
            "upload::no-call",
            "the adapter changes the answers, but none of them holds a tool call: compare verification.json with a local eval",
        );
    }
    Ok(proof)
}

struct Asker<'s> {
    service: &'s Cloudflare<'s>,
    settings: &'s Settings,
    model: &'s str,
    name: &'s str,
    system: Option<&'s str>,
}

impl Asker<'_> {
    /// Waits, doubling up to a minute, until the adapter answers anything but 3037.
    fn until_ready(&self) -> Result<(), UploadError> {
        let ctx = self.service.context();
        let patience = self.service.patience();
        let most = Duration::from_secs(self.settings.wait_seconds);
        let (mut waited, mut attempt) = (Duration::ZERO, 3);
        loop {
            let input = self.input("hi", Form::Messages, true, 1);
            let refusal = match self.service.run(self.model, &input) {
                Ok(_) => return Ok(()),
                Err(UploadError::Service { refusal, .. }) if refusal.code == NOT_FOUND => refusal,
                Err(error) => return Err(error),
            };
            if waited >= most {
                return Err(UploadError::NotReady {
                    name: self.name.to_owned(),
                    waited: waited.as_secs(),
                    refusal,
                });
            }
            ctx.progress(
                "waiting for the adapter to be ready",
                waited.as_secs(),
                Some(most.as_secs()),
                "seconds",
            );
            let wait = patience.step(attempt).min(most.saturating_sub(waited));
            patience.wait(ctx, wait)?;
            waited += wait;
            attempt += 1;
        }
    }

    fn all(&self, form: Form) -> Result<Verification, UploadError> {
        let ctx = self.service.context();
        let total = self.settings.prompts.len() as u64;
        let mut pairs = Vec::new();
        for (at, prompt) in self.settings.prompts.iter().enumerate() {
            ctx.progress("verifying", at as u64, Some(total), "prompts");
            let tokens = self.settings.max_tokens;
            let ask = |lora| {
                self.service
                    .run(self.model, &self.input(prompt, form, lora, tokens))
            };
            pairs.push(Pair {
                prompt: prompt.clone(),
                form,
                base: ask(false)?,
                lora: ask(true)?,
            });
        }
        ctx.progress("verifying", total, Some(total), "prompts");
        Ok(Verification {
            pairs,
            skipped: None,
            form,
        })
    }

    /// Greedy, with the smallest seed the schema allows; the default of 256 tokens would
    /// cut a second call.
    fn input(&self, prompt: &str, form: Form, lora: bool, tokens: u64) -> Value {
        let mut input = json!({"max_tokens": tokens, "temperature": 0, "seed": 1});
        match form {
            Form::Messages => {
                let mut messages = Vec::new();
                messages.extend(
                    self.system
                        .map(|text| json!({"role": "system", "content": text})),
                );
                messages.push(json!({"role": "user", "content": prompt}));
                input["messages"] = Value::Array(messages);
            }
            Form::Prompt => {
                let system = self
                    .system
                    .map(|text| format!("{text}\n\n"))
                    .unwrap_or_default();
                input["prompt"] = Value::String(format!("<s>[INST] {system}{prompt} [/INST]"));
                input["raw"] = Value::Bool(true);
            }
        }
        if lora {
            input["lora"] = Value::String(self.name.to_owned());
        }
        input
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_a_block_with_tool_and_params() {
        let call =
            "Sure.\n\n```json\n{\"tool\": \"createTask\", \"params\": {\"title\": \"x\"}}\n```";
        assert!(has_call(call));
        for text in [
            "no block",
            "```json\n{\"tool\": \"createTask\"}\n```",
            "```json\n{\"tool\": 1, \"params\": {}}\n```",
            "```json\n{\"tool\": \"createTask\", \"params\": {}",
            "```\n{\"tool\": \"createTask\", \"params\": {}}\n```",
        ] {
            assert!(!has_call(text), "{text}");
        }
    }
}
