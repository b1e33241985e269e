//! The user's own file, `tunesmith/config.yaml` below `XDG_CONFIG_HOME` or `~/.config`: `store:` and
//! `remote:` as in a pipeline, for whatever pipeline says nothing itself.
//!
//! Promises: a file that is not there says nothing; every fault with its place.

use std::path::{Path, PathBuf};

use super::fault::Faults;
use super::secret::Secrets;
use super::{RemoteSpec, StoreSpec, parse, remote, section, store};

/// What the file says.
#[derive(Clone, Debug, Default)]
pub struct User {
    /// `store:`
    pub store: StoreSpec,
    /// `remote:`
    pub remote: RemoteSpec,
}

impl User {
    /// Reads it.
    pub fn read(env: &dyn Fn(&str) -> Option<String>) -> Result<Self, Faults> {
        let filled = |name: &str| env(name).filter(|value| !value.is_empty());
        let folder = filled("XDG_CONFIG_HOME").map(PathBuf::from);
        let folder = folder.or_else(|| Some(PathBuf::from(filled("HOME")?).join(".config")));
        let Some(file) = folder.map(|folder| folder.join("tunesmith/config.yaml")) else {
            return Ok(Self::default());
        };
        let Ok(text) = std::fs::read_to_string(&file) else {
            return Ok(Self::default());
        };
        let (tree, mut faults) = parse::parse(&text);
        let mut secrets = Secrets::default();
        let mut found = Self::default();
        if let Some(tree) = &tree
            && !tree.is_null()
        {
            let entries = section::map(tree, "the file", &mut faults);
            section::only(entries, &["store", "remote"], "the file", &mut faults);
            let home = filled("HOME");
            let home = home.as_deref();
            let folder = file.parent().unwrap_or(Path::new("."));
            let entry = |name| section::get(entries, name);
            found.store = store::store(entry("store"), folder, home, &mut faults);
            found.remote = remote::remote(entry("remote"), folder, home, &mut secrets, &mut faults);
        }
        if faults.is_empty() {
            return Ok(found);
        }
        let mut faults = Faults::new(&file, &text, faults);
        secrets.blank(&mut faults);
        Err(faults)
    }
}
