//! Who holds a lease: what the file says, and whether that process is known to be gone.

use std::fs;

use serde::{Deserialize, Serialize};

use crate::lock::{Holder, machine};
use crate::stat;

/// Digits of the counted beats: the bytes are as long at every beat.
const DIGITS: usize = 12;

/// This process, as its leases name it.
#[derive(Debug)]
pub(super) struct Owner {
    /// Different for every process that ever ran, on any machine.
    pub(super) id: String,
    /// Names the kernel and the process table (boot, namespace) in which its number means something.
    pub(super) table: String,
    /// When the process began, as the kernel counts: a number is given again to another one.
    pub(super) start: u64,
}

/// What a lease's file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Content {
    #[serde(flatten)]
    pub(super) holder: Holder,
    /// Different for every lease ever taken.
    pub(super) id: String,
    pub(super) table: String,
    pub(super) start: u64,
    /// Beats so far, zeros in front.
    pub(super) beat: String,
}

impl Owner {
    pub(super) fn this() -> Self {
        let host = machine();
        Self {
            id: format!("{host}-{}-{:x}", std::process::id(), stat::now()),
            table: table(),
            start: start_of(std::process::id()).unwrap_or(0),
        }
    }

    /// Whether the holder ran in this very process table and runs no more. Of other machines, and of
    /// containers with tables of their own, nothing is known.
    pub(super) fn knows_as_dead(&self, content: &Content) -> bool {
        !self.table.is_empty()
            && content.table == self.table
            && start_of(content.holder.pid) != Some(content.start)
    }
}

impl Content {
    pub(super) fn first(id: &str, owner: &Owner) -> Self {
        Self {
            holder: Holder::this(),
            id: id.to_owned(),
            table: owner.table.clone(),
            start: owner.start,
            beat: digits(0),
        }
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a lease is plain data")
    }

    /// The next beat.
    pub(super) fn beat(&mut self) {
        let next = self.beat.parse::<u64>().unwrap_or(0).wrapping_add(1);
        self.beat = digits(next);
    }
}

fn digits(beat: u64) -> String {
    format!("{:0DIGITS$}", beat % 10_u64.pow(DIGITS as u32))
}

/// This boot of this machine, and its process table as this process sees it; empty where that is not
/// known (macOS): then only standing still tells.
fn table() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let namespace = fs::read_link("/proc/self/ns/pid");
    match (boot, namespace) {
        (Ok(boot), Ok(namespace)) => format!("{} {}", boot.trim(), namespace.display()),
        _ => String::new(),
    }
}

/// When a process began, in the kernel's ticks since boot: field 22 of `/proc/PID/stat`. `None` if there
/// is none, or only what a dead one leaves until its parent looks.
fn start_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name, in brackets, may hold anything.
    let after = &stat[stat.rfind(')')? + 1..];
    let mut fields = after.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beat_changes_the_bytes_and_not_their_number() {
        let owner = Owner::this();
        let mut content = Content::first("x-1", &owner);
        let before = content.bytes();
        content.beat();
        let after = content.bytes();
        assert_ne!(before, after);
        assert_eq!(before.len(), after.len());
        assert_eq!(Content::parse(&after), Some(content));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn only_of_this_process_table_a_dead_one_is_known() {
        let owner = Owner::this();
        let mut content = Content::first("x-1", &owner);
        assert!(!owner.knows_as_dead(&content), "this process lives");
        content.start += 1;
        assert!(owner.knows_as_dead(&content), "another had its number");
        content.table.push_str(" elsewhere");
        assert!(!owner.knows_as_dead(&content));
    }
}
