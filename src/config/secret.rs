//! Secrets that stand in the file: a fault, and blanked wherever the file is shown.
//!
//! Promises: no message and no excerpt repeats a secret that was found.

use super::Span;
use super::fault::{Fault, Faults};
use super::node::{Entry, Kind, Node};
use super::section;

/// How tokens of known services begin, and whose they are.
const PREFIXES: [(&str, &str); 9] = [
    ("hf_", "a Hugging Face token"),
    ("sk-ant-", "an Anthropic key"),
    ("sk-proj-", "an OpenAI key"),
    ("github_pat_", "a GitHub token"),
    ("ghp_", "a GitHub token"),
    ("ghs_", "a GitHub token"),
    ("glpat-", "a GitLab token"),
    ("xoxb-", "a Slack token"),
    ("AKIA", "an AWS key"),
];

/// Bytes of a token behind its prefix, at least.
const BODY: usize = 16;
/// The shortest prefix, and a body.
const SHORTEST_TOKEN: usize = 3 + BODY;

/// Environment variables whose value is a secret whether declared or not.
const KNOWN: [&str; 5] = [
    "HF_TOKEN",
    "ANTHROPIC_API_KEY",
    "CLOUDFLARE_API_TOKEN",
    "GITHUB_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
];

/// Nothing shorter is taken for a secret: `1` or `test` would match by accident.
const SHORTEST: usize = 8;

/// Secrets found, to be blanked.
#[derive(Default)]
pub(crate) struct Secrets {
    found: Vec<String>,
}

/// Looks through every value of the file. `env` gives the value of an environment
/// variable now.
pub(crate) fn search(
    root: &[Entry],
    env: &dyn Fn(&str) -> Option<String>,
    faults: &mut Vec<Fault>,
) -> Secrets {
    let values = current(root, env);
    let mut secrets = Secrets::default();
    for entry in root {
        walk(&entry.value, &mut |span, text| {
            if text.len() < SHORTEST {
                return;
            }
            let hit = token(text).map(|(token, whose)| (token, format!("looks like {whose}")));
            let value = values
                .iter()
                .find(|(_, value)| text.contains(value.as_str()));
            let hit = hit.or_else(|| {
                value.map(|(name, value)| (value.as_str(), format!("is the value of `{name}`")))
            });
            if let Some((token, is)) = hit {
                secrets.found.push(token.to_owned());
                faults.push(
                    Fault::at(
                        span,
                        "config::secret",
                        format!("a secret stands in the file: this {is}"),
                    )
                    .label("a secret")
                    .mend(
                        "take it out, put it in an environment variable and list that \
                             variable's name under `secrets`; renew it if the file was shared",
                    ),
                );
            }
        });
    }
    secrets
}

/// A token of a known service inside `text`.
pub(crate) fn token(text: &str) -> Option<(&str, &'static str)> {
    if text.len() < SHORTEST_TOKEN {
        return None;
    }
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    text.split(|c| !part(c)).find_map(|token| {
        let begins = |(prefix, _): &&(&str, &str)| token.starts_with(prefix);
        let (prefix, whose) = PREFIXES.iter().find(begins)?;
        let body = &token[prefix.len()..];
        let long = body.len() >= BODY && body.bytes().any(|byte| byte.is_ascii_digit());
        long.then_some((token, *whose))
    })
}

/// Values that declared and well-known secret variables have now.
fn current(root: &[Entry], env: &dyn Fn(&str) -> Option<String>) -> Vec<(String, String)> {
    let mut names: Vec<&str> = KNOWN.to_vec();
    let stages = section::get(root, "stages").and_then(|entry| entry.value.entries());
    for stage in stages.unwrap_or_default() {
        let entries = stage.value.entries().unwrap_or_default();
        if let Some(secrets) = section::get(entries, "secrets") {
            secrets.value.each_text(&mut |_, name| names.push(name));
        }
    }
    names.sort_unstable();
    names.dedup();
    names
        .into_iter()
        .filter(|name| !name.is_empty() && !name.contains(['=', '\0']))
        .filter_map(|name| env(name).map(|value| (name.to_owned(), value)))
        .filter(|(_, value)| value.len() >= SHORTEST)
        .collect()
}

/// Every text but the names under `secrets:`.
fn walk<'a>(node: &'a Node, visit: &mut impl FnMut(&'a Span, &'a str)) {
    match &node.kind {
        Kind::Text(text) => visit(&node.span, text),
        Kind::List(items) => items.iter().for_each(|item| walk(item, visit)),
        Kind::Map(entries) => entries
            .iter()
            .filter(|entry| entry.key != "secrets")
            .for_each(|entry| walk(&entry.value, visit)),
        Kind::Null | Kind::Bool(_) | Kind::Number(_) => {}
    }
}

impl Secrets {
    /// Another one.
    pub(crate) fn add(&mut self, text: &str) {
        if !text.is_empty() {
            self.found.push(text.to_owned());
        }
    }

    /// Replaces every secret in text and messages by stars of the same length.
    pub(crate) fn blank(&self, faults: &mut Faults) {
        let blanked = |text: &str| {
            self.found.iter().fold(text.to_owned(), |text, secret| {
                text.replace(secret.as_str(), &"*".repeat(secret.len()))
            })
        };
        faults.text = blanked(&faults.text);
        for fault in &mut faults.items {
            fault.message = blanked(&fault.message);
            fault.label = blanked(&fault.label);
            fault.mend = blanked(&fault.mend);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::token;

    #[test]
    fn tokens_are_found_inside_text_and_plain_words_are_not() {
        let body = "Ab1Cd2Ef3Gh4Ij5Kl6Mn";
        let (found, whose) = token(&format!("Bearer hf_{body}'"))
            .map(|(t, w)| (t.len(), w))
            .unwrap();
        assert_eq!((found, whose), (body.len() + 3, "a Hugging Face token"));
        assert!(token(&format!("sk-ant-api03-{body}")).is_some());
        for harmless in [
            "hf_hub_download",
            "half_1234567890123456789",
            "sk-ant-",
            "AKIA",
        ] {
            assert_eq!(token(harmless), None, "{harmless}");
        }
    }
}
