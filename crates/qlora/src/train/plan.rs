//! How a step runs and what it takes, as whoever computes has planned it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How much of the forward stays for the backward, the most first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keeping {
    /// Every activation.
    #[default]
    Everything,
    /// The input of each layer; the rest is computed again.
    LayerInputs,
    /// The same, in pinned memory of the host.
    Host,
}

/// A step, or the most that any of several takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepPlan {
    /// Bytes of activations and workspace at a time.
    pub bytes: u64,
    /// Bytes of pinned host memory.
    pub host_bytes: u64,
    pub keeping: Keeping,
    /// Rows of the largest pass; 0 where that is not planned (the CPU).
    pub rows: usize,
    /// Passes of the group that takes most of them.
    pub passes: usize,
    /// Layers whose four-bit weights stay decoded, in memory that no step needs; they take so many bytes more.
    #[serde(default)]
    pub decoded_layers: usize,
    #[serde(default)]
    pub decoded_bytes: u64,
}

impl StepPlan {
    /// The most that either takes.
    #[must_use]
    pub fn most(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.max(other.bytes),
            host_bytes: self.host_bytes.max(other.host_bytes),
            keeping: self.keeping.max(other.keeping),
            rows: self.rows.max(other.rows),
            passes: self.passes.max(other.passes),
            decoded_layers: self.decoded_layers.max(other.decoded_layers),
            decoded_bytes: self.decoded_bytes.max(other.decoded_bytes),
        }
    }
}

impl fmt::Display for StepPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rows == 0 {
            return Ok(());
        }
        match self.keeping {
            Keeping::Everything => write!(f, "every activation kept")?,
            Keeping::LayerInputs => write!(f, "layer inputs kept, the rest computed again")?,
            Keeping::Host => write!(
                f,
                "layer inputs on the host ({} MiB pinned), the rest computed again",
                self.host_bytes >> 20
            )?,
        }
        let rows = if self.rows == 1 { "row" } else { "rows" };
        write!(f, "; {} {rows} at a time", self.rows)?;
        if self.passes > 1 {
            write!(f, ", {} passes", self.passes)?;
        }
        match self.decoded_layers {
            0 => Ok(()),
            1 => write!(
                f,
                "; 1 layer stays decoded ({} MiB)",
                self.decoded_bytes >> 20
            ),
            layers => {
                let mib = self.decoded_bytes >> 20;
                write!(f, "; {layers} layers stay decoded ({mib} MiB)")
            }
        }
    }
}

/// A step for which the card did not give the memory that was planned: from there on the next smaller plan was used. The
/// gradient is the same but for the order of its sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fallback {
    /// The first step (counted from 1) that ran so.
    pub step: u64,
    /// Bytes that were refused.
    pub refused: u64,
    /// What took their place.
    pub plan: StepPlan,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_a_sentence_and_the_most_of_two_takes_both() {
        let whole = StepPlan {
            bytes: 100,
            rows: 16,
            passes: 1,
            ..StepPlan::default()
        };
        assert_eq!(
            whole.to_string(),
            "every activation kept; 16 rows at a time"
        );
        let small = StepPlan {
            bytes: 50,
            host_bytes: 3 << 20,
            keeping: Keeping::Host,
            rows: 1,
            passes: 4,
            ..StepPlan::default()
        };
        assert_eq!(
            small.to_string(),
            "layer inputs on the host (3 MiB pinned), the rest computed again; 1 row at a time, 4 passes"
        );
        let most = whole.most(small);
        assert_eq!(
            (most.bytes, most.keeping, most.passes),
            (100, Keeping::Host, 4)
        );
        let decoded = StepPlan {
            decoded_layers: 32,
            decoded_bytes: 13 << 30,
            ..whole
        };
        assert_eq!(
            decoded.to_string(),
            "every activation kept; 16 rows at a time; 32 layers stay decoded (13312 MiB)"
        );
        assert_eq!(StepPlan::default().to_string(), "");
    }
}
