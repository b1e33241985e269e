//! What this machine has already sent, so that an interrupted upload goes on.
//!
//! The service does not tell which files of a fine-tune it holds, and refuses to replace
//! one. The journal is a hint of our own: when it is lost, the service is asked in another
//! way (see `deploy`).

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::contract::Context;
use crate::sha256;

use super::UploadError;

/// The journal of one adapter in one account.
pub(super) struct Journal {
    path: PathBuf,
    page: Page,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Page {
    /// The service's id of the fine-tune.
    id: String,
    /// Files the service has taken.
    sent: BTreeSet<String>,
}

impl Journal {
    /// Opens the journal of `name`; an unreadable one counts as empty.
    pub(super) fn open(ctx: &Context<'_>, api: &str, account: &str, name: &str) -> Self {
        let place = sha256::of(format!("{api} {account}").as_bytes());
        let path = ctx
            .keep
            .join("uploads")
            .join(&place[..12])
            .join(format!("{name}.json"));
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        Self {
            path,
            page: serde_json::from_str(&text).unwrap_or_default(),
        }
    }

    /// Whether it speaks of this very fine-tune.
    pub(super) fn knows(&self, id: &str) -> bool {
        self.page.id == id
    }

    /// Whether `file` of fine-tune `id` was taken.
    pub(super) fn has(&self, id: &str, file: &str) -> bool {
        self.knows(id) && self.page.sent.contains(file)
    }

    /// Notes a fine-tune, and a file of it that was taken.
    pub(super) fn note(&mut self, id: &str, file: Option<&str>) -> Result<(), UploadError> {
        if !self.knows(id) {
            self.page = Page {
                id: id.to_owned(),
                sent: BTreeSet::new(),
            };
        }
        self.page.sent.extend(file.map(str::to_owned));
        let fail = |error| UploadError::file(&self.path, error);
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder).map_err(fail)?;
        }
        let aside = self.path.with_extension("tmp");
        let text = serde_json::to_string(&self.page).expect("plain data");
        std::fs::write(&aside, text).map_err(fail)?;
        std::fs::rename(&aside, &self.path).map_err(fail)
    }
}
