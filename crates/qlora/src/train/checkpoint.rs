//! A training run on disk: adapter, moments, best adapters and everything the loop knows, in one
//! safetensors file that is replaced by a rename. After a crash there is the old one or the new one.
//!
//! A checkpoint carries the fingerprint of the run it belongs to, and is refused by any other. It is
//! written at step boundaries only, so a resumed run has the bits of an uninterrupted one.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::adamw::AdamW;
use super::event::{StepRecord, Validation};
use super::plan::Fallback;
use crate::error::{Error, Result};

const NAME: &str = "checkpoint.safetensors";
const STATE: &str = "tunesmith.state";
const VERSION: u32 = 2;

/// What the loop knows besides tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct LoopState {
    pub(super) version: u32,
    /// Of settings, adapter shape, examples and base.
    pub(super) fingerprint: u64,
    pub(super) steps: Vec<StepRecord>,
    pub(super) validations: Vec<Validation>,
    pub(super) best: Option<Validation>,
    /// The validations whose adapters are kept, best first.
    pub(super) kept: Vec<Validation>,
    /// Validations since the best one.
    pub(super) stale: u32,
    /// The validations had stopped getting better.
    pub(super) stopped: bool,
    /// Where a card gave less memory than planned: what goes on from here plans as those steps did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) fallbacks: Vec<Fallback>,
}

impl LoopState {
    pub(super) fn new(fingerprint: u64) -> Self {
        Self {
            version: VERSION,
            fingerprint,
            steps: Vec::new(),
            validations: Vec::new(),
            best: None,
            kept: Vec::new(),
            stale: 0,
            stopped: false,
            fallbacks: Vec::new(),
        }
    }

    /// Optimizer steps done.
    pub(super) fn done(&self) -> u64 {
        self.steps.len() as u64
    }
}

/// A run at a step boundary.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Progress {
    pub(super) state: LoopState,
    pub(super) values: Vec<f32>,
    pub(super) adam: AdamW,
    /// The adapters of [`LoopState::kept`].
    pub(super) kept: Vec<Vec<f32>>,
}

fn path(dir: &Path) -> PathBuf {
    dir.join(NAME)
}

/// Writes the checkpoint of `dir`, whole or not at all.
pub(super) fn save(dir: &Path, progress: &Progress) -> Result<()> {
    let state = serde_json::to_string(&progress.state).expect("the state is numbers and lists");
    #[expect(
        clippy::disallowed_types,
        reason = "the crate's own signature; there is one entry"
    )]
    let metadata = std::collections::HashMap::from([(STATE.to_owned(), state)]);
    let mut parts = vec![
        ("adam.first".to_owned(), bytes(&progress.adam.first)),
        ("adam.second".to_owned(), bytes(&progress.adam.second)),
        ("adapter".to_owned(), bytes(&progress.values)),
    ];
    for (place, values) in progress.kept.iter().enumerate() {
        parts.push((kept(place), bytes(values)));
    }
    let views = parts.iter().map(|(name, bytes)| {
        let view = TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes);
        (name.as_str(), view.expect("four bytes per value"))
    });
    let data = safetensors::serialize(views, Some(metadata)).expect("names and shapes are valid");
    replace(dir, &data)
}

fn kept(place: usize) -> String {
    format!("kept.{place}")
}

fn replace(dir: &Path, data: &[u8]) -> Result<()> {
    fs::create_dir_all(dir).map_err(Error::io(dir))?;
    let aside = dir.join(format!("{NAME}.part"));
    let mut file = File::create(&aside).map_err(Error::io(&aside))?;
    file.write_all(data)
        .and_then(|()| file.sync_all())
        .map_err(Error::io(&aside))?;
    drop(file);
    let target = path(dir);
    fs::rename(&aside, &target).map_err(Error::io(&target))?;
    File::open(dir)
        .and_then(|d| d.sync_all())
        .map_err(Error::io(dir))
}

