//! `kill -9` at random moments of runs with parallel stages, a remote that is put to, a second
//! process and collections.
//!
//! After each: the store is whole, no lock is stale, what the last finished run locked is there
//! without running anything, and the next run ends as if nothing had happened. CI kills a few
//! times; `just crash` five hundred times (`CRASH_POINTS`, `CRASH_SEED`).

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::project::{Project, wait_until};
use super::remote::{assert_sound, started};

/// Stages side by side, folders, equal bytes in several, a join; a store that is always too big,
/// so that every run that ends collects.
const PIPELINE: &str = r#"
name: campaign
params: { n: 0 }
pools: { cpu: 4 }
store: { max_size: 3 kB }
REMOTE
stages:
  a: { run: "echo a ${n} > ${outputs.it}", outputs: { it: it.txt } }
  b: { run: "echo b ${n} > ${outputs.it}; echo same > same", outputs: { it: it.txt, same: same } }
  c: { run: "echo same > ${outputs.same}; seq ${n} > /dev/null", outputs: { same: same } }
  d: { run: "for i in 1 2 3 4 5 6 7 8 9; do cat ${inputs.x} > many/$i; done; echo $i > many/10", inputs: { x: a }, outputs: { it: many/ } }
  e: { run: "cat ${inputs.x} > ${outputs.it}; cat ${inputs.x} >> ${outputs.it}", inputs: { x: b }, outputs: { it: it.txt } }
  f: { run: "cat ${inputs.x} ${inputs.local} > ${outputs.it}", inputs: { x: [c, "b:same", e], local: ./words.txt }, outputs: { it: it.txt } }
  g: { run: "ls ${inputs.x} > ${outputs.it}; sed s/^/g/ ${inputs.f} >> ${outputs.it}", inputs: { x: d, f: f }, outputs: { it: it.txt } }
"#;
const STAGES: usize = 7;

/// Lines of `pipeline.yaml` that put a remote store into play.
const REMOTE: &str = "remote: { url: DIR/remote, push: true }\n";

/// What every run with `n` must leave in `out/`.
fn expected(n: u64) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let mut file = |path: &str, text: String| out.insert(format!("default/{path}"), text);
    file("a/it.txt", format!("a {n}\n"));
    file("b/it.txt", format!("b {n}\n"));
    file("b/same", "same\n".into());
    file("c/same", "same\n".into());
    for i in 1..=9 {
        file(&format!("d/many/{i}"), format!("a {n}\n"));
    }
    file("d/many/10", "9\n".into());
    file("e/it.txt", format!("b {n}\nb {n}\n"));
    let f = format!("same\nsame\nb {n}\nb {n}\nsome\nwords\n");
    file("f/it.txt", f.clone());
    let names = "1\n10\n2\n3\n4\n5\n6\n7\n8\n9\n";
    let told = f
        .lines()
        .fold(String::new(), |text, line| text + "g" + line + "\n");
    file("g/it.txt", format!("{names}{told}"));
    out
}

struct Campaign {
    project: Project,
    /// The `n` of the last run that ended.
    n: u64,
    chance: u64,
    told: Told,
}

/// Figures.
#[derive(Debug, Default)]
struct Told {
    points: usize,
    /// Processes that were killed while they ran.
    killed: usize,
    /// Points at which a stage had begun and the run had not ended.
    amid: usize,
    two_at_once: usize,
    collections: usize,
}

impl Campaign {
    fn new(seed: u64) -> Self {
        let project = Project::new(&PIPELINE.replace("REMOTE\n", REMOTE));
        project.write("words.txt", "some\nwords\n");
        Self {
            project,
            n: 0,
            chance: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            told: Told::default(),
        }
    }

    /// A number below `end` (xorshift64).
    fn below(&mut self, end: u64) -> u64 {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        self.chance % end
    }

    fn set(&self, from: u64, to: u64) {
        let (from, to) = (format!("n: {from} }}"), format!("n: {to} }}"));
        self.project.edit("pipeline.yaml", &from, &to);
    }

    fn start(&self, args: &[&str]) -> Child {
        let mut command = self.project.command(args);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("it starts")
    }

