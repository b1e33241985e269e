//! `kill -9` at random moments: of runs with parallel stages, a remote that is put to, a second
//! process and a collection beside them; of a collection that has something to drop; of a second
//! checkout that fetches.
//!
//! After each: the store is whole, no lock is stale, what the last finished run locked is there
//! without running anything, what is at the remote is whole, and the next run ends as if nothing
//! had happened. CI kills a few times; `just crash` five hundred times (`CRASH_POINTS`, `CRASH_SEED`).

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
    /// A checkout that has what it needs from the remote.
    other: Project,
    /// The `n` of the last run that ended.
    n: u64,
    chance: u64,
    spans: Spans,
    told: Told,
}

/// How long things take when nobody kills them.
#[derive(Clone, Copy, Debug, Default)]
struct Spans {
    run: Duration,
    collection: Duration,
    fetch: Duration,
}

/// Figures.
#[derive(Debug, Default)]
struct Told {
    points: usize,
    /// Processes that were killed while they ran.
    killed: usize,
    runs: Kind,
    /// Of these, with a second run at once, and with a collection at once.
    two_at_once: usize,
    gc_beside: usize,
    /// A collection alone, with something to drop.
    collections: Kind,
    /// A checkout with an empty store.
    fetches: Kind,
    /// Runs between the points whose own collection dropped something.
    dropped: usize,
}

/// Points of one kind, and those at which something was killed before it ended.
#[derive(Clone, Copy, Debug, Default)]
struct Kind {
    points: usize,
    amid: usize,
}

