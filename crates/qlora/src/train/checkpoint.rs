//! A training run on disk: adapter, moments, best adapters and everything the loop knows, in one
//! safetensors file, `checkpoint-FINGERPRINT.safetensors`, and the one before it in
//! `….before.safetensors`.
//!
//! Promises: the newest that is whole is gone on from; a flipped bit, a cut file and what another
//! build, device or run left are passed over and told, never believed and (but for a damaged one of
//! this run) never overwritten. It is written at step boundaries only, so a resumed run has the bits of
//! an uninterrupted one; after a crash there is the old one or the new one.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::adamw::AdamW;
use super::event::{StepRecord, Validation};
use super::plan::Fallback;
use crate::error::{Error, Result};

const STATE: &str = "tunesmith.state";
const SUM: &str = "tunesmith.sum";
/// Raised when the file means something else; a part of every fingerprint.
pub(super) const VERSION: u32 = 3;

/// What the loop knows besides tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct LoopState {
    pub(super) version: u32,
    /// Of settings, adapter shape, examples, base, version and device.
    pub(super) fingerprint: u64,
    /// Version of the program and the device, for people.
    pub(super) made_by: String,
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
    pub(super) fn new(fingerprint: u64, made_by: String) -> Self {
        Self {
            version: VERSION,
            fingerprint,
            made_by,
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

/// A checkpoint that is not gone on from, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PassedOver {
    pub(super) path: PathBuf,
    pub(super) why: String,
}

fn newest(dir: &Path, fingerprint: u64) -> PathBuf {
    dir.join(format!("checkpoint-{fingerprint:016x}.safetensors"))
}

fn before(dir: &Path, fingerprint: u64) -> PathBuf {
    dir.join(format!("checkpoint-{fingerprint:016x}.before.safetensors"))
}

/// Writes the checkpoint of `dir`, whole or not at all; the one that was there stays beside it.
pub(super) fn save(dir: &Path, progress: &Progress) -> Result<()> {
    let state = serde_json::to_string(&progress.state).expect("the state is numbers and lists");
    let mut parts = vec![
        ("adam.first".to_owned(), bytes(&progress.adam.first)),
        ("adam.second".to_owned(), bytes(&progress.adam.second)),
        ("adapter".to_owned(), bytes(&progress.values)),
    ];
    for (place, values) in progress.kept.iter().enumerate() {
        parts.push((kept(place), bytes(values)));
    }
    let sum = sum(
        &state,
        parts.iter().map(|(name, bytes)| (&**name, &**bytes)),
    );
    #[expect(
        clippy::disallowed_types,
        reason = "the crate's own signature; its order is the file's alone"
    )]
    let metadata = std::collections::HashMap::from([
        (STATE.to_owned(), state),
        (SUM.to_owned(), format!("{sum:016x}")),
    ]);
    let views = parts.iter().map(|(name, bytes)| {
        let view = TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes);
        (name.as_str(), view.expect("four bytes per value"))
    });
    let data = safetensors::serialize(views, Some(metadata)).expect("names and shapes are valid");
    replace(dir, progress.state.fingerprint, &data)
}

fn kept(place: usize) -> String {
    format!("kept.{place}")
}

/// Of the state and every tensor by name, in this order.
fn sum<'a>(state: &str, parts: impl Iterator<Item = (&'a str, &'a [u8])>) -> u64 {
    let mut sum = Fingerprint::new();
    sum.add(state.as_bytes());
    for (name, bytes) in parts {
        sum.add(name.as_bytes());
        sum.add_words(bytes);
    }
    sum.finish()
}

fn replace(dir: &Path, fingerprint: u64, data: &[u8]) -> Result<()> {
    fs::create_dir_all(dir).map_err(Error::io(dir))?;
    let target = newest(dir, fingerprint);
    let aside = target.with_extension("part");
    let mut file = File::create(&aside).map_err(Error::io(&aside))?;
    file.write_all(data)
        .and_then(|()| file.sync_all())
        .map_err(Error::io(&aside))?;
    drop(file);
    if target.exists() {
        fs::rename(&target, before(dir, fingerprint)).map_err(Error::io(&target))?;
    }
    fs::rename(&aside, &target).map_err(Error::io(&target))?;
    File::open(dir)
        .and_then(|d| d.sync_all())
        .map_err(Error::io(dir))
}

/// The newest whole checkpoint of this run in `dir`, if there is one, and what was passed over.
pub(super) fn load(
    dir: &Path,
    fingerprint: u64,
    len: usize,
) -> Result<(Option<Progress>, Vec<PassedOver>)> {
    let own = [newest(dir, fingerprint), before(dir, fingerprint)];
    let mut passed_over = others(dir, &own)?;
    for path in own {
        let data = match fs::read(&path) {
            Ok(data) => data,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(Error::io(&path)(e)),
        };
        match whole(&data, fingerprint, len) {
            Ok(progress) => return Ok((Some(progress), passed_over)),
            Err(why) => {
                // Else the next one that is saved would push out a sound one in its favour.
                match fs::remove_file(&path) {
                    // Another rank was quicker.
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                    other => other.map_err(Error::io(&path))?,
                }
                passed_over.push(PassedOver { path, why });
            }
        }
    }
    Ok((None, passed_over))
}

/// Checkpoints in `dir` that are not this run's, by name.
fn others(dir: &Path, own: &[PathBuf]) -> Result<Vec<PassedOver>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io(dir)(e)),
    };
    let paths = entries.flatten().map(|entry| entry.path());
    let is_checkpoint = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("checkpoint") && name.ends_with(".safetensors")
    };
    let mut found: Vec<PathBuf> = paths
        .filter(|path| is_checkpoint(path) && !own.contains(path))
        .collect();
    found.sort();
    let told = found.into_iter().map(|path| {
        let why = match made_by(&path) {
            Some(made_by) => format!("it is of another run, build or device ({made_by})"),
            None => "it is of another build".to_owned(),
        };
        PassedOver { path, why }
    });
    Ok(told.collect())
}

