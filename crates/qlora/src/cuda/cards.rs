//! Cards that people train on, for plans without one at hand.
//!
//! Memory is what the driver reports for the card, which is less than its name says; it differs by a few MiB from driver
//! to driver.

use kernels::attention::Door;

use super::device::DeviceInfo;

/// Bytes that the driver, this program's kernels and cuBLASLt take of a card beside everything else (seen on an H100).
pub const CONTEXT: u64 = 532 << 20;

/// A kind of card.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CardModel {
    pub name: &'static str,
    /// Compute capability.
    pub capability: (i32, i32),
    pub processors: i32,
    /// MiB in all.
    pub mebibytes: usize,
}

const fn card(
    name: &'static str,
    capability: (i32, i32),
    processors: i32,
    mebibytes: usize,
) -> CardModel {
    CardModel {
        name,
        capability,
        processors,
        mebibytes,
    }
}

/// By memory.
pub const CARDS: &[CardModel] = &[
    card("RTX 3060", (8, 6), 28, 11_910),
    card("T4", (7, 5), 40, 14_917),
    card("RTX 4060 Ti 16GB", (8, 9), 34, 15_935),
    card("A10", (8, 6), 72, 22_515),
    card("L4", (8, 9), 58, 22_563),
    card("RTX 4090", (8, 9), 128, 24_210),
    card("RTX 3090", (8, 6), 82, 24_258),
    card("V100 32GB", (7, 0), 80, 32_494),
    card("RTX 5090", (12, 0), 170, 32_110),
    card("A100 40GB", (8, 0), 108, 40_334),
    card("L40S", (8, 9), 142, 45_450),
    card("A6000", (8, 6), 84, 48_670),
    card("H100", (9, 0), 132, 81_000),
    card("A100 80GB", (8, 0), 108, 81_050),
    card("H200", (9, 0), 132, 143_156),
    card("B200", (10, 0), 148, 182_640),
];

impl CardModel {
    /// The card of this name, however it is written (`rtx-4090`, `a100 80gb`), or nothing.
    pub fn named(name: &str) -> Option<Self> {
        let plain = |name: &str| {
            let letters = name.chars().filter(char::is_ascii_alphanumeric);
            letters.collect::<String>().to_ascii_lowercase()
        };
        let wanted = plain(name);
        CARDS
            .iter()
            .copied()
            .find(|card| plain(card.name) == wanted)
    }

    /// A card of so many GiB about which nothing else is known: the plainest that runs.
    pub fn of_gib(gib: f64) -> Self {
        Self {
            name: "a card",
            capability: (8, 0),
            processors: 64,
            mebibytes: (gib * 1024.0) as usize,
        }
    }

    /// Why it cannot be trained on, if it cannot.
    pub fn refusal(&self) -> Option<String> {
        (self.capability < (8, 0)).then(|| {
            format!(
                "has no bf16 (compute capability {}.{}); Ampere and newer do",
                self.capability.0, self.capability.1
            )
        })
    }

    /// The card as a device would describe itself.
    pub fn info(&self) -> DeviceInfo {
        let shared = match self.capability {
            (8, 0) => 163,
            (9, 0) | (10, _) => 227,
            _ => 99,
        };
        DeviceInfo {
            name: self.name.to_owned(),
            capability: self.capability,
            processors: self.processors,
            memory: self.mebibytes << 20,
            shared: shared << 10,
            driver: 0,
            blas: 0,
            attention: if self.capability == (9, 0) {
                Door::Warpgroup
            } else {
                Door::Warp
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_are_found_however_they_are_written_and_old_ones_refused_by_name() {
        assert_eq!(CardModel::named("rtx-4090").unwrap().name, "RTX 4090");
        assert_eq!(CardModel::named("A100 80gb").unwrap().mebibytes, 81_050);
        assert_eq!(CardModel::named("a100"), None);
        let refused: Vec<_> = CARDS.iter().filter(|c| c.refusal().is_some()).collect();
        let names: Vec<_> = refused.iter().map(|c| c.name).collect();
        assert_eq!(names, ["T4", "V100 32GB"]);
        assert_eq!(CardModel::of_gib(24.0).info().memory, 24 << 30);
    }
}
