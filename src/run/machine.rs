//! What this machine has: cores, GPUs by id, memory, disk.
//!
//! Promises: looks only for what is asked about, since a run that needs no GPU should not wait
//! for a driver; what a person says (`--pool`, `TUNESMITH_GPUS`, `pools:`) wins over what is
//! found, and a `CUDA_VISIBLE_DEVICES` that is set already limits the GPUs whatever is said.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::config::Pools;

/// Names the GPUs to use, by id, separated by commas; `none` for none.
const GPUS: &str = "TUNESMITH_GPUS";

/// How CUDA programs are told which GPUs they see.
pub(crate) const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";

/// Slots for waiting on the network.
const NET: u64 = 8;

/// The sizes of pools, and the GPUs behind the slots of `gpu`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    /// Pool -> slots, or bytes.
    pub(crate) sizes: BTreeMap<String, u64>,
    /// GPU ids, as `CUDA_VISIBLE_DEVICES` takes them.
    pub(crate) devices: Vec<String>,
}

impl Machine {
    /// The pools in `wanted`. `asked` and `jobs` are the command line's, `declared` the
    /// file's, `home` a folder on the disk that results go to.
    pub(crate) fn look(
        wanted: &BTreeSet<&str>,
        asked: &Pools,
        declared: &Pools,
        jobs: Option<usize>,
        home: &Path,
    ) -> Self {
        let mut machine = Self::default();
        for pool in wanted {
            let said = asked.get(*pool).or_else(|| declared.get(*pool)).copied();
            let size = match *pool {
                "cpu" => match (asked.get("cpu"), jobs) {
                    (None, Some(jobs)) => jobs as u64,
                    _ => said.unwrap_or(cores() as u64),
                },
                "net" => said.unwrap_or(NET),
                "memory" => said.or_else(memory).unwrap_or(u64::MAX),
                "disk" => said.or_else(|| disk(home)).unwrap_or(u64::MAX),
                "gpu" => {
                    let said = Said {
                        asked: asked.get("gpu").copied(),
                        declared: declared.get("gpu").copied(),
                        named: std::env::var(GPUS).ok(),
                        visible: std::env::var(VISIBLE).ok(),
                    };
                    machine.devices = devices(&said, found);
                    machine.devices.len() as u64
                }
                _ => said.unwrap_or(0),
            };
            machine.sizes.insert((*pool).to_owned(), size);
        }
        machine
    }
}

/// What people say about GPUs.
#[derive(Clone, Debug, Default)]
struct Said {
    /// `--pool gpu=2`.
    asked: Option<u64>,
    /// `pools: {gpu: 2}`.
    declared: Option<u64>,
    /// `TUNESMITH_GPUS`.
    named: Option<String>,
    /// `CUDA_VISIBLE_DEVICES`.
    visible: Option<String>,
}

/// The GPUs to hand out. A number that is larger than what was found counts: a person may
/// know of devices that cannot be seen from here; one larger than what was *named* does not.
fn devices(said: &Said, found: impl FnOnce() -> Vec<String>) -> Vec<String> {
    let visible = said.visible.as_deref().map(ids);
    let mut devices = match (&said.named, &visible) {
        (Some(named), _) => ids(named),
        (None, Some(visible)) => visible.clone(),
        (None, None) => found(),
    };
    if let Some(visible) = &visible {
        devices.retain(|id| visible.contains(id));
    }
    let wanted = match said.named {
        Some(_) => said.asked,
        None => said.asked.or(said.declared),
    };
    if let Some(wanted) = wanted {
        let more = said.named.is_none() && visible.is_none();
        let numbers = (0_u64..).map(|number| number.to_string());
        let new: Vec<_> = numbers
            .take(if more { wanted as usize } else { 0 })
            .filter(|id| !devices.contains(id))
            .collect();
        devices.extend(new);
        devices.truncate(wanted as usize);
    }
    devices
}

/// `0,2` or `GPU-8f3…,MIG-…`; as CUDA reads it, nothing after an id below zero counts.
fn ids(text: &str) -> Vec<String> {
    let ids = text.split(',').map(str::trim);
    let ids = ids.take_while(|id| !id.is_empty() && !id.starts_with('-') && *id != "none");
    let mut kept: Vec<String> = Vec::new();
    for id in ids {
        if kept.iter().all(|other| other != id) {
            kept.push(id.to_owned());
        }
    }
    kept
}

