//! Base models as files: one door to safetensors folders, bitsandbytes checkpoints and GGUF.
//!
//! Promises f32 values under Hugging Face names and in Hugging Face's layout, whatever the file holds;
//! opening reads headers only. It must not know what the tensors are for.

mod four_bits;
pub(crate) mod gguf;
mod mapped;
mod place;
pub(crate) mod shards;
mod side_files;
mod stretch;
mod write;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use crate::chat::{ChatTemplate, TemplateSource};
use crate::config::{self, ModelConfig};
use crate::dtype::Dtype;
use crate::error::{Error, Result};
use crate::nf4::Nf4Tensor;
use crate::tensor::Matrix;
use crate::tokenizer::Tokenizer;
pub(crate) use four_bits::{FourBitScales, FourBits};
use gguf::Gguf;
use shards::Shards;
pub(crate) use stretch::Stretch;
pub use write::write_safetensors;
pub(crate) use write::write_whole;
pub(crate) use writer::{Declared, Writer};

/// An opened base model.
#[derive(Debug)]
pub struct ModelFiles {
    path: PathBuf,
    source: Source,
    /// Linear layers made of this model's before.
    layers: Option<Shards>,
}

#[derive(Debug)]
enum Source {
    Gguf {
        gguf: Box<Gguf>,
        config: ModelConfig,
    },
    Safetensors {
        shards: Shards,
        config: ModelConfig,
    },
}

/// The weight of a linear layer as stored, `[out, in]`.
#[derive(Clone, Debug)]
pub enum LinearWeight {
    /// Full precision, in f32.
    Dense(Matrix),
    /// Four bits, as bitsandbytes keeps it.
    Nf4(Nf4Tensor),
}

impl LinearWeight {
    /// The values in f32.
    pub fn into_dense(self) -> Matrix {
        match self {
            Self::Dense(matrix) => matrix,
            Self::Nf4(tensor) => tensor.dequantize(),
        }
    }
}

impl ModelFiles {
    /// Opens a `.gguf` file, a folder with `config.json` and safetensors (or with one `.gguf`), or a
    /// folder of the Hugging Face cache (`models--org--name`). Headers are read, tensors are not.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let (path, source) = match place::find(path.as_ref())? {
            place::Found::Gguf(file) => {
                let gguf = Gguf::open(&file)?;
                let config = config::from_gguf(&gguf)?;
                (
                    file,
                    Source::Gguf {
                        gguf: Box::new(gguf),
                        config,
                    },
                )
            }
            place::Found::Folder(folder) => {
                let config = read_config(&folder)?;
                let shards = Shards::open(&folder)?;
                (folder, Source::Safetensors { shards, config })
            }
        };
        Ok(Self {
            path,
            source,
            layers: None,
        })
    }

    /// The shape of the model in `folder`, if `config.json` is there and no weights are; nothing where there are
    /// some, or is no config.
    ///
    /// # Errors
    /// [`Error::Format`] and [`Error::Unsupported`] for a config that says no shape that is known; [`Error::Io`].
    pub fn bare(folder: impl AsRef<Path>) -> Result<Option<ModelConfig>> {
        let folder = folder.as_ref();
        if !place::is_bare(folder)? {
            return Ok(None);
        }
        read_config(folder).map(Some)
    }

    /// Takes four-bit layers from `file`, which [`quantize_layers`](crate::quantize_layers) made of this
    /// model: those that it has are not read and quantized again. The values are the same.
    ///
    /// # Errors
    /// [`Error::Format`] and [`Error::Truncated`] for a file that is no such one; [`Error::Io`].
    pub fn with_layers(mut self, file: &Path) -> Result<Self> {
        self.layers = Some(Shards::of(&[file.to_path_buf()])?);
        Ok(self)
    }

    /// The file or folder that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The shape of the decoder.
    pub fn config(&self) -> Result<ModelConfig> {
        match &self.source {
            Source::Gguf { config, .. } | Source::Safetensors { config, .. } => Ok(config.clone()),
        }
    }

    /// Hugging Face names of all weights, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = match &self.source {
            Source::Gguf { gguf, .. } => {
                gguf.tensor_names().filter_map(gguf::names::to_hf).collect()
            }
            Source::Safetensors { shards, .. } => shards
                .names()
                .filter(|name| name.ends_with(".weight") || name.ends_with(".bias"))
                .map(String::from)
                .collect(),
        };
        names.sort();
        names
    }

    /// A tensor in f32 by its Hugging Face name, `[out, in]` row-major; a vector is one row.
    pub fn tensor(&self, name: &str) -> Result<Matrix> {
        self.linear(name).map(LinearWeight::into_dense)
    }

    /// A weight as stored: four bits stay four bits.
    pub fn linear(&self, name: &str) -> Result<LinearWeight> {
        if let Some(made) = &self.layers
            && let Some(tensor) = made.nf4(name)?
        {
            return Ok(LinearWeight::Nf4(tensor));
        }
        let found = match &self.source {
            Source::Gguf { gguf, config } => {
                gguf_tensor(gguf, config, name)?.map(LinearWeight::Dense)
            }
            Source::Safetensors { shards, .. } => match shards.nf4(name)? {
                Some(tensor) => Some(LinearWeight::Nf4(tensor)),
                None => shards.matrix(name)?.map(LinearWeight::Dense),
            },
        };
        found.ok_or_else(|| Error::MissingTensor {
            path: self.path.clone(),
            name: name.to_string(),
        })
    }

    /// A four-bit weight whose large tensors stay in the file.
    pub(crate) fn four_bits(&self, name: &str) -> Result<Option<FourBits>> {
        if let Some(made) = &self.layers
            && let Some(found) = made.four_bits(name)?
        {
            return Ok(Some(found));
        }
        match &self.source {
            Source::Gguf { .. } => Ok(None),
            Source::Safetensors { shards, .. } => shards.four_bits(name),
        }
    }

    /// Whether the model itself holds the weight in four bits.
    pub(crate) fn is_nf4(&self, name: &str) -> bool {
        match &self.source {
            Source::Gguf { .. } => false,
            Source::Safetensors { shards, .. } => shards.is_nf4(name),
        }
    }

    /// A float tensor where it lies: type, shape, bytes. Nothing where a file holds it otherwise.
    pub(crate) fn floats(&self, name: &str) -> Option<(Dtype, Vec<usize>, Stretch)> {
        match &self.source {
            Source::Gguf { .. } => None,
            Source::Safetensors { shards, .. } => shards.floats(name),
        }
    }

    /// The model's tokenizer: `tokenizer.json`, or built from GGUF metadata.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        match &self.source {
            Source::Gguf { gguf, .. } => Tokenizer::from_gguf(gguf),
            Source::Safetensors { .. } => Tokenizer::from_folder(&self.path),
        }
    }

    /// The files that go beside an adapter so that others tokenize as we did: name and bytes.
    pub fn tokenizer_files(&self) -> Result<Vec<(String, Vec<u8>)>> {
        match &self.source {
            Source::Gguf { gguf, .. } => {
                side_files::generated(&self.tokenizer()?, gguf.text("tokenizer.chat_template"))
            }
            Source::Safetensors { .. } => side_files::copied(&self.path),
        }
    }

    /// The model's chat template, bound to its tokenizer.
    pub fn chat(&self) -> Result<ChatTemplate> {
        let tokenizer = Arc::new(self.tokenizer()?);
        let source = match &self.source {
            Source::Gguf { gguf, .. } => {
                gguf.text("tokenizer.chat_template")
                    .map(|text| TemplateSource {
                        text: text.to_string(),
                    })
            }
            Source::Safetensors { .. } => TemplateSource::from_folder(&self.path)?,
        };
        let source = source.ok_or_else(|| {
            Error::unsupported(
                "chat_template",
                "absent",
                "use an instruct model, or put a chat template beside it",
            )
        })?;
        ChatTemplate::new(tokenizer, &source)
    }
}

