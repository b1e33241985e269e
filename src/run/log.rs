//! A stage's log: what it wrote, and a heading that says what was run.
//!
//! Promises: secrets are masked before a byte is written; a log that cannot be written does
//! not stop a stage.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::mask::Mask;

/// An open log.
pub(crate) struct Log {
    file: Option<File>,
    mask: Mask,
}

/// Where the log of `stage` lies below `.tunesmith`.
pub fn log_path(home: &Path, profile: &str, stage: &str) -> PathBuf {
    home.join("logs").join(profile).join(format!("{stage}.log"))
}

impl Log {
    /// Begins a log anew, or goes on with it (a further try).
    pub(crate) fn open(path: &Path, mask: Mask, anew: bool) -> Self {
        if let Some(folder) = path.parent() {
            let _shown_by_open = std::fs::create_dir_all(folder);
        }
        let file = File::options()
            .create(true)
            .write(true)
            .append(!anew)
            .truncate(anew)
            .open(path)
            .ok();
        Self { file, mask }
    }

    /// A heading line.
    pub(crate) fn heading(&mut self, text: &str) {
        for line in text.lines() {
            self.line(&format!("# {line}"));
        }
    }

    /// A line of the stage, returned as it may be shown.
    pub(crate) fn line(&mut self, text: &str) -> String {
        let shown = self.mask.text(text);
        if let Some(file) = &mut self.file {
            // A full disk costs the log, not the stage.
            let _lost = file.write_all(format!("{shown}\n").as_bytes());
        }
        shown
    }

    /// The mask of the stage's secrets.
    pub(crate) fn mask(&self) -> &Mask {
        &self.mask
    }
}
