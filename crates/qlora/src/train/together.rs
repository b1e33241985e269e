//! What the ranks of a data-parallel run settle among themselves: that they run the same thing, where it goes
//! on, which rows are whose, what a step's loss was. One rank alone settles it without a word.
//!
//! Every rank holds the whole adapter and its moments and does the same steps with the same gradient; only
//! rows are divided. Rank 0 alone reads and writes files.

use super::adamw::AdamW;
use super::batch::{Example, Group};
use super::checkpoint::{Fingerprint, Progress};
use super::deal;
use super::job::print_values;
use super::step::BatchLoss;
use crate::error::{Error, Result};
use crate::ranks::Collective;

/// The ranks of a run, if there are several.
#[derive(Clone, Copy)]
pub(super) struct Together<'a>(Option<&'a dyn Collective>);

impl<'a> Together<'a> {
    pub(super) fn new(ranks: Option<&'a dyn Collective>) -> Self {
        Self(ranks.filter(|ranks| ranks.world() > 1))
    }

    pub(super) fn ranks(self) -> Option<&'a dyn Collective> {
        self.0
    }

    /// Whether this rank reads and writes for all.
    pub(super) fn first(self) -> bool {
        self.0.is_none_or(|ranks| ranks.rank() == 0)
    }

    /// This rank's rows of a batch.
    pub(super) fn part(self, examples: &[Example], groups: &[Group]) -> Vec<Group> {
        let (rank, world) = self.0.map_or((0, 1), |r| (r.rank(), r.world()));
        deal::part(examples, groups, rank, world)
    }

    /// What the bits of the run depend on besides its inputs: of all ranks, in their order.
    pub(super) fn numerics(self, own: String) -> Result<String> {
        let Some(ranks) = self.0 else {
            return Ok(own);
        };
        let all = ranks.gather(own.as_bytes())?;
        let all: Vec<_> = all.iter().map(|one| String::from_utf8_lossy(one)).collect();
        Ok(format!("{} ranks: {}", ranks.world(), all.join("; ")))
    }

    /// Fails unless all ranks have the same number.
    pub(super) fn agree(self, what: &str, own: u64) -> Result<()> {
        let Some(ranks) = self.0 else {
            return Ok(());
        };
        let all = ranks.gather(&own.to_le_bytes())?;
        match all.iter().position(|other| *other != all[0]) {
            None => Ok(()),
            Some(rank) => Err(apart(rank, what)),
        }
    }

    /// The same for values.
    pub(super) fn agree_on(self, what: &str, values: &[f32]) -> Result<()> {
        if self.0.is_none() {
            return Ok(());
        }
        let mut print = Fingerprint::new();
        print_values(values, &mut print);
        self.agree(what, print.finish())
    }

    /// Rank 0's checkpoint, on all ranks; the others give nothing.
    pub(super) fn share(self, own: Option<Progress>) -> Result<Option<Progress>> {
        let Some(ranks) = self.0 else {
            return Ok(own);
        };
        let told = ranks.broadcast(own.as_ref().map(pack).unwrap_or_default())?;
        if ranks.rank() == 0 {
            return Ok(own);
        }
        Ok((!told.is_empty()).then(|| unpack(&told)))
    }

    /// The loss of a whole batch from what each rank lost on its rows. `whole` counts the batch.
    pub(super) fn add_up(self, own: BatchLoss, whole: BatchLoss, norm: f64) -> Result<BatchLoss> {
        let Some(ranks) = self.0 else {
            return Ok(own);
        };
        let mut said = Vec::from(own.sum.to_le_bytes());
        said.extend(norm.to_bits().to_le_bytes());
        for row in &own.broken {
            said.extend((*row as u64).to_le_bytes());
        }
        let mut all = whole;
        for (rank, said) in ranks.gather(&said)?.iter().enumerate() {
            let (words, _) = said.as_chunks::<8>();
            let word = |at: usize| u64::from_le_bytes(words[at]);
            if words.len() < 2 {
                return Err(apart(rank, "step"));
            }
            all.sum += f64::from_bits(word(0));
            if word(1) != norm.to_bits() {
                return Err(apart(rank, "gradient"));
            }
            all.broken
                .extend((2..words.len()).map(|at| word(at) as usize));
        }
        Ok(all)
    }
}

fn apart(rank: usize, what: &str) -> Error {
    Error::ranks(
        format!("rank {rank} has another {what} than rank 0"),
        "start all ranks from one build, with the same pipeline and inputs; if they are, report this",
    )
}

/// State and tensors, each behind its length.
fn pack(progress: &Progress) -> Vec<u8> {
    let state = serde_json::to_vec(&progress.state).expect("the state is numbers and lists");
    let mut data = Vec::new();
    let mut put = |part: &[u8]| {
        data.extend((part.len() as u64).to_le_bytes());
        data.extend(part);
    };
    put(&state);
    let adam = &progress.adam;
    for values in [&progress.values, &adam.first, &adam.second]
        .into_iter()
        .chain(&progress.kept)
    {
        put(&bytes(values));
    }
    data
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// What rank 0 packed: both are one build, so it can be read.
fn unpack(data: &[u8]) -> Progress {
    let mut rest = data;
    let mut take = || {
        let (len, behind) = rest.split_first_chunk::<8>()?;
        let (part, behind) = behind.split_at(u64::from_le_bytes(*len) as usize);
        rest = behind;
        Some(part)
    };
    let state: super::checkpoint::LoopState =
        serde_json::from_slice(take().expect("a state")).expect("a state");
    let mut floats = || {
        let (values, _) = take()?.as_chunks::<4>();
        Some(values.iter().map(|v| f32::from_le_bytes(*v)).collect())
    };
    Progress {
        values: floats().expect("values"),
        adam: AdamW {
            first: floats().expect("moments"),
            second: floats().expect("moments"),
            steps: state.done(),
        },
        kept: std::iter::from_fn(floats).collect(),
        state,
    }
}
