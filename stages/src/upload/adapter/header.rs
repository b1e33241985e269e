//! The header of a safetensors file, and whether the file holds what it announces.
//!
//! Format: eight bytes of little-endian length, JSON of that length, tensor bytes
//! (huggingface/safetensors, README).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

use crate::contract::Fault;

use super::{WEIGHTS, fault};

/// The format's own limit of a header, in bytes.
const MOST_HEADER: u64 = 100_000_000;

/// One tensor.
pub(super) struct Tensor {
    pub(super) dtype: String,
    pub(super) shape: Vec<u64>,
}

/// The tensors by name.
pub(super) struct Header {
    pub(super) tensors: BTreeMap<String, Tensor>,
}

impl Header {
    /// The types that occur, joined.
    pub(super) fn dtypes(&self) -> String {
        let mut found: Vec<&str> = self
            .tensors
            .values()
            .map(|one| one.dtype.as_str())
            .collect();
        found.sort_unstable();
        found.dedup();
        found.join("+")
    }
}

/// Reads the header; `None` with a fault when the file is not whole.
pub(super) fn read(path: &Path, faults: &mut Vec<Fault>) -> Option<Header> {
    match parse(path) {
        Ok(header) => Some(header),
        Err(cause) => {
            faults.push(fault(
                "bad-weights",
                format!("`{}`: {cause}", path.display()),
                format!("export the adapter again: `{WEIGHTS}` is damaged"),
            ));
            None
        }
    }
}

fn parse(path: &Path) -> Result<Header, String> {
    let mut file = File::open(path).map_err(|error| error.to_string())?;
    let size = file.metadata().map_err(|error| error.to_string())?.len();
    let mut length = [0; 8];
    file.read_exact(&mut length)
        .map_err(|_| format!("{size} bytes are too few for a safetensors file"))?;
    let length = u64::from_le_bytes(length);
    if length > MOST_HEADER || length + 8 > size {
        return Err(format!(
            "the header says it has {length} bytes, the file has {size}"
        ));
    }
    let mut text = Vec::new();
    file.take(length)
        .read_to_end(&mut text)
        .map_err(|error| error.to_string())?;
    let value: Value =
        serde_json::from_slice(&text).map_err(|error| format!("its header: {error}"))?;
    let entries = value.as_object().ok_or("its header is no JSON object")?;
    let (mut tensors, mut end) = (BTreeMap::new(), 0);
    for (name, entry) in entries.iter().filter(|(name, _)| *name != "__metadata__") {
        let tensor =
            tensor(entry).ok_or_else(|| format!("its header's entry `{name}` is malformed"))?;
        end = end.max(entry["data_offsets"][1].as_u64().unwrap_or(u64::MAX));
        tensors.insert(name.clone(), tensor);
    }
    let expected = end.saturating_add(8 + length);
    if expected != size {
        return Err(format!("it should have {expected} bytes and has {size}"));
    }
    Ok(Header { tensors })
}

fn tensor(entry: &Value) -> Option<Tensor> {
    let shape: Option<Vec<u64>> = entry["shape"]
        .as_array()?
        .iter()
        .map(Value::as_u64)
        .collect();
    Some(Tensor {
        dtype: entry["dtype"].as_str()?.to_owned(),
        shape: shape?,
    })
}
