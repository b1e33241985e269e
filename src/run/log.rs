//! A stage's log: what it wrote, and a heading that says what was run.
//!
//! Promises: secrets are masked before a byte is written; a log that cannot be written does
//! not stop a stage. A copy goes with the result, so that a restored stage has its log, too.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use cache::{Record, Store};

use super::mask::Mask;

/// Logs up to so many bytes stand in the record itself.
const SHORT: u64 = 16 << 10;

/// The most bytes of a log that are kept with a result: its end.
const KEPT: u64 = 16 << 20;

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
        let mut options = File::options();
        options
            .create(true)
            .write(true)
            .append(!anew)
            .truncate(anew);
        let file = options.open(path).or_else(|_| {
            // The first log of all.
            std::fs::create_dir_all(path.parent().unwrap_or(path))?;
            options.open(path)
        });
        Self {
            file: file.ok(),
            mask,
        }
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

/// The log as it goes with the result; nothing if it cannot be read.
pub(crate) fn keep(path: &Path, store: &Store) -> Option<cache::Log> {
    let mut file = File::open(path).ok()?;
    let size = file.metadata().ok()?.len();
    if size > SHORT && size <= KEPT {
        return store.put(path).ok().map(cache::Log::Stored);
    }
    let mut bytes = Vec::new();
    if size <= SHORT {
        file.take(SHORT).read_to_end(&mut bytes).ok()?;
        return Some(cache::Log::Text(
            String::from_utf8_lossy(&bytes).into_owned(),
        ));
    }
    file.seek(SeekFrom::Start(size - KEPT)).ok()?;
    let scratch = store.scratch().ok()?;
    let end = scratch.path().join("log");
    let mut short = File::create(&end).ok()?;
    let cut = format!("# the first {} bytes were left out\n", size - KEPT);
    short.write_all(cut.as_bytes()).ok()?;
    std::io::copy(&mut file.take(KEPT), &mut short).ok()?;
    store.adopt(&end).ok().map(cache::Log::Stored)
}

/// The log that was kept with a result; nothing if there is none, or if it is not here.
pub fn kept_log(record: &Record, store: &Store) -> Option<Vec<u8>> {
    match record.made.log.as_ref()? {
        cache::Log::Text(text) => Some(text.clone().into_bytes()),
        cache::Log::Stored(tree) => {
            let (_, _, digest, _) = tree.files().next()?;
            std::fs::read(store.blob_path(&digest)).ok()
        }
    }
}

/// Puts the log of a restored result where the stage's own would lie.
pub(crate) fn bring_back(path: &Path, record: &Record, store: &Store) {
    let Some(kept) = kept_log(record, store) else {
        // What lies there tells of another result.
        let _absent = std::fs::remove_file(path);
        return;
    };
    let mut log = Log::open(path, Mask::default(), true);
    let made = &record.made;
    log.heading(&format!(
        "restored; made {} on {} by {} in {} ms",
        made.started, made.host, made.program, made.millis
    ));
    if let Some(file) = &mut log.file {
        // A full disk costs the log, not the stage.
        let _lost = file.write_all(&kept);
    }
}
