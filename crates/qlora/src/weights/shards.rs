//! Safetensors files, one or many, mapped; tensors found by name.
//!
//! Promises that each file is as long as its header says. It knows bitsandbytes' neighbours of a weight.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use safetensors::tensor::{Metadata, SafeTensorError, TensorInfo};
use serde::Deserialize;

use super::four_bits::FourBits;
use super::mapped::Mapped;
use super::stretch::Stretch;
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::nf4::{Nf4Parts, Nf4Tensor};
use crate::tensor::Matrix;

/// One mapped safetensors file.
#[derive(Debug)]
pub(crate) struct Shard {
    file: Mapped,
    metadata: Metadata,
    /// Where tensor bytes begin.
    start: usize,
}

/// All files of one model and where each tensor is.
#[derive(Debug)]
pub(crate) struct Shards {
    shards: Vec<Shard>,
    index: BTreeMap<String, usize>,
}

const FETCH_AGAIN: &str = "fetch the file again";

impl Shard {
    /// Maps the file and checks its length against its header.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = Mapped::open(path)?;
        match SafeTensors::read_metadata(&file) {
            Ok((header, metadata)) => Ok(Self {
                file,
                metadata,
                start: 8 + header,
            }),
            Err(e) => Err(explain(path, &file, &e)),
        }
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }

    fn get(&self, name: &str) -> Option<(&TensorInfo, &[u8])> {
        let info = self.metadata.info(name)?;
        let (from, to) = info.data_offsets;
        Some((info, &self.file[self.start + from..self.start + to]))
    }

    /// A float tensor as f32; a vector is one row, more dimensions fold into the rows.
    pub(crate) fn matrix(&self, name: &str) -> Result<Option<Matrix>> {
        let Some((info, bytes)) = self.get(name) else {
            return Ok(None);
        };
        let Some(dtype) = float(info.dtype) else {
            let what = format!("tensor `{name}` is {:?}, not a float", info.dtype);
            return Err(Error::format(
                self.file.path(),
                what,
                "use the 16-bit model, or a bitsandbytes nf4 one",
            ));
        };
        let cols = info.shape.last().copied().unwrap_or(1);
        let values = dtype.decode(bytes);
        let rows = values.len().checked_div(cols).unwrap_or(0);
        Ok(Some(Matrix::new(rows, cols, values)))
    }

    /// A tensor in bitsandbytes' NF4 layout, where `name` is one.
    fn nf4(&self, name: &str) -> Result<Option<Nf4Tensor>> {
        if !self.is_nf4(name) {
            return match self
                .names()
                .iter()
                .find(|key| key.starts_with(&format!("{name}.quant_state.")))
            {
                Some(key) => Err(Error::unsupported(
                    "quant_state",
                    key,
                    "use a bitsandbytes nf4 checkpoint",
                )),
                None => Ok(None),
            };
        }
        Nf4Tensor::from_parts(|suffix| self.part(name, suffix))
            .map(Some)
            .map_err(|what| self.broken(name, &what))
    }

    /// The same in place; nothing where its scales are no f32 values.
    fn four_bits(&self, name: &str) -> Result<Option<FourBits>> {
        if !self.is_nf4(name) {
            return Ok(None);
        }
        let parts = Nf4Parts::read(|suffix| self.part(name, suffix))
            .map_err(|what| self.broken(name, &what))?;
        Ok(FourBits::new(parts, |part| self.file.stretch(part)))
    }

    fn is_nf4(&self, name: &str) -> bool {
        self.metadata
            .info(&format!("{name}{}", crate::nf4::STATE))
            .is_some()
    }

    fn part(&self, name: &str, suffix: &str) -> Option<(safetensors::Dtype, &[u8])> {
        self.get(&format!("{name}{suffix}"))
            .map(|(info, bytes)| (info.dtype, bytes))
    }

    fn broken(&self, name: &str, what: &str) -> Error {
        let what = format!("nf4 tensor `{name}`: {what}");
        Error::format(self.file.path(), what, FETCH_AGAIN)
    }

    /// A float tensor where it lies: type, shape, bytes.
    fn floats(&self, name: &str) -> Option<(Dtype, Vec<usize>, Stretch)> {
        let (info, bytes) = self.get(name)?;
        let stretch = self.file.stretch(bytes);
        Some((float(info.dtype)?, info.shape.clone(), stretch))
    }
}

fn float(dtype: safetensors::Dtype) -> Option<Dtype> {
    match dtype {
        safetensors::Dtype::F32 => Some(Dtype::F32),
        safetensors::Dtype::F16 => Some(Dtype::F16),
        safetensors::Dtype::BF16 => Some(Dtype::Bf16),
        _ => None,
    }
}

