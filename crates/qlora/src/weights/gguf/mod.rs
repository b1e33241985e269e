//! GGUF (versions 2 and 3): header into values, tensors lazily into f32.
//!
//! Promises that every tensor lies whole inside the file once it is open. Names here are llama.cpp's;
//! [`names`] knows how they relate to Hugging Face's.

mod cursor;
pub(crate) mod names;
mod tensors;
mod value;

use std::collections::BTreeMap;
use std::path::Path;

use super::mapped::Mapped;
use crate::error::{Error, Result};
use cursor::Cursor;
pub(crate) use tensors::TensorInfo;
pub(crate) use value::Value;

/// An opened GGUF file.
#[derive(Debug)]
pub(crate) struct Gguf {
    file: Mapped,
    metadata: BTreeMap<String, Value>,
    tensors: BTreeMap<String, TensorInfo>,
}

impl Gguf {
    /// Reads the header and checks that all tensors are there.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = Mapped::open(path)?;
        let mut cursor = Cursor::new(path, &file);
        let (tensor_count, pair_count) = read_preamble(&mut cursor)?;
        let mut metadata = BTreeMap::new();
        for _ in 0..pair_count {
            let key = cursor.text()?;
            let value = Value::read(&mut cursor)?;
            metadata.insert(key, value);
        }
        let mut infos = Vec::new();
        for _ in 0..tensor_count {
            infos.push((cursor.text()?, TensorInfo::read(&mut cursor)?));
        }
        let alignment = match metadata.get("general.alignment") {
            None => 32,
            Some(value) => value
                .as_usize()
                .filter(|alignment| alignment.is_power_of_two() && *alignment >= 8)
                .ok_or_else(|| {
                    cursor.broken(format!("`general.alignment` is {}", value.short()))
                })?,
        };
        let start = cursor.position().next_multiple_of(alignment) as u64;
        let tensors = tensors::place(path, infos, start, alignment as u64, file.len() as u64)?;
        Ok(Self {
            file,
            metadata,
            tensors,
        })
    }

    /// Where the file is.
    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// All metadata, by key.
    pub(crate) fn metadata(&self) -> &BTreeMap<String, Value> {
        &self.metadata
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key)
    }

    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_text)
    }

    /// A token id under `key`.
    pub(crate) fn id(&self, key: &str) -> Option<u32> {
        self.get(key)
            .and_then(Value::as_usize)
            .and_then(|id| u32::try_from(id).ok())
    }

    /// Shape and type of a tensor by its GGUF name.
    pub(crate) fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name)
    }

    /// GGUF names of all tensors, sorted.
    pub(crate) fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// All values of a tensor in f32, in the file's own row order.
    pub(crate) fn dequantize(&self, name: &str) -> Result<(&TensorInfo, Vec<f32>)> {
        let info = self.tensors.get(name).ok_or_else(|| Error::MissingTensor {
            path: self.path().to_path_buf(),
            name: name.to_string(),
        })?;
        let bytes = &self.file[info.range()];
        Ok((
            info,
            info.kind.dequantize(self.path(), bytes, info.values())?,
        ))
    }
}

/// Magic and version, then how many tensors and metadata pairs follow.
fn read_preamble(cursor: &mut Cursor) -> Result<(u64, u64)> {
    let fetch_again = "fetch the model again, or check that the path names a .gguf file";
    if cursor.bytes(4)? != b"GGUF" {
        return Err(Error::format(
            cursor.path(),
            "it does not start with the GGUF magic",
            fetch_again,
        ));
    }
    let version = cursor.u32()?;
    if version != 2 && version != 3 {
        return Err(Error::format(
            cursor.path(),
            format!("GGUF version {version} is not 2 or 3"),
            fetch_again,
        ));
    }
    Ok((cursor.u64()?, cursor.u64()?))
}
