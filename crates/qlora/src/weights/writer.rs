//! Writes a safetensors file a tensor at a time: names, types and shapes first, bytes as they come.
//!
//! Promises: the same tensors give the same bytes, in whatever order their bytes come; the file stands under
//! its name once it is whole; no more than one tensor is in memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::nf4::Entry;

/// A tensor to come.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Declared {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
}

impl Declared {
    fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bitsize() / 8
    }
}

/// Where tensors begin: a multiple of this.
const ALIGNMENT: usize = 256;

/// A file in the making.
pub(crate) struct Writer {
    path: PathBuf,
    aside: PathBuf,
    file: File,
    /// Place and length of what is still to come, by name.
    missing: BTreeMap<String, (u64, usize)>,
    bytes: u64,
}

impl Writer {
    /// Begins a file of these tensors, which lie in it in this order.
    pub(crate) fn create(path: &Path, declared: &[Declared]) -> Result<Self> {
        let mut header = Map::new();
        header.insert("__metadata__".to_owned(), json!({"format": "pt"}));
        let mut spans = Vec::new();
        let mut at = 0;
        for tensor in declared {
            let end = at + tensor.bytes();
            let entry = json!({
                "dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [at, end],
            });
            header.insert(tensor.name.clone(), entry);
            spans.push((tensor.name.clone(), at, end - at));
            at = end;
        }
        let mut text = serde_json::to_vec(&Value::Object(header)).expect("a JSON value is JSON");
        // The format allows spaces behind the header.
        text.resize((8 + text.len()).next_multiple_of(ALIGNMENT) - 8, b' ');
        let start = 8 + text.len();
        let mut aside = path.as_os_str().to_owned();
        aside.push(".part");
        let aside = PathBuf::from(aside);
        let file = File::create(&aside).map_err(Error::io(&aside))?;
        let head = [&(text.len() as u64).to_le_bytes()[..], &text].concat();
        file.write_all_at(&head, 0).map_err(Error::io(&aside))?;
        let missing = spans
            .into_iter()
            .map(|(name, at, bytes)| (name, ((start + at) as u64, bytes)))
            .collect();
        Ok(Self {
            path: path.to_owned(),
            aside,
            file,
            missing,
            bytes: (start + at) as u64,
        })
    }

    /// The bytes of a declared tensor.
    ///
    /// # Panics
    /// For a tensor that was not declared so: a bug of the caller.
    pub(crate) fn put(&mut self, entry: &Entry) -> Result<()> {
        let (at, bytes) = self
            .missing
            .remove(&entry.name)
            .unwrap_or_else(|| panic!("bug: `{}` was not declared", entry.name));
        assert_eq!(bytes, entry.bytes.len(), "bytes of `{}`", entry.name);
        self.file
            .write_all_at(&entry.bytes, at)
            .map_err(Error::io(&self.aside))
    }

    /// The file gets its name; gives its length.
    ///
    /// # Panics
    /// If a declared tensor never came.
    pub(crate) fn finish(self) -> Result<u64> {
        assert!(
            self.missing.is_empty(),
            "bug: {:?} never came",
            self.missing
        );
        std::fs::rename(&self.aside, &self.path).map_err(Error::io(&self.path))?;
        Ok(self.bytes)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Renamed, or of no use.
        let _absent = std::fs::remove_file(&self.aside);
    }
}