/// The machine's own GPUs: the driver's list, else (WSL2 has none) what `nvidia-smi` says.
fn found() -> Vec<String> {
    let listed = std::fs::read_dir("/proc/driver/nvidia/gpus").map(Iterator::count);
    let count = listed.ok().or_else(|| {
        let mut command = Command::new("nvidia-smi");
        command.arg("-L").stdin(Stdio::null()).stderr(Stdio::null());
        let said = command.output().ok().filter(|said| said.status.success())?;
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        Some(text.lines().filter(|line| line.starts_with("GPU ")).count())
    });
    (0..count.unwrap_or(0)).map(|id| id.to_string()).collect()
}

/// Bytes of memory: the machine's, or what its control group may use.
fn memory() -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let whole = total(&info)?;
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = limit_files(&groups).into_iter().filter_map(|file| {
        let text = std::fs::read_to_string(file).ok()?;
        text.trim().parse::<u64>().ok()
    });
    limits.chain([whole]).min()
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
fn total(info: &str) -> Option<u64> {
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// Where the memory limits of a control group and those above it stand (version 2, then 1).
fn limit_files(groups: &str) -> Vec<PathBuf> {
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"));
    let own = Path::new(own.unwrap_or("/").trim_start_matches('/')).to_owned();
    let root = Path::new("/sys/fs/cgroup");
    let mut files: Vec<_> = own
        .ancestors()
        .map(|group| root.join(group).join("memory.max"))
        .collect();
    files.push(root.join("memory/memory.limit_in_bytes"));
    files
}

/// Bytes free for this user on the disk of `folder`.
fn disk(folder: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(folder).ok()?;
    stat.f_bavail.checked_mul(stat.f_frsize)
}

/// Processor cores of this machine.
pub(crate) fn cores() -> usize {
    // Finding out reads a handful of files, and every stage asks.
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Said, devices, disk, limit_files, memory, total};

    fn given(said: Said, found: usize) -> String {
        devices(&said, || (0..found).map(|id| id.to_string()).collect()).join(",")
    }

    #[test]
    fn gpus_are_found_named_counted_and_limited() {
        let said = Said::default;
        assert_eq!(given(said(), 2), "0,1");
        assert_eq!(given(said(), 0), "");
        let named = Some("3, GPU-8f,3".to_owned());
        assert_eq!(given(Said { named, ..said() }, 2), "3,GPU-8f");
        let named = Some("none".to_owned());
        assert_eq!(given(Said { named, ..said() }, 2), "");
        let visible = Some("1,-1,2".to_owned());
        assert_eq!(given(Said { visible, ..said() }, 4), "1");
        let visible = Some(String::new());
        assert_eq!(given(Said { visible, ..said() }, 4), "");
        let asked = Some(1);
        assert_eq!(given(Said { asked, ..said() }, 4), "0");
        let asked = Some(3);
        assert_eq!(given(Said { asked, ..said() }, 1), "0,1,2");
    }

    #[test]
    fn the_command_line_wins_then_the_environment_then_the_file() {
        let said = Said {
            asked: Some(1),
            declared: Some(4),
            named: Some("5,6,7".to_owned()),
            visible: None,
        };
        assert_eq!(given(said.clone(), 8), "5");
        let said = Said {
            asked: None,
            ..said
        };
        assert_eq!(given(said.clone(), 8), "5,6,7");
        let said = Said {
            named: None,
            ..said
        };
        assert_eq!(given(said.clone(), 8), "0,1,2,3");
        let visible = Some("2,5".to_owned());
        let limited = Said { visible, ..said };
        assert_eq!(given(limited.clone(), 8), "2,5");
        let limited = Said {
            named: Some("5,6".to_owned()),
            asked: Some(9),
            ..limited
        };
        assert_eq!(given(limited, 8), "5");
    }

    #[test]
    fn memory_is_the_machines_or_the_groups() {
        let info = "MemFree: 1 kB\nMemTotal:       16 kB\n";
        assert_eq!(total(info), Some(16 << 10));
        assert_eq!(total("MemFree: 1 kB\n"), None);
        let files = limit_files("1:cpu:/x\n0::/a/b\n");
        let files: Vec<_> = files
            .iter()
            .map(|file| file.display().to_string())
            .collect();
        assert_eq!(
            files,
            [
                "/sys/fs/cgroup/a/b/memory.max",
                "/sys/fs/cgroup/a/memory.max",
                "/sys/fs/cgroup/memory.max",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes"
            ]
        );
        if cfg!(target_os = "linux") {
            assert!(memory().is_some_and(|bytes| bytes > 1 << 20));
        }
        assert!(disk(Path::new(".")).is_some_and(|bytes| bytes > 0));
    }
}