/// The checkpoint of `dir`, if there is one. One of another run is an error.
pub(super) fn load(dir: &Path, fingerprint: u64, len: usize) -> Result<Option<Progress>> {
    let path = path(dir);
    let data = match fs::read(&path) {
        Ok(data) => data,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(&path)(e)),
    };
    let broken = |what: String| {
        Error::format(
            &path,
            what,
            "delete the file to start training from the beginning",
        )
    };
    let (_, header) =
        SafeTensors::read_metadata(&data).map_err(|e| broken(format!("is no checkpoint ({e})")))?;
    let state = header.metadata().as_ref().and_then(|m| m.get(STATE));
    let state = state.ok_or_else(|| broken("is no checkpoint of a training run".to_owned()))?;
    let state: LoopState = serde_json::from_str(state)
        .map_err(|e| broken(format!("has an unreadable state ({e})")))?;
    if state.version != VERSION || state.fingerprint != fingerprint {
        return Err(broken("belongs to another training run".to_owned()));
    }
    let tensors =
        SafeTensors::deserialize(&data).map_err(|e| broken(format!("is damaged ({e})")))?;
    let tensor = |name: &str| -> Result<Vec<f32>> {
        let view = tensors
            .tensor(name)
            .map_err(|_| broken(format!("has no `{name}`")))?;
        let values = floats(view.data());
        if view.dtype() == Dtype::F32 && values.len() == len {
            Ok(values)
        } else {
            Err(broken(format!("has a `{name}` of another shape")))
        }
    };
    let adam = AdamW {
        first: tensor("adam.first")?,
        second: tensor("adam.second")?,
        steps: state.done(),
    };
    let places = 0..state.kept.len();
    Ok(Some(Progress {
        values: tensor("adapter")?,
        adam,
        kept: places.map(|p| tensor(&kept(p))).collect::<Result<_>>()?,
        state,
    }))
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    let (chunks, _) = bytes.as_chunks::<4>();
    chunks.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// A stable 64-bit hash (FNV-1a) of the parts that make a run what it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fingerprint(u64);

impl Fingerprint {
    pub(super) fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        for byte in (bytes.len() as u64).to_le_bytes().iter().chain(bytes) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub(super) fn finish(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress() -> Progress {
        let mut state = LoopState::new(77);
        state.best = Some(Validation {
            step: 3,
            loss: 0.1 + 0.2,
        });
        state.validations = vec![Validation {
            step: 3,
            loss: 1.0 / 3.0,
        }];
        state.kept = vec![state.validations[0].clone(); 2];
        Progress {
            state,
            values: vec![1.0, f32::MIN_POSITIVE, -0.0],
            adam: AdamW {
                first: vec![0.1, 0.2, 0.3],
                second: vec![1e-30, 0.0, 2.0],
                steps: 0,
            },
            kept: vec![vec![4.0, 5.0, 6.0], vec![7.0, 8.0, 9.0]],
        }
    }

    #[test]
    fn what_is_saved_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        assert!(load(dir.path(), 77, 3).unwrap().is_none());
        save(dir.path(), &progress()).unwrap();
        assert_eq!(load(dir.path(), 77, 3).unwrap().unwrap(), progress());
        let left: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(left, [NAME], "nothing is left aside");
    }

    #[test]
    fn a_foreign_or_damaged_checkpoint_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        save(dir.path(), &progress()).unwrap();
        let text = |e: Error| e.to_string();
        assert!(
            text(load(dir.path(), 78, 3).unwrap_err()).ends_with("belongs to another training run")
        );
        assert!(text(load(dir.path(), 77, 4).unwrap_err()).contains("of another shape"));
        let data = fs::read(path(dir.path())).unwrap();
        fs::write(path(dir.path()), &data[..data.len() - 5]).unwrap();
        let error = load(dir.path(), 77, 3).unwrap_err();
        assert_eq!(error.code(), "qlora::format");
        assert!(error.mend().is_some());
    }
}
