//! Where in a path the model is: a GGUF file, a folder of safetensors, a Hugging Face cache entry.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// What a path turned out to be.
pub(super) enum Found {
    Gguf(PathBuf),
    Folder(PathBuf),
}

const MEND: &str = "name a .gguf file, or a folder with config.json and *.safetensors";

pub(super) fn find(path: &Path) -> Result<Found> {
    let kind = std::fs::metadata(path).map_err(Error::io(path))?;
    if kind.is_file() {
        return match path.extension().and_then(|ext| ext.to_str()) {
            Some("safetensors") => match path
                .parent()
                .filter(|folder| folder.join("config.json").is_file())
            {
                Some(folder) => Ok(Found::Folder(folder.to_path_buf())),
                None => Err(Error::format(
                    path,
                    "there is no config.json beside it",
                    MEND,
                )),
            },
            Some("bin" | "pt" | "pth" | "pkl" | "ckpt") => Err(pickle(path)),
            // A blob of a content store has no extension: its first bytes are asked.
            _ => Ok(Found::Gguf(path.to_path_buf())),
        };
    }
    if path.join("config.json").is_file() {
        return with_weights(path);
    }
    if let Some(snapshot) = snapshot(path)? {
        return with_weights(&snapshot);
    }
    one_gguf(path)
}

/// How weights are stored, also in ways that are not opened.
const WEIGHTS: [&str; 7] = ["safetensors", "gguf", "bin", "pt", "pth", "pkl", "ckpt"];

/// Whether a folder has a config and no weights.
pub(super) fn is_bare(folder: &Path) -> Result<bool> {
    if !folder.join("config.json").is_file() {
        return Ok(false);
    }
    let weights = |path: &PathBuf| {
        let found = path.extension().and_then(|ext| ext.to_str());
        found.is_some_and(|ext| WEIGHTS.contains(&ext))
    };
    Ok(!entries(folder)?.iter().any(weights))
}

/// A folder with a config must have safetensors too.
fn with_weights(folder: &Path) -> Result<Found> {
    let names = entries(folder)?;
    let has = |ext: &str| {
        names
            .iter()
            .find(|path| path.extension().is_some_and(|found| found == ext))
    };
    if has("safetensors").is_some() {
        return Ok(Found::Folder(folder.to_path_buf()));
    }
    if has("gguf").is_some() {
        return one_gguf(folder);
    }
    match has("bin") {
        Some(file) => Err(pickle(file)),
        None => Err(Error::format(
            folder,
            "there are no weights beside config.json",
            MEND,
        )),
    }
}

fn pickle(path: &Path) -> Error {
    Error::format(
        path,
        "pickle files can run code when read and are not opened",
        "use the safetensors files of the model",
    )
}

/// `models--org--name/snapshots/<revision>`: the one that `refs/main` names, or the only one.
fn snapshot(path: &Path) -> Result<Option<PathBuf>> {
    let snapshots = path.join("snapshots");
    if !snapshots.is_dir() {
        return Ok(None);
    }
    if let Ok(revision) = std::fs::read_to_string(path.join("refs/main")) {
        let snapshot = snapshots.join(revision.trim());
        if snapshot.is_dir() {
            return Ok(Some(snapshot));
        }
    }
    match entries(&snapshots)?.as_slice() {
        [one] => Ok(Some(one.clone())),
        many => Err(Error::format(
            &snapshots,
            format!("{} snapshots and no refs/main that names one", many.len()),
            "name the snapshot's own folder",
        )),
    }
}

fn one_gguf(folder: &Path) -> Result<Found> {
    let mut files = entries(folder)?;
    files.retain(|path| path.extension().is_some_and(|ext| ext == "gguf"));
    match files.as_slice() {
        [one] => Ok(Found::Gguf(one.clone())),
        [] => Err(Error::format(
            folder,
            "there is no model in this folder",
            MEND,
        )),
        many => Err(Error::format(
            folder,
            format!("there are {} .gguf files", many.len()),
            "name one of them",
        )),
    }
}

/// The folder's entries, sorted, so that what is found does not depend on the file system.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        paths.push(entry.map_err(Error::io(folder))?.path());
    }
    paths.sort();
    Ok(paths)
}
