//! Which rows belong together.
//!
//! Promises: the relation is transitive, and does not depend on the order of the rows; a
//! group's name does not either. Must not know: halves, shares.

use std::collections::BTreeMap;

use crate::conversation::Conversation;
use crate::similarity::{Grams, hash, near_pairs, normal};

/// Groups of rows.
pub(super) struct Groups {
    /// Row indexes by group name, ascending.
    pub(super) members: BTreeMap<String, Vec<usize>>,
}

/// Joins rows by explicit group, by user text and by near-duplicate user text.
pub(super) fn find(rows: &[Conversation], near: f64) -> Groups {
    let mut sets = Sets::new(rows.len());
    let mut first: BTreeMap<String, usize> = BTreeMap::new();
    let texts: Vec<String> = rows.iter().map(Conversation::user_text).collect();
    for (at, row) in rows.iter().enumerate() {
        let mut keys = vec![format!("text:{}", normal(&texts[at]))];
        keys.extend(row.group.iter().map(|group| format!("group:{group}")));
        for key in keys {
            let other = *first.entry(key).or_insert(at);
            sets.join(at, other);
        }
    }
    let grams: Vec<Grams> = texts.iter().map(|text| Grams::of(text)).collect();
    for (a, b, _) in near_pairs(&grams, near) {
        sets.join(a, b);
    }
    let mut by_root: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for at in 0..rows.len() {
        by_root.entry(sets.root(at)).or_default().push(at);
    }
    let members = by_root
        .into_values()
        .map(|members| (name(rows, &texts, &members), members))
        .collect();
    Groups { members }
}

/// The first explicit group, else the user text whose hash is smallest: a new member
/// rarely changes it.
fn name(rows: &[Conversation], texts: &[String], members: &[usize]) -> String {
    let explicit = members.iter().filter_map(|at| rows[*at].group.as_deref());
    if let Some(group) = explicit.min() {
        return format!("group:{group}");
    }
    let plain = members.iter().map(|at| normal(&texts[*at]));
    let key = plain.min_by_key(|text| (hash(text.as_bytes()), text.clone()));
    format!("text:{}", key.expect("a group has a member"))
}

/// Disjoint sets with path halving.
struct Sets(Vec<usize>);

impl Sets {
    fn new(size: usize) -> Self {
        Self((0..size).collect())
    }

    fn root(&mut self, mut at: usize) -> usize {
        while self.0[at] != at {
            self.0[at] = self.0[self.0[at]];
            at = self.0[at];
        }
        at
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.0[a.max(b)] = a.min(b);
    }
}
