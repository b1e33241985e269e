//! `checkpoints:`: how long half-done work is kept. In no key.

use std::time::Duration;

use super::fault::Fault;
use super::node::Entry;
use super::resources::size;
use super::template::Scope;
use super::{limits, section};

/// How long, and how much, half-done work is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoints {
    /// A key's checkpoints go when nothing in them changed for so long.
    pub age: Duration,
    /// The oldest go while all together are larger, in bytes.
    pub size: u64,
    /// Whether they stay when the stage has its result.
    pub keep: bool,
}

impl Default for Checkpoints {
    fn default() -> Self {
        Self {
            age: Duration::from_hours(14 * 24),
            size: 50 << 30,
            keep: false,
        }
    }
}

/// Reads `checkpoints: {max_age: 14d, max_size: 50GiB, keep: false}`.
pub(crate) fn checkpoints(
    root: &[Entry],
    scope: &Scope<'_>,
    faults: &mut Vec<Fault>,
) -> Checkpoints {
    let mut found = Checkpoints::default();
    let Some(entry) = section::get(root, "checkpoints") else {
        return found;
    };
    let entries = section::map(&entry.value, "checkpoints", faults);
    section::only(
        entries,
        &["max_age", "max_size", "keep"],
        "`checkpoints`",
        faults,
    );
    for entry in entries {
        let Some(value) = scope.value(&entry.value, faults) else {
            continue;
        };
        let text = value.as_str();
        let (takes, mend) = match entry.key.as_str() {
            "max_age" => {
                let age = text.and_then(limits::duration);
                found.age = age.unwrap_or(found.age);
                if age.is_some() {
                    continue;
                }
                ("a time with a unit", "write `14d` or `12h`")
            }
            "max_size" => {
                let size = text.and_then(size);
                found.size = size.unwrap_or(found.size);
                if size.is_some() {
                    continue;
                }
                ("a size with a unit", "write `50GiB`")
            }
            "keep" => {
                found.keep = value.as_bool().unwrap_or(false);
                if value.is_boolean() {
                    continue;
                }
                ("true or false", "write `true` to keep them after success")
            }
            _ => continue,
        };
        let fault = section::wrong_value(&entry.value.span, &entry.key, takes, &value);
        faults.push(fault.mend(mend));
    }
    found
}
