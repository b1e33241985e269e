//! An adapter folder, looked at before it is sent: every trap that the service itself
//! only shows at inference, or never.
//!
//! Promises: all faults at once; of the weights only the header is read.

mod config;
mod header;
mod weights;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::contract::Fault;
use crate::sha256;

use super::UploadError;
use super::models::{self, MOST_BYTES, MOST_RANK};

/// Name of the configuration file.
pub(super) const CONFIG: &str = "adapter_config.json";
/// Name of the weights file.
pub(super) const WEIGHTS: &str = "adapter_model.safetensors";

/// An adapter that may be uploaded.
#[derive(Clone, Debug)]
pub(super) struct Adapter {
    pub(super) folder: PathBuf,
    pub(super) rank: u64,
    pub(super) alpha: f64,
    pub(super) model_type: Option<String>,
    /// Of all tensors, `F16`; of a mixed one, all of them.
    pub(super) dtype: String,
    /// Both files.
    pub(super) bytes: u64,
    /// sha256 by file name, once it is [sealed](Self::seal).
    pub(super) digests: BTreeMap<&'static str, String>,
}

impl Adapter {
    /// Hashes both files. Apart from the inspection, which must stay cheap: it also runs
    /// when nothing is uploaded.
    pub(super) fn seal(mut self) -> Result<Self, UploadError> {
        for name in [CONFIG, WEIGHTS] {
            let path = self.path(name);
            let digest = sha256::of_file(&path).map_err(|error| UploadError::file(&path, error))?;
            self.digests.insert(name, digest);
        }
        Ok(self)
    }

    /// Path of one of the two files.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// `name` with a digest of what the adapter is and which model it is for: the same
    /// content always has the same name, other content another one.
    pub(super) fn remote_name(&self, name: &str, model: &str) -> String {
        let mut hasher = Sha256::new();
        for part in [model, &self.digests[CONFIG], &self.digests[WEIGHTS]] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        format!("{name}-{}", &sha256::hex(&hasher.finalize())[..12])
    }
}

/// A fault of the adapter.
fn fault(code: &str, message: impl Into<String>, mend: impl Into<String>) -> Fault {
    Fault::new(&format!("upload::{code}"), "inputs.adapter", message, mend)
}

/// The rank the service refuses.
pub(super) fn rank_fault(rank: u64) -> Fault {
    fault(
        "rank-too-high",
        format!("the adapter's rank is {rank}; the service takes at most {MOST_RANK}"),
        format!("train with `r: {MOST_RANK}` or less"),
    )
}

/// Looks at an adapter folder. With `model`, as that model's service will.
pub(super) fn inspect(folder: &Path, model: Option<&str>) -> Result<Adapter, Vec<Fault>> {
    let mut faults = missing(folder);
    if !faults.is_empty() {
        return Err(faults);
    }
    let config = config::read(&folder.join(CONFIG), model, &mut faults);
    let header = header::read(&folder.join(WEIGHTS), &mut faults);
    let bytes = [CONFIG, WEIGHTS]
        .iter()
        .filter_map(|name| Some(std::fs::metadata(folder.join(name)).ok()?.len()))
        .sum();
    if model.is_some() && bytes >= MOST_BYTES {
        faults.push(fault(
            "too-large",
            format!(
                "the adapter is {:.1} MB; the service takes less than 300 MB",
                bytes as f64 / 1e6
            ),
            "export 16-bit weights, or train with a lower rank",
        ));
    }
    if let (Some(config), Some(header)) = (&config, &header) {
        let base = model.and_then(models::base);
        weights::check(config, header, model.is_some(), base, &mut faults);
    }
    match (config, header) {
        (Some(config), Some(header)) if faults.is_empty() => Ok(Adapter {
            folder: folder.to_owned(),
            rank: config.rank,
            alpha: config.alpha,
            model_type: config.model_type,
            dtype: header.dtypes(),
            bytes,
            digests: BTreeMap::new(),
        }),
        _ => Err(faults),
    }
}

/// Faults of files that are not there, with a guess at what happened.
fn missing(folder: &Path) -> Vec<Fault> {
    let has = |name: &str| folder.join(name).is_file();
    let mut faults = Vec::new();
    if !has(CONFIG) {
        faults.push(fault(
            "missing-file",
            format!("`{}` holds no `{CONFIG}`", folder.display()),
            "let `inputs.adapter` be the folder that `export` makes",
        ));
    }
    if !has(WEIGHTS) {
        let mend = if has("adapter_model.bin") {
            "`adapter_model.bin` is a pickle: save the adapter as safetensors"
        } else if has("model.safetensors") || has("model.safetensors.index.json") {
            "these look like merged weights: export the adapter alone"
        } else {
            "let `inputs.adapter` be the folder that `export` makes"
        };
        faults.push(fault(
            "missing-file",
            format!("`{}` holds no `{WEIGHTS}`", folder.display()),
            mend,
        ));
    }
    faults
}
