//! Which results are at the remote already, as far as this checkout knows.
//!
//! `.tunesmith/pushed/REMOTE`, a line a result, appended. It saves a request a result in runs that
//! do nothing; a line is written when the remote has the record, so a killed push is taken up by the
//! next run. Losing the file costs those requests.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use cache::Record;

/// See the module.
pub(super) struct Pushed {
    file: PathBuf,
    lines: BTreeSet<String>,
}

impl Pushed {
    pub(super) fn load(home: &Path, name: &str) -> Self {
        let file = home.join("pushed").join(name);
        let text = fs::read_to_string(&file).unwrap_or_default();
        Self {
            lines: text.lines().map(str::to_owned).collect(),
            file,
        }
    }

    pub(super) fn holds(&self, record: &Record) -> bool {
        self.lines.contains(&line(record))
    }

    pub(super) fn add(&mut self, record: &Record) {
        let line = line(record);
        if !self.lines.insert(line.clone()) {
            return;
        }
        let folder = self.file.parent().expect("it lies in a folder");
        let made = fs::create_dir_all(folder);
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        let open = made.and_then(|()| options.open(&self.file));
        // A torn line is one request more.
        let _no_loss = open.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    }
}

fn line(record: &Record) -> String {
    format!("{} {}", record.key, record.result())
}
