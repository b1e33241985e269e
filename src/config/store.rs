//! `store:`, in `pipeline.yaml` and in the user's own file: where the store is, and how much of
//! what nobody needs may stay there.
//!
//! ```yaml
//! store: { path: ~/tunesmith, max_size: 100 GB, max_age: 30d, gc: true }
//! store: ../shared            # the same as { path: ../shared }
//! ```
//!
//! Promises: in no key. What the pipeline says wins over what the user's file says, field by field.
//! Must not know: what a store is.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::fault::Fault;
use super::limits::duration;
use super::node::{Entry, Kind};
use super::section;

/// Keys of the section.
const KEYS: [&str; 4] = ["path", "max_size", "max_age", "gc"];

/// What is said about the store; `None` where nothing is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreSpec {
    /// `path:` a folder that several checkouts share.
    pub path: Option<PathBuf>,
    /// `max_size:` bytes above which the longest unused results go.
    pub max_bytes: Option<u64>,
    /// `max_age:` what was not used for so long goes.
    pub max_age: Option<Duration>,
    /// `gc:` whether runs collect by themselves.
    pub gc: Option<bool>,
}

impl StoreSpec {
    /// `50 GB` as bytes.
    pub fn size(text: &str) -> Option<u64> {
        size(text)
    }

    /// This, and `other` where this says nothing.
    pub fn or(self, other: Self) -> Self {
        Self {
            path: self.path.or(other.path),
            max_bytes: self.max_bytes.or(other.max_bytes),
            max_age: self.max_age.or(other.max_age),
            gc: self.gc.or(other.gc),
        }
    }
}

/// The section; a relative path begins in `folder`, `~/` in `home`.
pub(crate) fn store(
    entry: Option<&Entry>,
    folder: &Path,
    home: Option<&str>,
    faults: &mut Vec<Fault>,
) -> StoreSpec {
    let mut found = StoreSpec::default();
    let Some(entry) = entry else { return found };
    if let Some(path) = entry.value.text() {
        found.path = Some(place(path, folder, home));
        return found;
    }
    let entries = section::map(&entry.value, "store", faults);
    section::only(entries, &KEYS, "`store`", faults);
    if let Some(path) = section::get(entries, "path") {
        let path = section::text(&path.value, "path", faults);
        found.path = path.map(|path| place(path, folder, home));
    }
    found.max_bytes = measure(entries, "max_size", "a size, `50 GB`", size, faults);
    found.max_age = measure(
        entries,
        "max_age",
        "a time, `30d` or `12h`",
        duration,
        faults,
    );
    if let Some(gc) = section::get(entries, "gc") {
        match gc.value.kind {
            Kind::Bool(on) => found.gc = Some(on),
            _ => faults.push(section::wrong(
                &gc.value,
                "gc",
                "true or false",
                "write `gc: false` to collect only by `tunesmith cache gc`",
            )),
        }
    }
    found
}

fn place(path: &str, folder: &Path, home: Option<&str>) -> PathBuf {
    match (path.strip_prefix("~/"), home) {
        (Some(below), Some(home)) => Path::new(home).join(below),
        _ => folder.join(path),
    }
}

/// A field whose text has a unit.
fn measure<T>(
    entries: &[Entry],
    name: &str,
    takes: &str,
    read: impl Fn(&str) -> Option<T>,
    faults: &mut Vec<Fault>,
) -> Option<T> {
    let value = &section::get(entries, name)?.value;
    let found = value.text().and_then(read);
    if found.is_none() {
        faults.push(section::wrong(
            value,
            name,
            takes,
            "write a number and its unit",
        ));
    }
    found
}

/// `50 GB`, `1.5TB`, `512 MiB`: bytes.
fn size(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let number: f64 = text[..end].parse().ok()?;
    let unit: f64 = match text[end..].trim() {
        "B" => 1.0,
        "kB" | "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "TB" => 1e12,
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        "GiB" => 1024.0 * 1024.0 * 1024.0,
        "TiB" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    let bytes = number * unit;
    (0.0..1e18).contains(&bytes).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::super::fault::Faults;
    use super::super::parse;
    use super::*;

    #[test]
    fn sizes_carry_their_unit() {
        assert_eq!(size("50 GB"), Some(50_000_000_000));
        assert_eq!(size("1.5kB"), Some(1500));
        assert_eq!(size("2 GiB"), Some(2 << 30));
        assert_eq!(size("0 B"), Some(0));
        for bad in ["", "50", "GB", "-1 GB", "1 Gb", "1..5 GB", "1e400 GB"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }

    fn read(text: &str) -> (StoreSpec, String) {
        let (tree, mut faults) = parse::parse(text);
        let tree = tree.expect("it parses");
        let entry = section::get(tree.entries().expect("a map"), "store");
        let found = store(entry, Path::new("/project"), Some("/home/u"), &mut faults);
        let told = Faults::new(Path::new("x.yaml"), text, faults).to_string();
        (found, told)
    }

    #[test]
    fn a_path_alone_is_enough_and_bounds_have_units() {
        let path = |text| read(text).0.path;
        assert_eq!(path("store: ../s"), Some(PathBuf::from("/project/../s")));
        assert_eq!(path("store: ~/s"), Some(PathBuf::from("/home/u/s")));
        assert_eq!(path("store: {path: /s}"), Some(PathBuf::from("/s")));
        let (found, told) = read("store: {max_size: 2 GB, max_age: 7d, gc: false}");
        assert_eq!(told, "");
        let wanted = StoreSpec {
            path: None,
            max_bytes: Some(2_000_000_000),
            max_age: Some(Duration::from_hours(7 * 24)),
            gc: Some(false),
        };
        assert_eq!(found, wanted);
    }

    #[test]
    fn every_fault_has_its_place() {
        insta::assert_snapshot!(read("store: {max_size: 2, max_age: soon, gc: sometimes, maxsize: 1}").1, @r"
        x.yaml:1:19: config::wrong-type: `max_size` takes a size, `50 GB`, not the number `2`
        x.yaml:1:31: config::wrong-type: `max_age` takes a time, `30d` or `12h`, not the text `soon`
        x.yaml:1:41: config::wrong-type: `gc` takes true or false, not the text `sometimes`
        x.yaml:1:52: config::unknown-key: unknown key `maxsize` in `store`
        ");
    }

    #[test]
    fn the_pipeline_wins_field_by_field() {
        let pipeline = read("store: {max_age: 1d}").0;
        let user = read("store: {max_age: 2d, gc: false}").0;
        let both = pipeline.or(user);
        assert_eq!(both.max_age, Some(Duration::from_hours(24)));
        assert_eq!(both.gc, Some(false));
    }
}
