//! Every crash of a log: at each step, the states that the disk may be left in.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use cache::Digest;

use super::model::{Bytes, Disk, Found};
use super::record::Step;

/// So many open changes of names are tried in every combination; beyond that, every one alone,
/// every one missing, every beginning, every end, and some at random.
const ALL_SETS: usize = 7;
const RANDOM_SETS: usize = 24;

/// Folders whose names matter to nobody after a crash: they are tried all there and all gone.
const UNIMPORTANT: [&str; 2] = ["home/store/tmp", "home/store/locks"];

/// A state of the disk, and the results that were promised before.
pub(crate) struct State {
    pub(crate) step: usize,
    pub(crate) promised: BTreeSet<usize>,
    pub(crate) files: BTreeMap<PathBuf, Found>,
}

/// Figures of a campaign.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) steps: usize,
    pub(crate) crashes: usize,
    pub(crate) states: usize,
    pub(crate) exhaustive: usize,
    pub(crate) sampled: usize,
}

/// Calls `check` with every different state.
pub(crate) fn every(log: &[Step], mut check: impl FnMut(&State)) -> Counts {
    let mut disk = Disk::new();
    let mut promised = BTreeSet::new();
    let mut counts = Counts {
        steps: log.len(),
        ..Counts::default()
    };
    let mut seen: BTreeSet<Digest> = BTreeSet::new();
    for (step, what) in log.iter().enumerate() {
        disk.step(what);
        match what {
            Step::Promised(number) => drop(promised.insert(*number)),
            Step::Released(number) => drop(promised.remove(number)),
            _ => {}
        }
        let open = disk.open(&UNIMPORTANT);
        let important: Vec<_> = open
            .iter()
            .filter(|(_, idle)| !idle)
            .map(|(at, _)| *at)
            .collect();
        let idle: BTreeSet<_> = open
            .iter()
            .filter(|(_, idle)| *idle)
            .map(|(at, _)| *at)
            .collect();
        if important.len() <= ALL_SETS {
            counts.exhaustive += 1;
        } else {
            counts.sampled += 1;
        }
        for came in sets(&important, step as u64) {
            for bytes in [Bytes::Lost, Bytes::Zeros, Bytes::Half, Bytes::Whole] {
                for idle_came in [false, true] {
                    counts.crashes += 1;
                    let through =
                        |at: usize| came.contains(&at) || (idle_came && idle.contains(&at));
                    let files = disk.crash(&through, bytes);
                    if seen.insert(name(&files, &promised)) {
                        counts.states += 1;
                        check(&State {
                            step,
                            promised: promised.clone(),
                            files,
                        });
                    }
                }
            }
        }
    }
    counts
}

fn sets(open: &[usize], seed: u64) -> Vec<BTreeSet<usize>> {
    let pick = |wanted: &dyn Fn(usize) -> bool| {
        let chosen = open.iter().enumerate().filter(|(at, _)| wanted(*at));
        chosen.map(|(_, change)| *change).collect::<BTreeSet<_>>()
    };
    if open.len() <= ALL_SETS {
        return (0..1_usize << open.len())
            .map(|mask| pick(&|at| mask >> at & 1 == 1))
            .collect();
    }
    let mut sets = vec![pick(&|_| true), pick(&|_| false)];
    for here in 0..open.len() {
        sets.push(pick(&|at| at == here));
        sets.push(pick(&|at| at != here));
        sets.push(pick(&|at| at < here));
        sets.push(pick(&|at| at > here));
    }
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for _ in 0..RANDOM_SETS {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let mask = state;
        sets.push(pick(&|at| mask >> (at % 64) & 1 == 1));
    }
    sets
}

fn name(files: &BTreeMap<PathBuf, Found>, promised: &BTreeSet<usize>) -> Digest {
    let mut text = format!("{promised:?}").into_bytes();
    for (path, found) in files {
        text.extend(path.as_os_str().as_encoded_bytes());
        match found {
            Found::File(bytes) => text.extend(Digest::of(bytes).as_bytes()),
            Found::Folder => text.push(b'/'),
            Found::Link(target) => text.extend(target.as_os_str().as_encoded_bytes()),
        }
        text.push(b'\n');
    }
    Digest::of(&text)
}

/// Lays a state out below `root`, as a machine finds it when it comes up again. What survived of
/// the index is made to be believed: its entries get the stats of the files they name, as they
/// would have on the disk that crashed.
pub(crate) fn lay_out(files: &BTreeMap<PathBuf, Found>, root: &Path) {
    for (path, found) in files {
        let place = root.join(path);
        match found {
            Found::Folder => fs::create_dir(&place).unwrap(),
            Found::Link(target) => symlink(target, &place).unwrap(),
            Found::File(bytes) => {
                fs::write(&place, &**bytes).unwrap();
                if path.starts_with("home/store/blobs") {
                    fs::set_permissions(&place, fs::Permissions::from_mode(0o444)).unwrap();
                }
            }
        }
    }
    let index = root.join("home/index");
    if let Ok(bytes) = fs::read(&index) {
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<_> = text.lines().map(|line| believed(line, root)).collect();
        fs::write(&index, lines.join("\n") + "\n").unwrap();
    }
}

/// A line `b DIGEST SIZE MTIME CTIME INODE ;` with the stat that the blob has now, if it is there
/// and has that size.
fn believed(line: &str, root: &Path) -> String {
    let words: Vec<_> = line.split(' ').collect();
    let ["b", digest, size, _, _, _, ";"] = *words else {
        return line.to_owned();
    };
    let Some(shard) = digest.get(..2) else {
        return line.to_owned();
    };
    let blob = root.join("home/store/blobs").join(shard).join(digest);
    match blob.metadata() {
        Ok(meta) if meta.len().to_string() == size => {
            let nanos = |seconds: i64, rest: i64| seconds * 1_000_000_000 + rest;
            let mtime = nanos(meta.mtime(), meta.mtime_nsec());
            let ctime = nanos(meta.ctime(), meta.ctime_nsec());
            format!("b {digest} {size} {mtime} {ctime} {} ;", meta.ino())
        }
        _ => line.to_owned(),
    }
}