impl Campaign {
    fn new(seed: u64) -> Self {
        let project = Project::new(&PIPELINE.replace("REMOTE\n", REMOTE));
        project.write("words.txt", "some\nwords\n");
        let other = Project::new(&project.read("pipeline.yaml"));
        other.write("words.txt", "some\nwords\n");
        Self {
            project,
            other,
            n: 0,
            chance: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            spans: Spans::default(),
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

    /// Runs to the end; tells how many stages ran.
    fn finish(&mut self, n: u64, more: &[&str], moment: &str) -> usize {
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
        self.told.dropped += usize::from(said.contains("gc::dropped"));
        started(&said)
    }

    /// Runs of `n` that nothing needs afterwards: what a collection drops.
    fn leave(&self, n: u64, before: u64) {
        let (all, kept) = ("max_size: 3 kB }", "max_size: 3 kB, gc: false }");
        self.project.edit("pipeline.yaml", all, kept);
        for n in [n, before] {
            let set = format!("n={n}");
            self.project.ok(&["run", "--no-remote", "--set", &set]);
        }
        self.project.edit("pipeline.yaml", kept, all);
    }

    /// The other checkout as if just cloned, at the last `n` that ended.
    fn check_out(&self, next: u64) {
        for folder in [".tunesmith", "out"] {
            // At first there is none.
            let _none = fs::remove_dir_all(self.other.at(folder));
        }
        let text = self.project.read("pipeline.yaml");
        let text = text.replace(&format!("n: {next} }}"), &format!("n: {} }}", self.n));
        self.other.write("pipeline.yaml", &text);
    }

    /// What the other checkout fetches, to the end.
    fn fetch(&self, moment: &str) {
        let said = self.other.ok(&["run", "--json"]);
        assert_eq!(
            started(&said),
            0,
            "{moment}: made instead of fetched: {said}"
        );
        let shown = self.other.read("out/default/g/it.txt");
        assert_eq!(shown, expected(self.n)["default/g/it.txt"], "{moment}");
    }

    /// Looks how long things take.
    fn measure(&mut self) {
        self.finish(0, &[], "at first");
        self.set(0, 1);
        let began = Instant::now();
        self.finish(1, &[], "to measure");
        self.spans.run = began.elapsed();
        self.n = 1;
        self.leave(1_000_000, 1);
        let began = Instant::now();
        self.project.ok(&["cache", "gc", "--days", "0"]);
        self.spans.collection = began.elapsed();
        self.check_out(1);
        let began = Instant::now();
        self.fetch("to measure");
        self.spans.fetch = began.elapsed();
    }

    fn points(&mut self, points: u64) {
        for _ in 0..points {
            let (before, next) = (self.n, self.n + 1);
            self.set(before, next);
            match self.below(6) {
                0 => self.amid_a_collection(next),
                1 => self.amid_a_fetch(next),
                _ => self.amid_runs(next),
            }
            self.told.points += 1;
        }
    }

    /// Some moment before a little after the end.
    fn moment(&mut self, span: Duration) -> Duration {
        let micros = span.as_micros() as u64;
        Duration::from_micros(self.below(micros + micros / 4))
    }

    /// Kills what still runs; whether anything did.
    fn kill(&mut self, running: Vec<Child>) -> bool {
        let before = self.told.killed;
        let mut running = running;
        for child in &mut running {
            let runs = child.try_wait().expect("it was started").is_none();
            self.told.killed += usize::from(runs);
            let _ended = child.kill();
        }
        for child in &mut running {
            child.wait().expect("it was started");
        }
        self.told.killed > before
    }

    fn amid_a_collection(&mut self, next: u64) {
        self.leave(1_000_000 + next, self.n);
        let moment = self.moment(self.spans.collection);
        let running = start(&self.project, &["cache", "gc", "--days", "0"]);
        std::thread::sleep(moment);
        let amid = self.kill(vec![running]);
        self.told.collections.count(amid);
        self.look(&format!("point {next}, a collection, after {moment:?}"));
    }

    fn amid_a_fetch(&mut self, next: u64) {
        self.check_out(next);
        let moment = self.moment(self.spans.fetch);
        let running = start(&self.other, &["run"]);
        std::thread::sleep(moment);
        let amid = self.kill(vec![running]);
        self.told.fetches.count(amid);
        let told = format!("point {next}, a fetch, after {moment:?}");
        assert_whole(&self.other, &told);
        self.fetch(&told);
        self.look(&told);
    }

    fn amid_runs(&mut self, next: u64) {
        let moment = self.moment(self.spans.run);
        let mut running = vec![start(&self.project, &["run"])];
        if self.below(3) == 0 {
            self.told.two_at_once += 1;
            running.push(start(&self.project, &["run"]));
        }
        let began = Instant::now();
        if self.below(3) == 0 {
            self.told.gc_beside += 1;
            std::thread::sleep(moment / 3);
            running.push(start(&self.project, &["cache", "gc", "--days", "0"]));
        }
        std::thread::sleep(moment.saturating_sub(began.elapsed()));
        let amid = self.kill(running);
        self.told.runs.count(amid);
        self.look(&format!("point {next}, after {moment:?}"));
    }

    fn look(&mut self, moment: &str) {
        let (before, next) = (self.n, self.n + 1);
        assert_whole(&self.project, moment);
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

impl Kind {
    fn count(&mut self, amid: bool) {
        self.points += 1;
        self.amid += usize::from(amid);
    }
}

fn start(project: &Project, args: &[&str]) -> Child {
    let mut command = project.command(args);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("it starts")
}

/// Every blob and record is whole, every lock is free, nothing unfinished stays.
fn assert_whole(project: &Project, moment: &str) {
    let home = project.at(".tunesmith");
    let store = cache::Store::open(&home).expect("it opens");
    let found = store.verify().expect("it can be read");
    assert_eq!(found.faults, [], "{moment}");
    let locks = fs::read_dir(home.join("store/locks")).expect("a folder");
    for lock in locks.flatten() {
        let name = lock.file_name().into_string().expect("text");
        let key = name.parse().expect("locks are named by keys");
        let free = store.try_lock(&key).expect("a lock").is_some();
        assert!(free, "{moment}: the lock {name} is stale");
    }
    drop(store);
    // A stage's last breath may fall into the first sweep: its guard ends it soon.
    wait_until("what was unfinished is swept", || {
        drop(cache::Store::open(&home).expect("it opens"));
        let left = fs::read_dir(home.join("store/tmp")).expect("a folder");
        left.count() == 0
    });
}

fn number(name: &str, default: u64) -> u64 {
    let value = std::env::var(name).ok();
    value.map_or(default, |value| value.parse().expect("a number"))
}

#[test]
fn killed_at_random_moments() {
    let (points, seed) = (number("CRASH_POINTS", 12), number("CRASH_SEED", 1));
    let mut campaign = Campaign::new(seed);
    campaign.measure();
    campaign.points(points);
    let said = campaign.project.ok(&[]);
    assert!(
        said.starts_with(&format!("up to date: {STAGES} stages")),
        "{said}"
    );
    campaign.project.verify();
    // What was put in all these runs serves somebody who has nothing.
    assert_sound(&campaign.project.at("remote"));
    campaign.check_out(campaign.n);
    campaign.fetch("at the end");
    let (told, spans) = (&campaign.told, campaign.spans);
    println!("seed {seed}, {spans:?}: {told:#?}");
    if points >= 100 {
        // All of it was in play.
        for kind in [told.runs, told.collections, told.fetches] {
            assert!(kind.amid * 4 > kind.points, "killed too late: {told:?}");
        }
        assert!(told.dropped > 0 && told.two_at_once > 0 && told.gc_beside > 0);
    }
}
