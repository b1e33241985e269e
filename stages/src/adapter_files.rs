//! PEFT folders <-> the engine's adapter values.

use std::collections::BTreeMap;
use std::path::Path;

use qlora::{
    Adapter, AdapterConfig, Dtype, LoraConfig, LoraPair, Matrix, ModelConfig, PeftAdapter, Target,
};

use crate::base::engine;
use crate::contract::StageError;

/// Writes `adapter` as a PEFT folder at `folder`, which is made.
pub(crate) fn save(
    adapter: &Adapter,
    folder: &Path,
    dtype: Dtype,
    model_type: Option<String>,
) -> Result<(), StageError> {
    std::fs::create_dir_all(folder).map_err(|error| StageError::io(folder, &error))?;
    peft(adapter, model_type)
        .save(folder, dtype)
        .map_err(|error| engine(&error))
}

fn peft(adapter: &Adapter, model_type: Option<String>) -> PeftAdapter {
    let config = adapter.config();
    let values = adapter.values();
    let mut pairs = BTreeMap::new();
    for slot in adapter.slots() {
        let a = Matrix::new(config.r, slot.inputs, values[slot.a.clone()].to_vec());
        let b = Matrix::new(slot.outputs, config.r, values[slot.b.clone()].to_vec());
        pairs.insert(
            format!("model.layers.{}.{}", slot.layer, slot.target.path()),
            LoraPair { a, b },
        );
    }
    let mut target_modules: Vec<String> = config
        .targets
        .iter()
        .map(|target| target.suffix().to_owned())
        .collect();
    target_modules.sort();
    PeftAdapter {
        config: AdapterConfig {
            r: config.r,
            alpha: f64::from(config.alpha),
            dropout: f64::from(config.dropout),
            target_modules,
            base_model: None,
            model_type,
        },
        pairs,
    }
}

/// Reads a PEFT folder for a model of this shape.
pub(crate) fn load(folder: &Path, model: &ModelConfig) -> Result<Adapter, StageError> {
    let peft = PeftAdapter::load(folder).map_err(|error| engine(&error))?;
    let targets: Vec<Target> = peft
        .config
        .target_modules
        .iter()
        .filter_map(|name| Target::from_suffix(name))
        .collect();
    let config = LoraConfig {
        r: peft.config.r,
        alpha: peft.config.alpha as f32,
        dropout: peft.config.dropout as f32,
        targets,
        seed: 0,
    };
    let mut adapter = Adapter::zeros(model, &config).map_err(|error| engine(&error))?;
    let mut used = 0;
    for slot in adapter.slots().to_vec() {
        let name = format!("model.layers.{}.{}", slot.layer, slot.target.path());
        let pair = peft
            .pairs
            .get(&name)
            .ok_or_else(|| mismatch(format!("it has no pair for `{name}`")))?;
        fill(
            &mut adapter.values_mut()[slot.a.clone()],
            &pair.a,
            (config.r, slot.inputs),
            &name,
        )?;
        fill(
            &mut adapter.values_mut()[slot.b.clone()],
            &pair.b,
            (slot.outputs, config.r),
            &name,
        )?;
        used += 1;
    }
    if used != peft.pairs.len() {
        return Err(mismatch(format!(
            "it has {} pairs where this base takes {used}",
            peft.pairs.len()
        )));
    }
    Ok(adapter)
}

fn fill(
    values: &mut [f32],
    matrix: &Matrix,
    shape: (usize, usize),
    name: &str,
) -> Result<(), StageError> {
    if (matrix.rows(), matrix.cols()) != shape {
        return Err(mismatch(format!(
            "`{name}` is {}x{} where this base takes {}x{}",
            matrix.rows(),
            matrix.cols(),
            shape.0,
            shape.1
        )));
    }
    values.copy_from_slice(matrix.data());
    Ok(())
}

fn mismatch(what: String) -> StageError {
    StageError::new(
        "adapter::base-mismatch",
        format!("the adapter does not fit the base model: {what}"),
        "use the base model that the adapter was trained on",
    )
    .at("inputs.adapter")
}
