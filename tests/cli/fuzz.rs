//! Any text is read or refused with a place, never a panic: the pipeline file, the lock file.
//!
//! The seeds in `fuzz/corpus/` and everything that once broke a reader (`fuzz/found/`) are read by
//! every test run. `just fuzz 600` mutates them for so many seconds: bits, pieces of other seeds,
//! words of the grammar, deep nesting. The same functions are targets of `cargo fuzz` (`fuzz/`),
//! which sees coverage: `just fuzz-covered`.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tunesmith::config::{Faults, Overrides};
use tunesmith::graph;
use tunesmith::lock::Lock;
use tunesmith::report::faults::{Look, draw};

/// What a reader must make of any text; panics where it breaks its word.
type Target = fn(&str);

/// Name, function, words of the grammar.
const TARGETS: [(&str, Target, &[&str]); 2] = [
    (
        "pipeline",
        pipeline,
        &[
            "stages:",
            "params:",
            "profiles:",
            "inputs: {",
            "outputs: {",
            "uses: ",
            "run: ",
            "with: {",
            "gates:",
            "resources: {",
            "${",
            "}",
            "$${",
            "[",
            "]",
            "{",
            "&a ",
            "*a",
            "<<: *a",
            "!!str ",
            "? ",
            "| \n",
            ">-\n",
            "---\n",
            "...\n",
            "%YAML 1.2\n",
            "\"",
            "'",
            "\t",
            "\r\n",
            "\u{feff}",
            "\u{85}",
            "1e999",
            "0x",
            ".nan",
            "~",
            "\\x41",
            "#",
            ": ",
            "- ",
            "matrix:",
            "pick:",
            "default:",
            "pools:",
            "9999999999999999999999",
            "é",
            "🦀",
        ],
    ),
    (
        "lock",
        lock,
        &[
            "result.",
            "source.",
            "accepted.",
            "\"",
            "\\",
            " = ",
            ".",
            "#",
            "\n",
            "\r\n",
            "=======",
            "<<<<<<<",
            "\\u0041",
            "é",
            "🦀",
            "\u{feff}",
            "\t",
            "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
        ],
    ),
];

fn pipeline(text: &str) {
    let file = Path::new("pipeline.yaml");
    let registry = stages::registry::all();
    if let Err(faults) = graph::read(file, text.to_owned(), &Overrides::default(), registry) {
        told(&faults);
    }
}

fn lock(text: &str) {
    match Lock::parse(Path::new("pipeline.lock"), text) {
        Ok(lock) => {
            let written = lock.text();
            let again = Lock::parse(Path::new("pipeline.lock"), &written);
            assert_eq!(again.expect("its own text is read"), lock);
        }
        Err(faults) => told(&faults),
    }
}

/// Every fault has a place in the text, a message and a mend, and can be drawn.
fn told(faults: &Faults) {
    assert!(!faults.items.is_empty(), "refused without a fault");
    for fault in &faults.items {
        let span = fault
            .span
            .clone()
            .unwrap_or_else(|| panic!("no place: {fault:?}"));
        let also = fault.also.iter().map(|(span, _)| span.clone());
        for span in std::iter::once(span).chain(also) {
            assert!(
                faults.text.get(span).is_some(),
                "a place outside: {fault:?}"
            );
        }
        assert!(
            !fault.message.is_empty() && !fault.mend.is_empty(),
            "{fault:?}"
        );
    }
    let look = Look {
        colour: false,
        width: 80,
    };
    assert!(!draw(faults, look).is_empty());
}

/// Seeds of a target, and what was found.
fn seeds(target: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let mut seeds = Vec::new();
    for folder in ["corpus", "found"] {
        for entry in fs::read_dir(root.join(folder).join(target))
            .into_iter()
            .flatten()
        {
            let path = entry.expect("a seed").path();
            let bytes = fs::read(&path).expect("a seed can be read");
            seeds.push((path, String::from_utf8_lossy(&bytes).into_owned()));
        }
    }
    seeds.sort();
    seeds
}

#[test]
fn every_seed_is_read_or_refused_with_a_place() {
    for (name, target, _) in TARGETS {
        let seeds = seeds(name);
        assert!(seeds.len() >= 8, "the seeds of {name} are gone");
        for (path, text) in seeds {
            let done = catch_unwind(AssertUnwindSafe(|| target(&text)));
            assert!(done.is_ok(), "{}", path.display());
        }
    }
}

/// Numbers that look random: xorshift64*, so that a seed gives the same run everywhere.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(drawn).expect("31 bits") % end.max(1)
    }
}

fn mutated(seeds: &[(PathBuf, String)], words: &[&str], dice: &mut Dice) -> String {
    let mut bytes = seeds[dice.below(seeds.len())].1.clone().into_bytes();
    for _ in 0..=dice.below(6) {
        let at = dice.below(bytes.len() + 1);
        let end = (at + 1 + dice.below(12)).min(bytes.len());
        match dice.below(8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
            1 if at < bytes.len() => bytes[at] = dice.below(256) as u8,
            2 => drop(bytes.drain(at..end)),
            3 => {
                let piece = bytes[at..end].to_vec();
                let times = if dice.below(40) == 0 {
                    300
                } else {
                    1 + dice.below(3)
                };
                bytes.splice(at..at, piece.repeat(times));
            }
            4 => {
                let other = seeds[dice.below(seeds.len())].1.as_bytes();
                let from = dice.below(other.len() + 1);
                let to = (from + dice.below(80)).min(other.len());
                bytes.splice(at..at, other[from..to].iter().copied());
            }
            5 => bytes.truncate(at),
            _ => {
                let word = words[dice.below(words.len())].as_bytes();
                bytes.splice(at..at, word.iter().copied());
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `FUZZ_SECONDS` for each target, `FUZZ_SEED`, `FUZZ_TARGET`; in CI a moment of it.
#[test]
fn mutated_seeds_are_read_or_refused_with_a_place() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let time = Duration::from_secs(number("FUZZ_SECONDS").unwrap_or(1));
    let only = std::env::var("FUZZ_TARGET").ok();
    for (name, target, words) in TARGETS {
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let seeds = seeds(name);
        let mut dice = Dice(number("FUZZ_SEED").unwrap_or(1).max(1));
        let began = Instant::now();
        let (mut tried, mut longest) = (0_u64, Duration::ZERO);
        while began.elapsed() < time {
            let text = mutated(&seeds, words, &mut dice);
            let start = Instant::now();
            if catch_unwind(AssertUnwindSafe(|| target(&text))).is_err() {
                let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("found");
                fs::create_dir_all(&folder).expect("a folder for it");
                let file = folder.join(format!("{name}-{tried}"));
                fs::write(&file, &text).expect("it is kept");
                panic!(
                    "a text broke the reader of {name}: kept as {}",
                    file.display()
                );
            }
            tried += 1;
            longest = longest.max(start.elapsed());
        }
        println!("{name}: {tried} texts in {time:?}, the slowest took {longest:?}");
    }
}
