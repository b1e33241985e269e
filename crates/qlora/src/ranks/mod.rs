//! Processes that train one adapter together: who they are, and the few things they tell each other.
//!
//! Promises: every call gives the same bytes on every rank; sums are added in the order of the ranks, so two
//! runs of the same ranks have the same bits; a rank that dies, stops or falls silent is an error on all
//! others, never a hang. It knows bytes and f32 values; not gradients, steps or cards. What it does not
//! promise is speed: gradients on cards go through NCCL, over a connection of its own.

mod local;
mod star;
mod tcp;

use std::time::Duration;

use crate::error::{Error, Result};

pub use local::local;
pub use tcp::{Rendezvous, host, join};

/// How long a rank waits for another one, if nobody says otherwise: a base that is loaded, a checkpoint that
/// is written.
pub const PATIENCE: Duration = Duration::from_mins(10);

/// What ranks do together. All of them make the same calls in the same order.
pub trait Collective: Send + Sync {
    /// The place of this process among all, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn world(&self) -> usize;

    /// How long one rank waits for another.
    fn patience(&self) -> Duration;

    /// What every rank gave, by rank.
    ///
    /// # Errors
    /// [`Error::Ranks`] where a rank is gone, has stopped, is silent or does something else.
    fn gather(&self, own: &[u8]) -> Result<Vec<Vec<u8>>>;

    /// What rank 0 gave.
    ///
    /// # Errors
    /// As [`Collective::gather`].
    fn broadcast(&self, own: Vec<u8>) -> Result<Vec<u8>>;

    /// The sum over all ranks, added up from rank 0 on.
    ///
    /// # Errors
    /// As [`Collective::gather`].
    fn sum(&self, values: &mut [f32]) -> Result<()>;

    /// Waits until every rank is here.
    ///
    /// # Errors
    /// As [`Collective::gather`].
    fn barrier(&self) -> Result<()> {
        self.gather(&[]).map(drop)
    }

    /// Fails if a rank is known to be gone or to have stopped; waits for nobody.
    ///
    /// # Errors
    /// [`Error::Ranks`].
    fn check(&self) -> Result<()>;

    /// Tells the others why this rank stops. Later calls do nothing.
    fn leave(&self, why: &Error);
}

const GO_ON: &str = "look at that rank's own message; when it is mended, run again: training goes on from its checkpoint";

fn gone(rank: usize, error: &std::io::Error) -> Error {
    Error::ranks(format!("rank {rank} is gone ({error})"), GO_ON)
}

fn stopped(rank: usize, why: &str) -> Error {
    Error::ranks(format!("rank {rank} has stopped: {why}"), GO_ON)
}

fn silent(rank: usize, patience: Duration) -> Error {
    Error::ranks(
        format!(
            "rank {rank} has said nothing for {} s",
            patience.as_secs_f64()
        ),
        "look whether its host is overloaded or out of reach, then run again",
    )
}

fn out_of_step(rank: usize) -> Error {
    Error::ranks(
        format!("rank {rank} is at another place of the program"),
        "start all ranks from one build, with the same pipeline and inputs",
    )
}

#[cfg(test)]
mod tests;
