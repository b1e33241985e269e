//! PEFT folders <-> the engine's adapter, with the stages' errors.

use std::path::Path;

use qlora::{Adapter, Dtype, LoraConfig, ModelConfig, PeftAdapter};

use crate::base::engine;
use crate::contract::StageError;

/// Writes `adapter` as a PEFT folder at `folder`, which is made.
pub(crate) fn save(adapter: &Adapter, folder: &Path, dtype: Dtype) -> Result<(), StageError> {
    std::fs::create_dir_all(folder).map_err(|error| StageError::io(folder, &error))?;
    let peft = adapter.to_peft(None, None);
    peft.save(folder, dtype).map_err(|error| engine(&error))
}

/// Reads a PEFT folder to train on as `lora` says; every setting that would make another adapter of it is
/// named.
pub(crate) fn continued(
    folder: &Path,
    model: &ModelConfig,
    lora: &LoraConfig,
) -> Result<Adapter, StageError> {
    let peft = PeftAdapter::load(folder).map_err(|error| engine(&error).at("inputs.adapter"))?;
    Adapter::continued(model, &peft, lora).map_err(|error| {
        StageError::new(
            "train::adapter-mismatch",
            error.to_string(),
            "write under `with` what the adapter has, or go on from one that fits",
        )
        .at("inputs.adapter")
    })
}

/// Reads a PEFT folder for a model of this shape.
pub(crate) fn load(folder: &Path, model: &ModelConfig) -> Result<Adapter, StageError> {
    let peft = PeftAdapter::load(folder).map_err(|error| engine(&error))?;
    Adapter::from_peft(model, &peft).map_err(|error| {
        StageError::new(
            "adapter::base-mismatch",
            format!("the adapter does not fit the base model: {error}"),
            "use the base model that the adapter was trained on",
        )
        .at("inputs.adapter")
    })
}
