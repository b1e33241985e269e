//! Writes safetensors files: aside first, then renamed, and always the same bytes for the same tensors.

use std::path::Path;

use safetensors::tensor::TensorView;

use crate::error::{Error, Result};
use crate::nf4::Entry;

/// Writes `entries` with the metadata `{"format": "pt"}` that torch's loaders ask for.
pub fn write_safetensors(path: &Path, entries: &[Entry]) -> Result<()> {
    let refused = |e: &dyn std::fmt::Display| {
        Error::format(path, format!("cannot be written: {e}"), "report this")
    };
    let views = entries
        .iter()
        .map(|entry| {
            TensorView::new(entry.dtype, entry.shape.clone(), &entry.bytes)
                .map(|view| (&entry.name, view))
        })
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| refused(&e))?;
    let metadata = std::iter::once(("format".to_string(), "pt".to_string())).collect();
    // safetensors sorts by alignment and name, so the order of `entries` does not matter.
    let bytes = safetensors::serialize(views, Some(metadata)).map_err(|e| refused(&e))?;
    write_whole(path, &bytes)
}

/// Writes a file so that it is there whole or not at all.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".part");
    let aside = Path::new(&aside);
    std::fs::write(aside, bytes).map_err(Error::io(aside))?;
    std::fs::rename(aside, path).map_err(Error::io(path))
}