fn read_json(path: &Path) -> Result<Value> {
    let text = std::fs::read(path).map_err(Error::io(path))?;
    serde_json::from_slice(&text)
        .map_err(|e| Error::format(path, format!("it is not JSON: {e}"), "fetch the file again"))
}

fn read_config(folder: &Path) -> Result<ModelConfig> {
    let mut config = config::from_hf(&read_json(&folder.join("config.json"))?)?;
    let generation = folder.join("generation_config.json");
    if generation.is_file() {
        let eos = config::eos_from_generation_config(&read_json(&generation)?);
        if !eos.is_empty() {
            config.eos = eos;
        }
    }
    Ok(config)
}

fn gguf_tensor(gguf: &Gguf, config: &ModelConfig, name: &str) -> Result<Option<Matrix>> {
    let Some(stored) = gguf::names::to_gguf(name).filter(|stored| gguf.tensor(stored).is_some())
    else {
        return Ok(None);
    };
    let (info, mut values) = gguf.dequantize(&stored)?;
    // A bias of q or k is permuted by rows of width one.
    let (rows, cols) = match info.shape[..] {
        [cols] => (1, cols),
        [rows, cols] => (rows, cols),
        _ => {
            return Err(Error::shape(
                format!("tensor `{name}`"),
                "one or two dimensions",
                format!("{:?}", info.shape),
            ));
        }
    };
    // llama.cpp permutes q and k of the llama family only; qwen2 keeps its rows.
    let rotary = name.contains(".q_proj.") || name.contains(".k_proj.");
    if rotary && gguf.text("general.architecture") == Some("llama") {
        let width = if rows == 1 { 1 } else { cols };
        if values.len() % (config.head_dim * width) != 0 {
            return Err(Error::shape(
                format!("tensor `{name}`"),
                format!("heads of {}", config.head_dim),
                rows,
            ));
        }
        values = gguf::names::undo_rope_permutation(&values, width, config.head_dim);
    }
    Ok(Some(Matrix::new(rows, cols, values)))
}
