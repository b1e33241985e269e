//! A local file or folder, copied as it is and checked when a sha256 is given.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};
use walkdir::WalkDir;

use crate::contract::{Context, Outcome};
use crate::sha256;

use super::FetchError;
use super::progress::Progress;

pub(super) fn fetch(
    ctx: &Context<'_>,
    path: &Path,
    sha256: Option<&str>,
    data: &Path,
) -> Result<Outcome, FetchError> {
    // Inputs may be views made of links; what they mean is what they point at.
    let real = path
        .canonicalize()
        .map_err(|error| FetchError::file(path, error))?;
    let mut files = Vec::new();
    let mut total = 0;
    for entry in WalkDir::new(&real).follow_links(true).sort_by_file_name() {
        let entry = entry.map_err(|error| FetchError::file(&real, error.into()))?;
        if entry.file_type().is_file() {
            total += entry.metadata().map_or(0, |found| found.len());
            files.push(entry.into_path());
        }
    }
    let mut progress = Progress::new(ctx, "copying", Some(total));
    for file in &files {
        let below = file.strip_prefix(&real).unwrap_or(file);
        let name = if below.as_os_str().is_empty() {
            Path::new(path.file_name().unwrap_or(path.as_os_str()))
        } else {
            below
        };
        let found = copy(file, &data.join(name), &mut progress)?;
        if let Some(expected) = sha256.filter(|expected| *expected != found) {
            return Err(FetchError::Checksum {
                what: format!("`{}`", file.display()),
                expected: expected.to_owned(),
                found,
            });
        }
    }
    if files.is_empty() {
        return Err(FetchError::NotFound {
            what: "a file".to_owned(),
            place: path.display().to_string(),
            mend: "the folder is empty: name one that holds files".to_owned(),
        });
    }
    Ok(super::web::outcome(files.len(), total, Vec::new(), None))
}

/// Copies a file and gives its sha256.
pub(super) fn copy(
    from: &Path,
    to: &Path,
    progress: &mut Progress<'_>,
) -> Result<String, FetchError> {
    if let Some(folder) = to.parent() {
        std::fs::create_dir_all(folder).map_err(|error| FetchError::file(folder, error))?;
    }
    let mut reader = File::open(from).map_err(|error| FetchError::file(from, error))?;
    let mut writer = File::create(to).map_err(|error| FetchError::file(to, error))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        let read = reader
            .read(&mut buffer)
            .map_err(|error| FetchError::file(from, error))?;
        if read == 0 {
            return Ok(sha256::hex(&hasher.finalize()));
        }
        hasher.update(&buffer[..read]);
        writer
            .write_all(&buffer[..read])
            .map_err(|error| FetchError::file(to, error))?;
        progress.add(read as u64)?;
    }
}
