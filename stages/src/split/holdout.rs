//! Which groups are held out.
//!
//! Promises: within each stratum the groups are taken in the order of a keyed hash of
//! their names until the share is reached, so the choice of one group depends on others
//! only at the border. Must not know: files.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::groups::Groups;
use crate::conversation::Conversation;

/// A group under the hash that orders it.
type Ranked<'a> = ([u8; 32], &'a Vec<usize>);

/// Type and first tool.
pub(super) fn stratum(row: &Conversation) -> String {
    format!("{}/{}", row.kind, row.first_tool().unwrap_or("-"))
}

/// For each row whether it is held out.
pub(super) fn choose(
    rows: &[Conversation],
    groups: &Groups,
    fraction: f64,
    seed: u64,
) -> Vec<bool> {
    let mut strata: BTreeMap<String, Vec<Ranked<'_>>> = BTreeMap::new();
    for (name, members) in &groups.members {
        let own = members.iter().map(|at| stratum(&rows[*at])).min();
        let own = own.expect("a group has a member");
        strata
            .entry(own)
            .or_default()
            .push((rank(seed, name), members));
    }
    let mut held = vec![false; rows.len()];
    for groups in strata.values_mut() {
        groups.sort_unstable();
        let total: usize = groups.iter().map(|(_, members)| members.len()).sum();
        let want = fraction * total as f64;
        let mut taken = 0usize;
        for (_, members) in groups.iter() {
            // Take a group when that brings the stratum nearer to its share.
            let after = (taken + members.len()) as f64;
            if (after - want).abs() < (taken as f64 - want).abs() {
                taken += members.len();
                for at in *members {
                    held[*at] = true;
                }
            }
        }
    }
    if !held.contains(&true) && groups.members.len() > 1 {
        hold_one(groups, seed, &mut held);
    }
    held
}

/// Strata too small for a share each: one group is held out all the same.
fn hold_one(groups: &Groups, seed: u64, held: &mut [bool]) {
    let smallest = groups
        .members
        .iter()
        .min_by_key(|(name, _)| rank(seed, name));
    if let Some((_, members)) = smallest {
        for at in members {
            held[*at] = true;
        }
    }
}

fn rank(seed: u64, name: &str) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(seed.to_le_bytes());
    hasher.update(name.as_bytes());
    hasher.finalize().into()
}