/// Finds out what is wrong with a file that safetensors refuses.
fn explain(path: &Path, bytes: &[u8], cause: &SafeTensorError) -> Error {
    let truncated = |expected: u64| Error::Truncated {
        path: path.to_path_buf(),
        expected,
        actual: bytes.len() as u64,
    };
    let Some(head) = bytes.first_chunk::<8>() else {
        return truncated(8);
    };
    let header = u64::from_le_bytes(*head);
    if matches!(cause, SafeTensorError::InvalidHeaderLength) {
        return truncated(header.saturating_add(8));
    }
    let text = bytes
        .get(8..)
        .and_then(|rest| rest.get(..usize::try_from(header).ok()?));
    if let Some(metadata) = text.and_then(|text| serde_json::from_slice::<Metadata>(text).ok()) {
        let expected = 8 + header + metadata.data_len() as u64;
        if expected > bytes.len() as u64 {
            return truncated(expected);
        }
    }
    let what = if bytes.starts_with(b"version https://git-lfs") {
        "it is a git-lfs pointer, not the file itself".to_string()
    } else {
        format!("it is not a safetensors file: {cause}")
    };
    Error::format(path, what, FETCH_AGAIN)
}

/// `model.safetensors.index.json`.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Shards {
    /// Opens the safetensors of a model folder: the index's shards, or every file there is.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let index = folder.join("model.safetensors.index.json");
        let paths = if index.is_file() {
            indexed(folder, &index)?
        } else {
            listed(folder)?
        };
        Self::of(&paths)
    }

    /// Opens these files as one.
    pub(crate) fn of(paths: &[PathBuf]) -> Result<Self> {
        let shards = paths
            .iter()
            .map(|path| Shard::open(path))
            .collect::<Result<Vec<_>>>()?;
        let mut index = BTreeMap::new();
        for (at, shard) in shards.iter().enumerate() {
            for name in shard.names() {
                if let Some(other) = index.insert(name.clone(), at) {
                    let what = format!(
                        "tensor `{name}` is also in `{}`",
                        shards[other].file.path().display()
                    );
                    let mend = "keep one set of weights in the folder";
                    return Err(Error::format(shard.file.path(), what, mend));
                }
            }
        }
        Ok(Self { shards, index })
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.index.keys().map(String::as_str)
    }

    /// The file that has the tensor, and the tensor's name there. The text part of a model that also
    /// sees (Gemma 3) stands under a name of its own, which transformers 4 and 5 spell differently.
    fn find(&self, name: &str) -> Option<(&Shard, String)> {
        let inner = name.strip_prefix("model.").unwrap_or(name);
        let names = [
            name.to_owned(),
            format!("language_model.{name}"),
            format!("model.language_model.{inner}"),
        ];
        names
            .into_iter()
            .find_map(|name| Some((&self.shards[*self.index.get(&name)?], name)))
    }

    pub(crate) fn matrix(&self, name: &str) -> Result<Option<Matrix>> {
        self.find(name)
            .map_or(Ok(None), |(shard, name)| shard.matrix(&name))
    }

    pub(crate) fn nf4(&self, name: &str) -> Result<Option<Nf4Tensor>> {
        self.find(name)
            .map_or(Ok(None), |(shard, name)| shard.nf4(&name))
    }

    /// A four-bit weight whose large tensors stay in the file.
    pub(crate) fn four_bits(&self, name: &str) -> Result<Option<FourBits>> {
        self.find(name)
            .map_or(Ok(None), |(shard, name)| shard.four_bits(&name))
    }

    /// Whether the weight is held in bitsandbytes' NF4 layout.
    pub(crate) fn is_nf4(&self, name: &str) -> bool {
        self.find(name)
            .is_some_and(|(shard, name)| shard.is_nf4(&name))
    }

    /// A float tensor where it lies.
    pub(crate) fn floats(&self, name: &str) -> Option<(Dtype, Vec<usize>, Stretch)> {
        let (shard, name) = self.find(name)?;
        shard.floats(&name)
    }
}

fn indexed(folder: &Path, index: &Path) -> Result<Vec<PathBuf>> {
    let text = std::fs::read(index).map_err(Error::io(index))?;
    let parsed: Index = serde_json::from_slice(&text)
        .map_err(|e| Error::format(index, e.to_string(), FETCH_AGAIN))?;
    let mut files: Vec<&String> = parsed.weight_map.values().collect();
    files.sort();
    files.dedup();
    files
        .into_iter()
        .map(|file| {
            // A shard is a neighbour of its index: a path out of the folder is not followed.
            let plain = Path::new(file)
                .file_name()
                .is_some_and(|name| name == file.as_str());
            let path = folder.join(file);
            if plain && path.is_file() {
                Ok(path)
            } else {
                Err(Error::format(
                    index,
                    format!("shard `{file}` is not in the folder"),
                    "fetch the missing file",
                ))
            }
        })
        .collect()
}

fn listed(folder: &Path) -> Result<Vec<PathBuf>> {
    let one = folder.join("model.safetensors");
    if one.is_file() {
        return Ok(vec![one]);
    }
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        if path.extension().is_some_and(|ext| ext == "safetensors") && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}
