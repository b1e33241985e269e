//! Rows of a dataset file, one by one: JSON lines, or one JSON array of any size.
//!
//! Promises: memory stays at one row; a broken line or file names its place. Must not
//! know: what a row holds.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde::de::{DeserializeSeed, Error, SeqAccess, Visitor};
use serde_json::Value;

use crate::contract::StageError;

/// Gives every row of a file or folder to `take`, with its number from 1, until it says
/// stop. A line that is no JSON is given as `Err`.
pub(super) fn rows(
    path: &Path,
    take: &mut dyn FnMut(usize, Result<Value, String>) -> ControlFlow<()>,
) -> Result<(), StageError> {
    for file in files(path)? {
        let opened = File::open(&file).map_err(|error| StageError::io(&file, &error))?;
        let mut reader = BufReader::with_capacity(1 << 20, opened);
        let flow = if first_sign(&mut reader, &file)? == Some(b'[') {
            array(reader, &file, take)?
        } else {
            lines(reader, &file, take)?
        };
        if flow.is_break() {
            break;
        }
    }
    Ok(())
}

/// The `.json` and `.jsonl` files below a folder, or the file itself.
fn files(path: &Path) -> Result<Vec<PathBuf>, StageError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in walkdir::WalkDir::new(path)
        .follow_links(true)
        .sort_by_file_name()
    {
        let entry = entry.map_err(|error| StageError::io(path, &error.into()))?;
        let data = entry
            .path()
            .extension()
            .is_some_and(|e| e == "json" || e == "jsonl");
        if entry.file_type().is_file() && data {
            files.push(entry.into_path());
        }
    }
    if files.is_empty() {
        return Err(StageError::new(
            "convert::no-rows",
            format!("`{}` holds no `.json` or `.jsonl` file", path.display()),
            "give the dataset's row file, or narrow what `fetch` takes with `files:`",
        )
        .at("inputs.rows"));
    }
    Ok(files)
}

fn first_sign(reader: &mut impl BufRead, path: &Path) -> Result<Option<u8>, StageError> {
    loop {
        let buffer = reader
            .fill_buf()
            .map_err(|error| StageError::io(path, &error))?;
        if buffer.is_empty() {
            return Ok(None);
        }
        if let Some(sign) = buffer.iter().find(|byte| !byte.is_ascii_whitespace()) {
            return Ok(Some(*sign));
        }
        let read = buffer.len();
        reader.consume(read);
    }
}

fn lines(
    reader: impl BufRead,
    path: &Path,
    take: &mut dyn FnMut(usize, Result<Value, String>) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, StageError> {
    for (at, line) in reader.lines().enumerate() {
        let line = line.map_err(|error| StageError::io(path, &error))?;
        if line.trim().is_empty() {
            continue;
        }
        let row = serde_json::from_str(&line).map_err(|error| error.to_string());
        if take(at + 1, row).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

const STOPPED: &str = "enough rows";

fn array(
    reader: impl BufRead,
    path: &Path,
    take: &mut dyn FnMut(usize, Result<Value, String>) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, StageError> {
    let mut json = serde_json::Deserializer::from_reader(reader);
    match (Rows { take }).deserialize(&mut json) {
        Ok(()) => Ok(ControlFlow::Continue(())),
        Err(error) if error.to_string().starts_with(STOPPED) => Ok(ControlFlow::Break(())),
        Err(error) => Err(StageError::new(
            "convert::broken-file",
            format!("`{}` is no whole JSON array: {error}", path.display()),
            "fetch the file again; a cut download ends early",
        )
        .at("inputs.rows")),
    }
}

struct Rows<'a> {
    take: &'a mut dyn FnMut(usize, Result<Value, String>) -> ControlFlow<()>,
}

impl<'de> DeserializeSeed<'de> for Rows<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Rows<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array of rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<(), A::Error> {
        let mut number = 0;
        while let Some(row) = rows.next_element::<Value>()? {
            number += 1;
            if (self.take)(number, Ok(row)).is_break() {
                return Err(A::Error::custom(STOPPED));
            }
        }
        Ok(())
    }
}
