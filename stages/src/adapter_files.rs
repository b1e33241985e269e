//! PEFT folders <-> the engine's adapter, with the stages' errors.

use std::path::Path;

use qlora::{Adapter, Dtype, ModelConfig, PeftAdapter};

use crate::base::engine;
use crate::contract::StageError;

/// Writes `adapter` as a PEFT folder at `folder`, which is made.
pub(crate) fn save(adapter: &Adapter, folder: &Path, dtype: Dtype) -> Result<(), StageError> {
    std::fs::create_dir_all(folder).map_err(|error| StageError::io(folder, &error))?;
    let peft = adapter.to_peft(None, None);
    peft.save(folder, dtype).map_err(|error| engine(&error))
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
