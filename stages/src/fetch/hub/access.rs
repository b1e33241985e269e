//! Where the hub is, who we are to it, and what its refusals mean.

use secrecy::SecretString;

use crate::http::{Environment, Http, Reply};

use super::super::FetchError;
use super::super::params::{Kind, Repository};
use super::plural;

const ENDPOINT: &str = "https://huggingface.co";

/// Endpoint and token.
pub(super) struct Access {
    endpoint: String,
    token: Option<SecretString>,
}

impl Access {
    /// Reads `HF_ENDPOINT` and the token: `HF_TOKEN`, else the file the hub's login wrote.
    pub(super) fn read(environment: &mut Environment) -> Self {
        let endpoint = environment.get("HF_ENDPOINT").unwrap_or(ENDPOINT);
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        let token = environment
            .secret(&["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"])
            .or_else(|| token_file(environment));
        if let Some(token) = &token {
            environment.know(token.clone());
        }
        Self { endpoint, token }
    }

    pub(super) fn token(&self) -> Option<&SecretString> {
        self.token.as_ref()
    }

    pub(super) fn listing_url(&self, repository: &Repository, revision: &str) -> String {
        format!(
            "{}/api/{}/{}/revision/{}?blobs=true",
            self.endpoint,
            plural(repository.kind),
            repository.id,
            escape(revision, false)
        )
    }

    pub(super) fn file_url(&self, repository: &Repository, commit: &str, file: &str) -> String {
        let folder = match repository.kind {
            Kind::Model => "",
            Kind::Dataset => "datasets/",
        };
        format!(
            "{}/{folder}{}/resolve/{commit}/{}",
            self.endpoint,
            repository.id,
            escape(file, true)
        )
    }

    /// The page a person opens.
    fn page(&self, repository: &Repository) -> String {
        match repository.kind {
            Kind::Model => format!("{}/{}", self.endpoint, repository.id),
            Kind::Dataset => format!("{}/datasets/{}", self.endpoint, repository.id),
        }
    }

    /// A refusal as an error. The hub answers 401 for a gated repository without a token
    /// and also for one that does not exist, so the mend names both.
    pub(super) fn refused(
        &self,
        http: &Http<'_>,
        mut reply: Reply,
        repository: &Repository,
        file: Option<&str>,
    ) -> FetchError {
        let code = reply
            .first_header("x-error-code")
            .unwrap_or_default()
            .to_owned();
        let page = self.page(repository);
        let place = page.clone();
        let gated = |why, mend| FetchError::Gated {
            id: repository.id.clone(),
            why,
            mend,
        };
        match (reply.status, code.as_str()) {
            (_, "RevisionNotFound") => FetchError::NotFound {
                what: format!("revision `{}`", repository.revision),
                place,
                mend: "check `revision`: a branch, a tag or a full commit".to_owned(),
            },
            (404, "EntryNotFound") => FetchError::NotFound {
                what: format!("`{}`", file.unwrap_or_default()),
                place,
                mend: "check `files`".to_owned(),
            },
            (401 | 403 | 404, _) if self.token.is_none() => gated(
                "or private, or it does not exist",
                format!(
                    "open {page}, check the name, accept its conditions, then set HF_TOKEN to a token of your account (Settings, Access Tokens)"
                ),
            ),
            (401, _) if code != "GatedRepo" => gated(
                "the hub does not know the token",
                "make a new token in the hub's settings and set HF_TOKEN".to_owned(),
            ),
            (401 | 403, _) => gated(
                "the account of HF_TOKEN has not been let in",
                format!(
                    "open {page} with that account and accept its conditions; some owners answer by hand; a fine-grained token also needs the right to read gated repositories"
                ),
            ),
            (404, _) => FetchError::NotFound {
                what: format!("`{}`", repository.id),
                place,
                mend: "check the name; if it is private, set HF_TOKEN to a token that may read it"
                    .to_owned(),
            },
            _ => {
                let said = http.redact(&reply.text());
                reply.refused(&said).into()
            }
        }
    }
}

fn token_file(environment: &Environment) -> Option<SecretString> {
    let path = environment.path("HF_TOKEN_PATH").or_else(|| {
        let home = super::cache::hub_home(environment)?;
        Some(home.join("token"))
    })?;
    let text = std::fs::read_to_string(path).ok()?;
    let token = text.trim();
    (!token.is_empty()).then(|| SecretString::from(token))
}

/// Percent-encodes what a path segment cannot hold; slashes stay when `path`.
fn escape(text: &str, path: bool) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if plain || (path && byte == b'/') {
            escaped.push(byte as char);
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}
