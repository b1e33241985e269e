//! What `with:` of an upload means.

use std::path::PathBuf;
use std::sync::LazyLock;

use regex::Regex;

use crate::contract::{Fault, Field, FieldType, Params};

/// Asked in the verification when `prompts` is not given: the first example of the plan,
/// in the form the training rows have.
const PROMPT: &str = "[Mon 2026-03-02 09:00] remind me to call john tomorrow";

const fn optional(name: &'static str, kind: FieldType, about: &'static str) -> Field {
    with_default(name, kind, "null", about)
}

const fn with_default(
    name: &'static str,
    kind: FieldType,
    default: &'static str,
    about: &'static str,
) -> Field {
    Field {
        name,
        kind,
        default: Some(default),
        about,
    }
}

pub(super) const FIELDS: &[Field] = &[
    Field {
        name: "target",
        kind: FieldType::Choice(&["cloudflare", "folder"]),
        default: None,
        about: "where to: `cloudflare` or `folder`",
    },
    optional(
        "name",
        FieldType::Text,
        "what the adapter is called; a digest of its content is appended",
    ),
    optional(
        "model",
        FieldType::Text,
        "the service's model, such as `@cf/mistral/mistral-7b-instruct-v0.2-lora`",
    ),
    optional(
        "account",
        FieldType::Text,
        "the Cloudflare account id; an upload needs it, and it is in the key",
    ),
    optional(
        "api_base",
        FieldType::Text,
        "the API's address with `/client/v4` (Cloudflare's when not given)",
    ),
    with_default(
        "description",
        FieldType::Text,
        "\"\"",
        "shown in the service's list",
    ),
    optional(
        "folder",
        FieldType::Text,
        "the folder of the target `folder`",
    ),
    with_default(
        "verify",
        FieldType::Bool,
        "true",
        "whether to ask the service with and without the adapter afterwards",
    ),
    optional(
        "prompts",
        FieldType::TextList,
        "user turns the verification asks",
    ),
    with_default(
        "max_tokens",
        FieldType::Int(1, 15_000),
        "512",
        "tokens an answer of the verification may have",
    ),
    with_default(
        "wait_seconds",
        FieldType::Int(0, 86_400),
        "900",
        "seconds to wait for a new adapter to become ready",
    ),
    with_default(
        "limit",
        FieldType::Int(1, 100_000),
        "100",
        "adapters an account may have",
    ),
];

/// What to do about a missing account.
pub(super) const WRITE_ACCOUNT: &str = "write `account:` under `with` (the dashboard shows the id beside every \
    domain, and an upload without it asks the token); the token alone stays in the environment";

/// Where to.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Target {
    Cloudflare {
        model: String,
        account: Option<String>,
        api_base: Option<String>,
    },
    Folder(PathBuf),
}

/// The checked parameters.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Settings {
    pub(super) target: Target,
    pub(super) name: String,
    pub(super) description: String,
    pub(super) verify: bool,
    pub(super) prompts: Vec<String>,
    pub(super) max_tokens: u64,
    pub(super) wait_seconds: u64,
    pub(super) limit: usize,
}

