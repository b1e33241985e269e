//! Which rows are looked at.
//!
//! Every row draws a number from its content and the seed; those below the share are looked at.
//! A fixed count instead (the first n of a shuffle) was not taken: one more row would push
//! another out, after a person had decided about it.

use std::collections::BTreeSet;

use cache::Digest;

use crate::conversation::Conversation;

/// Hexadecimal digits of a row's name: 48 bits, so that of 100,000 rows two share one with a chance
/// of 1 in 50,000.
const DIGITS: usize = 12;

/// The name of a row's content: not of its `id`, which counts rows, nor of its group.
pub(crate) fn row_id(row: &Conversation) -> String {
    let content = Conversation {
        id: String::new(),
        group: None,
        ..row.clone()
    };
    let text = serde_json::to_string(&content).expect("a row is plain data");
    let mut hex = Digest::of(text.as_bytes()).hex();
    hex.truncate(DIGITS);
    hex
}

/// The rows among `ids` that are looked at; at least one, where there is any and the share is not
/// zero.
pub(super) fn wanted<'a>(
    ids: impl Iterator<Item = &'a str>,
    share: f64,
    seed: u64,
) -> BTreeSet<&'a str> {
    if share <= 0.0 {
        return BTreeSet::new();
    }
    let drawn: BTreeSet<(u64, &str)> = ids.map(|id| (draw(id, seed), id)).collect();
    // Of 2^64: a share of 1 is at every draw.
    let most = share * u64::MAX as f64;
    let chosen = drawn.iter().filter(|(draw, _)| *draw as f64 <= most);
    let mut chosen: BTreeSet<&str> = chosen.map(|(_, id)| *id).collect();
    if chosen.is_empty() {
        chosen.extend(drawn.first().map(|(_, id)| *id));
    }
    chosen
}

/// A number of 64 bits.
fn draw(id: &str, seed: u64) -> u64 {
    let digest = Digest::of(format!("review {seed} {id}").as_bytes());
    let first = digest.as_bytes()[..8].try_into().expect("eight bytes");
    u64::from_le_bytes(first)
}
