//! What a stage takes while it runs: slots of named pools, memory and disk. In no key.
//!
//! Promises: a pool is one that every machine has (`cpu`, `gpu`, `net`), one that the file
//! declares under `pools`, or `memory` and `disk`, whose claims are sizes; anything else is a
//! fault with its place. Must not know: what this machine has.

use std::collections::BTreeMap;

use stages::Pool;

use super::fault::Fault;
use super::node::{Entry, Node};
use super::pipeline::StageSpec;
use super::template::Scope;
use super::{limits, section, suggest};

/// The pools that every machine has, by name.
pub(crate) const POOLS: [(&str, Pool); 3] =
    [("cpu", Pool::Cpu), ("gpu", Pool::Gpu), ("net", Pool::Net)];

/// The pools whose claims are sizes in bytes.
pub(crate) const SIZES: [&str; 2] = ["memory", "disk"];

/// The most slots of one pool.
pub(crate) const MOST_SLOTS: u64 = 4096;

/// Stands for every slot of a pool; the scheduler takes what the machine has.
pub(crate) const WHOLE_POOL: u64 = u64::MAX;

/// Pool names with their sizes, in bytes for `memory` and `disk`.
pub type Pools = BTreeMap<String, u64>;

/// What a stage takes while it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resources {
    /// Pool and how much of it (slots, or bytes), by name; each pool once.
    pub claims: Vec<(String, u64)>,
}

impl Resources {
    /// What a stage takes where nothing is written.
    pub(crate) fn own(pool: Pool, whole: bool) -> Self {
        let slots = if whole { WHOLE_POOL } else { 1 };
        Self {
            claims: vec![(name(pool).to_owned(), slots)],
        }
    }

    /// How much of a pool it takes.
    pub fn of(&self, pool: &str) -> u64 {
        let claim = self.claims.iter().find(|(name, _)| name == pool);
        claim.map_or(0, |(_, claim)| *claim)
    }
}

/// Whether a pool is measured in bytes.
pub(crate) fn is_size(pool: &str) -> bool {
    SIZES.contains(&pool)
}

fn name(pool: Pool) -> &'static str {
    let known = POOLS.iter().find(|(_, known)| *known == pool);
    known.expect("every pool has a name").0
}

/// `pools: {gpu: 2, license: 1, memory: 48GiB}`: sizes that win over the machine's.
pub(crate) fn pools(root: &[Entry], scope: &Scope<'_>, faults: &mut Vec<Fault>) -> Pools {
    let Some(entry) = section::get(root, "pools") else {
        return Pools::new();
    };
    let mut found = Pools::new();
    for entry in section::map(&entry.value, "pools", faults) {
        if !is_pool_name(&entry.key) {
            let message = format!("`{}` is no name of a pool", entry.key);
            let fault = Fault::at(&entry.key_span, "config::bad-name", message);
            faults.push(fault.mend("use letters, digits, `-` and `_`"));
        }
        let size = amount(&entry.key, &entry.value, scope, faults);
        found.extend(size.map(|size| (entry.key.clone(), size)));
    }
    found
}

fn is_pool_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(plain)
}

/// `resources: {gpu: 1, memory: 8GiB}`; `own`, what the stage itself asks for, where no slots
/// are written.
pub(crate) fn resources(
    entry: Option<&Entry>,
    own: Resources,
    pools: &Pools,
    scope: &Scope<'_>,
    faults: &mut Vec<Fault>,
) -> Resources {
    let Some(entry) = entry else { return own };
    let mut slots = Vec::new();
    let mut sizes = Vec::new();
    for entry in section::map(&entry.value, "resources", faults) {
        let name = entry.key.as_str();
        let known = || POOLS.iter().map(|(name, _)| *name).chain(SIZES);
        if !known().any(|known| known == name) && !pools.contains_key(name) {
            let message = format!("there is no pool `{name}`");
            let fault = Fault::at(&entry.key_span, "config::unknown-pool", message);
            let known = known().chain(pools.keys().map(String::as_str));
            let mend = match suggest::nearest(name, known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("declare it: `pools: {{ {name}: 1 }}`"),
            };
            faults.push(fault.label("unknown").mend(mend));
            continue;
        }
        let claims = if is_size(name) {
            &mut sizes
        } else {
            &mut slots
        };
        claims.extend(
            amount(name, &entry.value, scope, faults).map(|claim| (name.to_owned(), claim)),
        );
    }
    let mut claims = if slots.is_empty() { own.claims } else { slots };
    claims.extend(sizes);
    claims.sort();
    Resources { claims }
}

fn amount(pool: &str, node: &Node, scope: &Scope<'_>, faults: &mut Vec<Fault>) -> Option<u64> {
    if !is_size(pool) {
        return limits::whole(node, pool, (1, MOST_SLOTS), scope, faults);
    }
    let value = scope.value(node, faults)?;
    let size = value.as_str().and_then(size);
    if size.is_none() {
        let fault = section::wrong_value(&node.span, pool, "a size with a unit", &value);
        faults.push(fault.mend("write `8GiB`, `500MB` or `1.5TB`"));
    }
    size
}

/// `8GiB`, `1.5 TB`, `500MB`: powers of 1000 without the `i`, of 1024 with it. At least one
/// byte.
pub(crate) fn size(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 9] = [
        ("B", 1),
        ("kB", 1000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("TB", 1_000_000_000_000),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("TiB", 1 << 40),
    ];
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let number: f64 = text[..digits].parse().ok()?;
    let unit = text[digits..].trim_start();
    let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let bytes = number * *unit as f64;
    // 2^60 bytes and fractions of a byte are slips.
    ((1.0..1.2e18).contains(&bytes)).then_some(bytes as u64)
}

/// Bytes as this room reads them: `8 GiB`, `1.5 TiB`.
pub(crate) fn said(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    let text = format!("{value:.1}");
    format!("{} {}", text.trim_end_matches(".0"), units[unit])
}

/// A claim that its declared pool can never meet would wait for ever.
pub(crate) fn too_large(stages: &[StageSpec], pools: &Pools, faults: &mut Vec<Fault>) {
    for stage in stages {
        for (pool, claim) in &stage.resources.claims {
            let Some(size) = pools.get(pool).filter(|size| *size < claim) else {
                continue;
            };
            if *claim == WHOLE_POOL {
                continue;
            }
            let id = &stage.id;
            let message = if is_size(pool) {
                format!(
                    "stage `{id}` wants {} of {pool}, a pool of {}",
                    said(*claim),
                    said(*size)
                )
            } else {
                format!("stage `{id}` wants {claim} slots of a pool of {size}")
            };
            let fault = Fault::at(&stage.place("resources"), "config::resources", message);
            faults.push(fault.mend("enlarge the pool under `pools`, or ask for less"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{said, size};

    #[test]
    fn sizes_carry_their_unit() {
        assert_eq!(size("8GiB"), Some(8 << 30));
        assert_eq!(size(" 1.5 TB "), Some(1_500_000_000_000));
        assert_eq!(size("500MB"), Some(500_000_000));
        assert_eq!(size("1B"), Some(1));
        assert_eq!(said(8 << 30), "8 GiB");
        assert_eq!(said(1_500_000), "1.4 MiB");
        for bad in [
            "", "8", "GiB", "8G", "8gib", "-1GB", "0MB", "1.2.3GB", "9e9TiB",
        ] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }
}