static NAME: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^[a-z0-9][a-z0-9_-]{0,49}$").expect("a pattern"));
static MODEL: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^@[a-z]+/[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$").expect("a pattern"));

impl Settings {
    /// The service's model, when the target is a service.
    pub(super) fn model(&self) -> Option<&str> {
        match &self.target {
            Target::Cloudflare { model, .. } => Some(model),
            Target::Folder(_) => None,
        }
    }

    /// Whether it goes to a service and nothing says to whose account.
    pub(super) fn lacks_account(&self) -> bool {
        matches!(&self.target, Target::Cloudflare { account: None, .. })
    }

    /// Reads the parameters, all faults at once.
    pub(super) fn read(params: &Params) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let target = match params.text("target").as_deref() {
            Some("folder") => folder(params, &mut faults),
            _ => cloudflare(params, &mut faults),
        };
        let name = params.text("name");
        let to_service = params.text("target").as_deref() != Some("folder");
        if let Some(name) = &name {
            if !NAME.is_match(name) || name.starts_with("cf-public-") {
                faults.push(Fault::new(
                    "upload::bad-name",
                    "with.name",
                    format!("`{name}` cannot be an adapter's name"),
                    "use lower-case letters, digits, `-` and `_`, at most 50; `cf-public-` is reserved",
                ));
            }
        } else if to_service {
            faults.push(missing("name", "what the adapter is called"));
        }
        let prompts = params.list("prompts");
        let settings = target.map(|target| Self {
            target,
            name: name.unwrap_or_else(|| "adapter".to_owned()),
            description: params.text("description").unwrap_or_default(),
            verify: params.flag("verify"),
            prompts: if prompts.is_empty() {
                vec![PROMPT.to_owned()]
            } else {
                prompts
            },
            max_tokens: params.int("max_tokens").unwrap_or(512).unsigned_abs(),
            wait_seconds: params.int("wait_seconds").unwrap_or(900).unsigned_abs(),
            limit: params.int("limit").map_or(100, |limit| limit as usize),
        });
        match settings {
            Some(settings) if faults.is_empty() => Ok(settings),
            _ => Err(faults),
        }
    }
}

fn missing(name: &str, about: &str) -> Fault {
    Fault::new(
        "config::missing-field",
        "with",
        format!("`{name}` is required for this target"),
        format!("add `{name}:` under `with`: {about}"),
    )
}

fn folder(params: &Params, faults: &mut Vec<Fault>) -> Option<Target> {
    for name in ["account", "api_base", "limit", "wait_seconds", "prompts"] {
        if params.given().contains_key(name) {
            faults.push(Fault::new(
                "upload::unused",
                &format!("with.{name}"),
                format!("`{name}` means nothing for the target `folder`"),
                "remove it",
            ));
        }
    }
    let folder = params.text("folder");
    if folder.is_none() {
        faults.push(missing("folder", "where the adapter is copied to"));
    }
    folder.map(|folder| Target::Folder(PathBuf::from(folder)))
}

fn cloudflare(params: &Params, faults: &mut Vec<Fault>) -> Option<Target> {
    if params.given().contains_key("folder") {
        faults.push(Fault::new(
            "upload::unused",
            "with.folder",
            "`folder` means nothing for the target `cloudflare`",
            "remove it, or write `target: folder`",
        ));
    }
    let api_base = params.text("api_base");
    if let Some(base) = api_base.as_deref().filter(|base| !is_safe(base)) {
        faults.push(Fault::new(
            "upload::insecure-api",
            "with.api_base",
            format!("`{base}` is not an https address, and the token would be sent in the clear"),
            "write it as `https://host/client/v4`",
        ));
    }
    let Some(model) = params.text("model") else {
        faults.push(missing(
            "model",
            "the service's model that the adapter was trained for",
        ));
        return None;
    };
    if !MODEL.is_match(&model) {
        faults.push(Fault::new(
            "upload::bad-model",
            "with.model",
            format!("`{model}` is not a model of Workers AI"),
            "write it as `@cf/owner/name`, such as `@cf/mistral/mistral-7b-instruct-v0.2-lora`",
        ));
    }
    Some(Target::Cloudflare {
        model,
        account: params.text("account"),
        api_base,
    })
}

/// Whether a token may be sent there: encrypted, or to this machine.
pub(super) fn is_safe(base: &str) -> bool {
    let local = ["http://127.0.0.1", "http://localhost", "http://[::1]"];
    let ends = |rest: &str| rest.is_empty() || rest.starts_with([':', '/']);
    base.starts_with("https://")
        || local
            .iter()
            .any(|start| base.strip_prefix(start).is_some_and(ends))
}