    /// Runs to the end; tells how many stages ran.
    fn finish(&self, n: u64, more: &[&str], moment: &str) -> usize {
        let said = self.project.ok(&[&["run", "--json"], more].concat());
        assert!(
            !said.contains("run::waiting"),
            "{moment}: a stale lock: {said}"
        );
        let files = self.project.files("out").into_iter();
        let found: BTreeMap<_, _> = files
            .map(|(path, bytes)| (path, String::from_utf8(bytes).expect("text")))
            .collect();
        assert_eq!(found, expected(n), "{moment}: other results");
        said.matches("\"stage-started\"").count()
    }

    /// One point: processes are started, killed at some moment, and everything is looked at.
    fn point(&mut self, span: Duration) {
        let (before, next) = (self.n, self.n + 1);
        self.set(before, next);
        let micros = span.as_micros() as u64;
        let moment = Duration::from_micros(self.below(micros + micros / 4));
        let mut running = vec![self.start(&["run"])];
        if self.below(3) == 0 {
            self.told.two_at_once += 1;
            running.push(self.start(&["run"]));
        }
        let began = Instant::now();
        if self.below(3) == 0 {
            self.told.collections += 1;
            std::thread::sleep(moment / 3);
            running.push(self.start(&["cache", "gc", "--days", "0"]));
        }
        std::thread::sleep(moment.saturating_sub(began.elapsed()));
        let mut amid = false;
        for child in &mut running {
            if child.try_wait().expect("it was started").is_none() {
                self.told.killed += 1;
                amid = true;
            }
            let _ended = child.kill();
        }
        for child in &mut running {
            child.wait().expect("it was started");
        }
        self.told.points += 1;
        self.told.amid += usize::from(amid);
        self.look(&format!("point {next}, after {moment:?}"));
    }

    fn look(&mut self, moment: &str) {
        let (before, next) = (self.n, self.n + 1);
        let home = self.project.at(".tunesmith");
        let store = cache::Store::open(&home).expect("it opens");
        let found = store.verify().expect("it can be read");
        assert_eq!(found.faults, [], "{moment}");
        for lock in fs::read_dir(home.join("store/locks"))
            .expect("a folder")
            .flatten()
        {
            let name = lock.file_name().into_string().expect("text");
            let key = name.parse().expect("locks are named by keys");
            let free = store.try_lock(&key).expect("a lock").is_some();
            assert!(free, "{moment}: the lock {name} is stale");
        }
        drop(store);
        // A stage's last breath may fall into the first sweep: its guard ends it soon.
        wait_until("what was unfinished is swept", || {
            drop(cache::Store::open(&home).expect("it opens"));
            let left = fs::read_dir(home.join("store/tmp"))
                .expect("a folder")
                .count();
            left == 0
        });
        let locked = self.project.read("pipeline.lock");
        // What the last finished run locked is there. (The killed one may have come to its end.)
        if !locked.contains(&cache::Digest::of(format!("b {next}\n").as_bytes()).hex()) {
            self.set(next, before);
            // By this store alone: the remote must not hide that it lost something.
            let ran = self.finish(before, &["--no-remote"], moment);
            assert_eq!(ran, 0, "{moment}: a locked result was lost");
            self.set(before, next);
        }
        assert_sound(&self.project.at("remote"));
        self.finish(next, &[], moment);
        self.n = next;
    }
}

fn number(name: &str, default: u64) -> u64 {
    let value = std::env::var(name).ok();
    value.map_or(default, |value| value.parse().expect("a number"))
}

#[test]
fn killed_at_random_moments() {
    let (points, seed) = (number("CRASH_POINTS", 12), number("CRASH_SEED", 1));
    let mut campaign = Campaign::new(seed);
    campaign.finish(0, &[], "at first");
    campaign.set(0, 1);
    let began = Instant::now();
    campaign.finish(1, &[], "to measure");
    campaign.n = 1;
    let span = began.elapsed();
    for _ in 0..points {
        campaign.point(span);
    }
    let said = campaign.project.ok(&[]);
    assert!(
        said.starts_with(&format!("up to date: {STAGES} stages")),
        "{said}"
    );
    campaign.project.verify();
    // What was put in all these runs serves somebody who has nothing.
    assert_sound(&campaign.project.at("remote"));
    let other = Project::new(&campaign.project.read("pipeline.yaml"));
    other.write("words.txt", "some\nwords\n");
    let said = other.ok(&["run", "--json"]);
    assert_eq!(started(&said), 0, "{said}");
    println!("seed {seed}, runs of {span:?}: {:?}", campaign.told);
}
