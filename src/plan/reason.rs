//! Why a stage runs, as data; its `Display` is the sentence people read.

use std::fmt;

use cache::PartDifference;
use serde::{Deserialize, Serialize};

/// Longest value shown in a sentence.
const SHOWN: usize = 60;

/// Why a stage runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "reason")]
pub enum Reason {
    /// It never ran under this profile.
    First,
    /// A part of its key changed since its last result.
    Changed(PartDifference),
    /// Its last result is no longer in the store.
    Lost,
    /// A file of its result is missing or damaged.
    Lacking {
        /// Output name.
        product: String,
        /// File below a folder, or empty.
        path: String,
        /// Whether it is there with other bytes.
        damaged: bool,
    },
    /// `pipeline.lock` says nothing about it, and only what that names is to count.
    NotLocked,
    /// Its result is at the remote and cannot be had from there.
    Unfetched {
        /// Why.
        because: String,
    },
    /// `--force`.
    Forced,
    /// `--recompute`.
    Recompute,
    /// It acts on the outside and was named.
    Named,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::First => f.write_str("it has no result yet"),
            Self::Changed(difference) => changed(f, difference),
            Self::Lost => f.write_str("its last result is no longer in the store"),
            Self::Lacking {
                product,
                path,
                damaged,
            } => {
                let state = if *damaged { "damaged" } else { "missing" };
                if path.is_empty() {
                    write!(f, "its output `{product}` is {state}")
                } else {
                    write!(f, "`{path}` of its output `{product}` is {state}")
                }
            }
            Self::NotLocked => f.write_str("`pipeline.lock` has no result of it"),
            Self::Unfetched { because } => {
                write!(
                    f,
                    "its result could not be fetched from the remote: {because}"
                )
            }
            Self::Forced => f.write_str("it is forced"),
            Self::Recompute => f.write_str("it is recomputed to compare with the lock"),
            Self::Named => f.write_str("it is named, and acts on the outside"),
        }
    }
}

fn changed(f: &mut fmt::Formatter<'_>, difference: &PartDifference) -> fmt::Result {
    let (group, rest) = match difference.part.split_once('.') {
        Some((group, rest)) => (group, rest),
        None => (&*difference.part, ""),
    };
    let old = difference.old.as_deref();
    let new = difference.new.as_deref();
    match group {
        "key" => f.write_str("this version of tunesmith computes keys in another way"),
        "kind" => write!(f, "it is another kind of stage: {}", arrow(old, new)),
        "version" => write!(f, "the stage itself changed: version {}", arrow(old, new)),
        "shared" => write!(
            f,
            "`{rest}`, which it uses, changed: version {}",
            arrow(old, new)
        ),
        "command" => f.write_str("its command changed"),
        "output" => write!(
            f,
            "the path of its output `{rest}` changed: {}",
            arrow(old, new)
        ),
        "seed" => write!(f, "the seed changed: {}", arrow(old, new)),
        "pin" if new == Some("") => {
            f.write_str("its source is no longer pinned in `pipeline.lock`")
        }
        "pin" => write!(f, "its source moved: {}", arrow(old, new)),
        "fingerprint" => write!(f, "the tool changed: `{rest}` says {}", arrow(old, new)),
        "input" => input(f, rest, old, new),
        // `with.lr`, `env.MODE`, and whatever a newer version may add.
        _ => match (old, new) {
            (Some(_), Some(_)) => write!(f, "`{}` changed: {}", difference.part, arrow(old, new)),
            (None, Some(new)) => write!(
                f,
                "`{}` is {} now (it was not set)",
                difference.part,
                short(new)
            ),
            (Some(old), None) => write!(
                f,
                "`{}` is no longer set (it was {})",
                difference.part,
                short(old)
            ),
            (None, None) => write!(f, "`{}` changed", difference.part),
        },
    }
}

fn input(
    f: &mut fmt::Formatter<'_>,
    rest: &str,
    old: Option<&str>,
    new: Option<&str>,
) -> fmt::Result {
    if let Some(port) = rest.strip_suffix(".name") {
        return write!(f, "input `{port}` has another name: {}", arrow(old, new));
    }
    match (old, new) {
        (None, Some(_)) => write!(f, "input `{rest}` is new"),
        (Some(_), None) => write!(f, "input `{rest}` is gone"),
        _ => {
            let digest =
                |text: Option<&str>| text.unwrap_or("").chars().take(12).collect::<String>();
            write!(
                f,
                "input `{rest}` changed: {} -> {}",
                digest(old),
                digest(new)
            )
        }
    }
}

fn arrow(old: Option<&str>, new: Option<&str>) -> String {
    let show = |value: Option<&str>| value.map_or_else(|| "none".to_owned(), short);
    format!("{} -> {}", show(old), show(new))
}

fn short(value: &str) -> String {
    let line = value.replace('\n', " ");
    if line.chars().count() <= SHOWN {
        return line;
    }
    let head: String = line.chars().take(SHOWN - 1).collect();
    format!("{head}…")
}
