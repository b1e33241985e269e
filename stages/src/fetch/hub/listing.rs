//! What a commit of a repository holds, as the hub says.

use serde_json::Value;

use crate::http::{Http, Request};

use super::super::FetchError;
use super::super::params::{Repository, is_commit};
use super::access::Access;

/// One file of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remote {
    /// Path below the repository, with `/`.
    pub(super) name: String,
    /// In bytes.
    pub(super) size: Option<u64>,
    /// Known for large files.
    pub(super) sha256: Option<String>,
}

/// The files of a commit, by name.
#[derive(Clone, Debug)]
pub(super) struct Listing {
    /// Forty hexadecimal digits.
    pub(super) commit: String,
    pub(super) files: Vec<Remote>,
    licences: Vec<String>,
}

/// Asks the hub for the files of a revision.
pub(super) fn ask(
    http: &Http<'_>,
    access: &Access,
    repository: &Repository,
    revision: &str,
) -> Result<Listing, FetchError> {
    let url = access.listing_url(repository, revision);
    let reply = http.send(&Request::get(url).bearer(access.token()))?;
    if !reply.ok() {
        return Err(access.refused(http, reply, repository, None));
    }
    read(repository, &reply.json()?)
}

fn read(repository: &Repository, answer: &Value) -> Result<Listing, FetchError> {
    let lacks = |field| FetchError::BadAnswer {
        id: repository.id.clone(),
        field,
    };
    let commit = answer["sha"].as_str().filter(|sha| is_commit(sha));
    let commit = commit.ok_or_else(|| lacks("sha"))?.to_owned();
    let siblings = answer["siblings"]
        .as_array()
        .ok_or_else(|| lacks("siblings"))?;
    let mut files = Vec::new();
    for sibling in siblings {
        let name = sibling["rfilename"]
            .as_str()
            .ok_or_else(|| lacks("rfilename"))?;
        if !stays_inside(name) {
            return Err(FetchError::Escapes {
                id: repository.id.clone(),
                file: name.to_owned(),
            });
        }
        let large = &sibling["lfs"];
        files.push(Remote {
            name: name.to_owned(),
            size: large["size"].as_u64().or_else(|| sibling["size"].as_u64()),
            sha256: large["sha256"]
                .as_str()
                .and_then(super::super::download::sha_of),
        });
    }
    files.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(Listing {
        commit,
        files,
        licences: licences(answer),
    })
}

/// A name that a hostile server could use to write elsewhere is not taken.
fn stays_inside(name: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    !name.contains(['\\', '\0', ':']) && name.split('/').all(plain)
}

/// The card's `license` (one or a list), else the `license:` tags; lower case.
fn licences(answer: &Value) -> Vec<String> {
    let card = &answer["cardData"]["license"];
    let mut found: Vec<String> = match card {
        Value::String(one) => vec![one.to_lowercase()],
        Value::Array(many) => many
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_lowercase)
            .collect(),
        _ => Vec::new(),
    };
    if found.is_empty() {
        let tags = answer["tags"].as_array().map_or(&[][..], Vec::as_slice);
        let tags = tags.iter().filter_map(Value::as_str);
        found = tags
            .filter_map(|tag| tag.strip_prefix("license:"))
            .map(str::to_lowercase)
            .collect();
    }
    found
}

impl Listing {
    /// What a snapshot in the cache holds.
    pub(super) fn of_snapshot(commit: &str, files: Vec<Remote>) -> Self {
        Self {
            commit: commit.to_owned(),
            files,
            licences: Vec::new(),
        }
    }

    /// The licences the card states.
    pub(super) fn licence(&self) -> Option<String> {
        (!self.licences.is_empty()).then(|| self.licences.join(", "))
    }

    /// Refuses licences that are not on the user's list. All stated ones must be.
    pub(super) fn allow(&self, repository: &Repository) -> Result<(), FetchError> {
        let allowed = &repository.licenses;
        let fine =
            !self.licences.is_empty() && self.licences.iter().all(|one| allowed.contains(one));
        if allowed.is_empty() || fine {
            return Ok(());
        }
        Err(FetchError::Licence {
            what: format!("`{}`", repository.id),
            found: self.licence().unwrap_or_else(|| "none stated".to_owned()),
            allowed: allowed.join("`, `"),
        })
    }
}