/// Who made a checkpoint, if it says.
fn made_by(path: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct Made {
        made_by: String,
    }
    let data = fs::read(path).ok()?;
    let (_, header) = SafeTensors::read_metadata(&data).ok()?;
    let state = header.metadata().as_ref()?.get(STATE)?;
    serde_json::from_str(state)
        .ok()
        .map(|made: Made| made.made_by)
}

/// What a file holds, if not a bit of it is another.
fn whole(data: &[u8], fingerprint: u64, len: usize) -> Result<Progress, String> {
    let (_, header) =
        SafeTensors::read_metadata(data).map_err(|e| format!("it is damaged ({e})"))?;
    let entry = |name: &str| {
        let found = header.metadata().as_ref().and_then(|m| m.get(name));
        found.ok_or_else(|| format!("it is damaged (no `{name}`)"))
    };
    let (text, told) = (entry(STATE)?, entry(SUM)?);
    let tensors = SafeTensors::deserialize(data).map_err(|e| format!("it is damaged ({e})"))?;
    let mut parts: Vec<_> = tensors.iter().collect();
    parts.sort_by(|a, b| a.0.cmp(b.0));
    let found = sum(text, parts.iter().map(|(name, view)| (*name, view.data())));
    if *told != format!("{found:016x}") {
        return Err("it is damaged (its sum is another)".to_owned());
    }
    let state: LoopState =
        serde_json::from_str(text).map_err(|e| format!("its state is unreadable ({e})"))?;
    if state.version != VERSION || state.fingerprint != fingerprint {
        return Err("it belongs to another run".to_owned());
    }
    let tensor = |name: &str| -> Result<Vec<f32>, String> {
        let view = tensors
            .tensor(name)
            .map_err(|_| format!("it has no `{name}`"))?;
        let values = floats(view.data());
        if view.dtype() == Dtype::F32 && values.len() == len {
            Ok(values)
        } else {
            Err(format!("its `{name}` has another shape"))
        }
    };
    let adam = AdamW {
        first: tensor("adam.first")?,
        second: tensor("adam.second")?,
        steps: state.done(),
    };
    let places = 0..state.kept.len();
    Ok(Progress {
        values: tensor("adapter")?,
        adam,
        kept: places.map(|p| tensor(&kept(p))).collect::<Result<_, _>>()?,
        state,
    })
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

    /// [`Fingerprint::add`] by eight bytes at a time, for tensors. Every step can be undone, so no
    /// single flip stays unseen; the turn keeps two flips of a top bit from undoing each other.
    pub(super) fn add_words(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            let turned = self.0.rotate_left(29) ^ u64::from_le_bytes(*word);
            self.0 = turned.wrapping_mul(0x0100_0000_01b3);
        }
        self.add(rest);
        self.add(&(bytes.len() as u64).to_le_bytes());
    }

    pub(super) fn finish(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress() -> Progress {
        let mut state = LoopState::new(77, "0.1.0 on some card".to_owned());
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

    fn loaded(dir: &Path) -> (Option<Progress>, Vec<String>) {
        let (progress, passed_over) = load(dir, 77, 3).unwrap();
        (progress, passed_over.into_iter().map(|p| p.why).collect())
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let mut names: Vec<String> = entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_saved_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(loaded(dir.path()), (None, Vec::new()));
        save(dir.path(), &progress()).unwrap();
        assert_eq!(loaded(dir.path()), (Some(progress()), Vec::new()));
        let newest = "checkpoint-000000000000004d.safetensors";
        assert_eq!(names(dir.path()), [newest], "nothing is left aside");
        save(dir.path(), &progress()).unwrap();
        let before = "checkpoint-000000000000004d.before.safetensors";
        assert_eq!(names(dir.path()), [before, newest]);
    }

    /// Every bit of the file in turn: the one before is gone on from, and it is told.
    #[test]
    fn any_flipped_bit_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = newest(dir.path(), 77);
        let mut older = progress();
        older.values[0] = 9.0;
        save(dir.path(), &older).unwrap();
        save(dir.path(), &progress()).unwrap();
        let data = fs::read(&path).unwrap();
        for bit in 0..data.len() * 8 {
            let mut flipped = data.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, flipped).unwrap();
            let (found, why) = loaded(dir.path());
            assert_eq!(found.as_ref(), Some(&older), "bit {bit}: {why:?}");
            assert_eq!(why.len(), 1);
            assert!(!path.exists(), "a damaged one is out of the way");
        }
        for len in 0..data.len() {
            fs::write(&path, &data[..len]).unwrap();
            assert_eq!(loaded(dir.path()).0.as_ref(), Some(&older), "cut at {len}");
        }
    }

    #[test]
    fn what_is_foreign_is_passed_over_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mut foreign = progress();
        foreign.state.fingerprint = 78;
        save(dir.path(), &foreign).unwrap();
        fs::write(
            dir.path().join("checkpoint.safetensors"),
            "of an older build",
        )
        .unwrap();
        let (found, why) = loaded(dir.path());
        assert_eq!(found, None);
        assert_eq!(
            why,
            [
                "it is of another run, build or device (0.1.0 on some card)",
                "it is of another build"
            ]
        );
        save(dir.path(), &progress()).unwrap();
        assert_eq!(loaded(dir.path()).0, Some(progress()));
        assert_eq!(load(dir.path(), 78, 3).unwrap().0, Some(foreign));
    }
}
