//! Plans of real pipeline files over a real store; running is played by a function that makes
//! outputs from a key's own parts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use cache::{Digest, KeyParts, Made, Record, Store};
use proptest::prelude::*;
use stages::{Context, Field, FieldType, Outcome, Params, Port, Product, Stage, StageError};

use super::{Decision, Options, PlanError, Planner, Reason, Settled, key, preview};
use crate::config::{Overrides, Pipeline};
use crate::graph::{self, Graph};
use crate::lock::Lock;

struct Toy;
struct Pull;

const ROWS: &[Product] = &[Product {
    name: "rows",
    path: "rows.jsonl",
    about: "rows",
}];

impl Stage for Toy {
    fn kind(&self) -> &'static str {
        "toy"
    }
    fn about(&self) -> &'static str {
        "a toy"
    }
    fn version(&self) -> u32 {
        3
    }
    fn shared(&self) -> &'static [(&'static str, u32)] {
        &[("tokenizer", 2), ("canonical", 1)]
    }
    fn fields(&self) -> &'static [Field] {
        &[
            Field {
                name: "lr",
                kind: FieldType::Float(0.0, 1.0),
                default: Some("0.1"),
                about: "rate",
            },
            Field {
                name: "more",
                kind: FieldType::Any,
                default: Some("null"),
                about: "anything",
            },
        ]
    }
    fn inputs(&self) -> &'static [Port] {
        &[Port {
            name: "rows",
            required: true,
            many: true,
            about: "rows",
        }]
    }
    fn products(&self) -> &'static [Product] {
        ROWS
    }
    fn run(&self, _: &Params, _: &Context<'_>) -> Result<Outcome, StageError> {
        unreachable!("plans never run a stage")
    }
}

impl Stage for Pull {
    fn kind(&self) -> &'static str {
        "pull"
    }
    fn about(&self) -> &'static str {
        "pulls"
    }
    fn version(&self) -> u32 {
        1
    }
    fn fields(&self) -> &'static [Field] {
        &[]
    }
    fn inputs(&self) -> &'static [Port] {
        &[]
    }
    fn products(&self) -> &'static [Product] {
        ROWS
    }
    fn source(&self, _: &Params) -> Option<String> {
        Some("hub:o/d@main".to_owned())
    }
    fn run(&self, _: &Params, _: &Context<'_>) -> Result<Outcome, StageError> {
        unreachable!("plans never run a stage")
    }
}

/// A project folder.
struct Project {
    dir: tempfile::TempDir,
    lock: Lock,
    /// Stages whose bytes depend on nothing.
    constant: BTreeSet<String>,
}

impl Project {
    fn new(yaml: &str) -> Self {
        let project = Self {
            dir: tempfile::tempdir().unwrap(),
            lock: Lock::default(),
            constant: BTreeSet::new(),
        };
        project.write("data/a.jsonl", "a");
        project.write("data/b.jsonl", "b");
        project.write("pipeline.yaml", yaml);
        project
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn store(&self) -> Store {
        Store::open(&self.dir.path().join(".tunesmith")).unwrap()
    }

    fn open(&self) -> (Pipeline, Graph) {
        let file = self.dir.path().join("pipeline.yaml");
        let registry: [&'static dyn Stage; 2] = [&Toy, &Pull];
        graph::open(&file, &Overrides::default(), &registry)
            .unwrap_or_else(|faults| panic!("{faults}"))
    }

    /// Plays a whole run and tells what happened to each stage, in order.
    fn run(&self, options: &Options) -> Vec<(String, Happened)> {
        self.try_run(options).unwrap()
    }

    fn try_run(&self, options: &Options) -> Result<Vec<(String, Happened)>, PlanError> {
        let (pipeline, graph) = self.open();
        let store = self.store();
        let mut planner = Planner::new(&pipeline, &store, &self.lock, options.clone());
        let mut settled = Settled::new();
        let mut told = Vec::new();
        for &stage in graph.order() {
            let id = pipeline.stages[stage].id.clone();
            let happened = match planner.decide(stage, &settled)? {
                Decision::Fresh { record, restored } => {
                    planner.settle(stage, &record)?;
                    settled.insert(stage, record.outputs);
                    if restored {
                        Happened::Restored
                    } else {
                        Happened::Fresh
                    }
                }
                Decision::Run { parts, reasons, .. } => {
                    let record = self.play(&store, &id, &pipeline, stage, &parts);
                    planner.settle(stage, &record)?;
                    settled.insert(stage, record.outputs);
                    Happened::Ran(reasons)
                }
                Decision::Remote { .. } => unreachable!("there is no remote"),
                Decision::Waiting { .. } => Happened::Waited,
                Decision::Ready { done, .. } => Happened::Ready(done),
            };
            told.push((id, happened));
        }
        Ok(told)
    }

    /// Makes each output out of the key's parts, or out of nothing.
    fn play(
        &self,
        store: &Store,
        id: &str,
        pipeline: &Pipeline,
        stage: usize,
        parts: &KeyParts,
    ) -> Record {
        let scratch = store.scratch().unwrap();
        let mut outputs = BTreeMap::new();
        for (name, _) in pipeline.stages[stage].products() {
            let path = scratch.path().join(name);
            let text = if self.constant.contains(id) {
                format!("{id} {name}")
            } else {
                format!("{id} {name} {}", parts.digest())
            };
            fs::write(&path, text).unwrap();
            outputs.insert(name.to_owned(), store.adopt(&path).unwrap());
        }
        let record = Record {
            key: parts.digest(),
            parts: parts.clone(),
            outputs,
            outcome: serde_json::Value::Null,
            made: Made::default(),
        };
        store.commit(&record).unwrap();
        record
    }

    fn parts(&self, id: &str) -> KeyParts {
        let (pipeline, graph) = self.open();
        let store = self.store();
        let options = Options {
            forced: BTreeSet::from([id.to_owned()]),
            ..Options::default()
        };
        let mut planner = Planner::new(&pipeline, &store, &self.lock, options);
        let stage = graph.find(id).unwrap();
        match planner.decide(stage, &Settled::new()).unwrap() {
            Decision::Run { parts, .. } => parts,
            other => panic!("{other:?}"),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Happened {
    Fresh,
    Restored,
    Ran(Vec<Reason>),
    Waited,
    Ready(bool),
}

fn ran(told: &[(String, Happened)]) -> Vec<&str> {
    let ran = told
        .iter()
        .filter(|(_, happened)| matches!(happened, Happened::Ran(_)));
    ran.map(|(id, _)| &**id).collect()
}

fn with(told: &[(String, Happened)], wanted: &Happened) -> Vec<String> {
    let such = told.iter().filter(|(_, happened)| happened == wanted);
    such.map(|(id, _)| id.clone()).collect()
}

fn sentences(told: &[(String, Happened)], id: &str) -> Vec<String> {
    match told.iter().find(|(name, _)| name == id) {
        Some((_, Happened::Ran(reasons))) => reasons.iter().map(ToString::to_string).collect(),
        other => panic!("`{id}` did not run: {other:?}"),
    }
}

fn listed(parts: &KeyParts) -> String {
    let lines: Vec<_> = parts
        .iter()
        .map(|(name, value)| format!("{name} = {value}"))
        .collect();
    lines.join("\n")
}

const CHAIN: &str = "\
name: chain
stages:
  rows:
    run: cat ${inputs.a} > ${outputs.out}
    inputs: { a: ./data/a.jsonl }
    outputs: { out: out.jsonl }
  train:
    uses: toy
    inputs: { rows: [rows, data/b.jsonl] }
    with: { lr: 0.2 }
  eval:
    uses: toy
    inputs: { rows: train }
    gates: { score: '>= 0.5' }
";

#[test]
fn the_parts_of_a_key_are_pinned() {
    let project = Project::new(
        "name: x\nseed: 7\nstages:\n  t:\n    uses: toy\n    inputs: { rows: [data/a.jsonl, ./data/b.jsonl] }\n    \
         with: { lr: 2e-1, more: { b: 1.0, a: [x] } }\n    env: { MODE: fast }\n",
    );
    let parts = project.parts("t");
    let text = listed(&parts);
    insta::assert_snapshot!(text, @r#"
    key = 1
    kind = toy
    version = 3
    shared.canonical = 1
    shared.tokenizer = 2
    with.lr = 0.2
    with.more = {"a":["x"],"b":1}
    seed = 7
    input.rows.0 = 17762fddd969a453925d65717ac3eea21320b66b54342fde15128d6caf21215f
    input.rows.0.name = a.jsonl
    input.rows.1 = 10e5cf3d3c8a4f9f3468c8cc58eea84892a22fdadbc1acb22410190044c1d553
    input.rows.1.name = b.jsonl
    env.MODE = fast
    "#);
    insta::assert_snapshot!(parts.digest().to_string(), @"8683f9053e85c42c37ed907b295200560de06038adbe9ac272d161ea18e0fb56");

    let project = Project::new(
        "name: x\nstages:\n  s:\n    run: python ${inputs.script} > ${outputs.b}\n    inputs: { script: ./data/a.jsonl }\n    \
         outputs: { b: b.txt, a: a/ }\n",
    );
    let parts = project.parts("s");
    let text = listed(&parts);
    insta::assert_snapshot!(text, @r"
    key = 1
    kind = shell
    version = 1
    command = python ${inputs.script} > ${outputs.b}
    output.a = a/
    output.b = b.txt
    seed = 0
    input.script = 17762fddd969a453925d65717ac3eea21320b66b54342fde15128d6caf21215f
    input.script.name = data/a.jsonl
    ");
    insta::assert_snapshot!(parts.digest().to_string(), @r"bd4a848e2930567f99a708e8a50ed88ac31513e9ec322028e57550001db356ec");
}

#[test]
fn a_second_run_does_nothing() {
    let project = Project::new(CHAIN);
    let first = project.run(&Options::default());
    assert_eq!(ran(&first), ["rows", "train", "eval"]);
    assert_eq!(sentences(&first, "train"), ["it has no result yet"]);
    let second = project.run(&Options::default());
    assert_eq!(with(&second, &Happened::Fresh).len(), 3, "{second:?}");
}

#[test]
fn spelling_gates_and_defaults_change_nothing() {
    let project = Project::new(CHAIN);
    project.run(&Options::default());
    let respelled = "\
# A comment.
stages:
  eval:
    gates: { score: '>= 0.9' }
    with: { lr: 1.0e-1, more: null }
    inputs: { rows: 'train:rows' }
    retries: 3
    timeout: 10m
    uses: \"toy\"
  train: { with: { lr: 20e-2 }, inputs: { rows: [\"rows:out\", ./data/b.jsonl] }, uses: toy }
  rows:
    outputs: { out: out.jsonl }
    inputs: { a: data/a.jsonl }
    run: 'cat ${inputs.a} > ${outputs.out}'
name: other name
";
    project.write("pipeline.yaml", respelled);
    let told = project.run(&Options::default());
    assert_eq!(with(&told, &Happened::Fresh).len(), 3, "{told:?}");
}

#[test]
fn a_changed_parameter_reruns_what_is_below_and_changing_back_restores() {
    let project = Project::new(CHAIN);
    project.run(&Options::default());
    project.write("pipeline.yaml", &CHAIN.replace("0.2", "0.3"));
    let told = project.run(&Options::default());
    assert_eq!(ran(&told), ["train", "eval"]);
    assert_eq!(sentences(&told, "train"), ["`with.lr` changed: 0.2 -> 0.3"]);
    let eval = sentences(&told, "eval");
    assert!(eval[0].starts_with("input `rows` changed: "), "{eval:?}");

    project.write("pipeline.yaml", CHAIN);
    let told = project.run(&Options::default());
    assert_eq!(with(&told, &Happened::Fresh), ["rows"]);
    assert_eq!(with(&told, &Happened::Restored), ["train", "eval"]);
    let told = project.run(&Options::default());
    assert_eq!(with(&told, &Happened::Fresh).len(), 3);
}

#[test]
fn same_bytes_do_not_ripple() {
    let mut project = Project::new(CHAIN);
    project.constant.insert("train".to_owned());
    project.run(&Options::default());
    project.write("pipeline.yaml", &CHAIN.replace("0.2", "0.3"));
    let told = project.run(&Options::default());
    assert_eq!(ran(&told), ["train"]);
    assert_eq!(with(&told, &Happened::Fresh), ["rows", "eval"]);
}

#[test]
fn a_default_that_goes_and_comes_is_told_in_words() {
    let project = Project::new(CHAIN);
    project.run(&Options::default());
    project.write(
        "pipeline.yaml",
        &CHAIN.replace(
            "    with: { lr: 0.2 }\n",
            "    with: { more: [1] }\n    seed: 4\n",
        ),
    );
    let told = project.run(&Options::default());
    assert_eq!(
        sentences(&told, "train"),
        [
            "`with.more` is [1] now (it was not set)",
            "the seed changed: 0 -> 4",
            "`with.lr` is no longer set (it was 0.2)",
        ]
    );
}

#[test]
fn an_edited_file_reruns_its_branch() {
    let project = Project::new(CHAIN);
    project.run(&Options::default());
    project.write("data/b.jsonl", "B");
    let told = project.run(&Options::default());
    assert_eq!(ran(&told), ["train", "eval"]);
    let why = sentences(&told, "train");
    assert_eq!(why.len(), 1);
    assert!(why[0].starts_with("input `rows.1` changed: "), "{why:?}");
}

#[test]
fn a_lost_or_damaged_result_runs_again() {
    let project = Project::new(CHAIN);
    project.run(&Options::default());
    let (pipeline, _) = project.open();
    let blob = {
        let store = project.store();
        let last = super::Last::load(store.home(), &pipeline.profile);
        store.blob_path(&last.get("train").unwrap().outputs["rows"].digest())
    };
    fs::remove_file(&blob).unwrap();
    let told = project.run(&Options::default());
    assert_eq!(
        ran(&told),
        ["train"],
        "the same bytes come back, so nothing below runs"
    );
    assert_eq!(sentences(&told, "train"), ["its output `rows` is missing"]);

    let mut bytes = fs::read(&blob).unwrap();
    bytes[0] ^= 1;
    fs::remove_file(&blob).unwrap();
    fs::write(&blob, bytes).unwrap();
    let told = project.run(&Options::default());
    assert_eq!(sentences(&told, "train"), ["its output `rows` is damaged"]);

    fs::remove_dir_all(project.dir.path().join(".tunesmith/store/records")).unwrap();
    let told = project.run(&Options::default());
    assert_eq!(ran(&told).len(), 3);
    assert_eq!(
        sentences(&told, "eval"),
        ["its last result is no longer in the store"]
    );
}

#[test]
fn without_memory_results_are_found_again() {
    let project = Project::new(CHAIN);
    project.run(&Options::default());
    for name in ["index", "last"] {
        let path = project.dir.path().join(".tunesmith").join(name);
        let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
    }
    let told = project.run(&Options::default());
    assert_eq!(with(&told, &Happened::Restored).len(), 3, "{told:?}");
}

#[test]
fn forcing_runs_only_what_is_forced() {
    let project = Project::new(CHAIN);
    project.run(&Options::default());
    let forced = Options {
        forced: BTreeSet::from(["train".to_owned()]),
        ..Options::default()
    };
    let told = project.run(&forced);
    assert_eq!(ran(&told), ["train"]);
    assert_eq!(sentences(&told, "train"), ["it is forced"]);
}

#[test]
fn a_preview_takes_nothing_in_and_names_who_is_waited_for() {
    let project = Project::new(CHAIN);
    let options = Options {
        preview: true,
        ..Options::default()
    };
    let (pipeline, graph) = project.open();
    let (store, lock) = (project.store(), Lock::default());
    let mut planner = Planner::new(&pipeline, &store, &lock, options);
    let told = preview(&mut planner, graph.order()).unwrap();
    assert!(matches!(told[0].1, Decision::Run { .. }));
    assert_eq!(told[1].1, Decision::Waiting { on: vec![0] });
    assert_eq!(told[2].1, Decision::Waiting { on: vec![0] });
    assert_eq!(store.usage().unwrap().blobs.count, 0);
}

#[test]
fn a_stage_that_acts_outside_waits_to_be_named() {
    let project = Project::new(
        "name: x\nstages:\n  push:\n    run: touch ${outputs.o}\n    outputs: { o: o }\n    effect: external\n",
    );
    let told = project.run(&Options::default());
    assert_eq!(told[0].1, Happened::Ready(false));
    let named = Options {
        named: BTreeSet::from(["push".to_owned()]),
        ..Options::default()
    };
    for _ in 0..2 {
        let told = project.run(&named);
        assert_eq!(
            sentences(&told, "push"),
            ["it is named, and acts on the outside"]
        );
    }
    assert_eq!(project.run(&Options::default())[0].1, Happened::Ready(true));
}

#[test]
fn a_pin_is_part_of_the_key_and_a_result_is_kept_under_the_pinned_one() {
    let mut project = Project::new("name: x\nstages:\n  p:\n    uses: pull\n");
    let unpinned = project.parts("p");
    assert_eq!(unpinned.get("pin"), Some(""));
    project.lock.set_source("hub:o/d@main", "e7f4");
    let pinned = project.parts("p");
    assert_eq!(pinned, key::pinned(&unpinned, "e7f4"));
    assert_ne!(pinned.digest(), unpinned.digest());
    assert_eq!(ran(&project.run(&Options::default())), ["p"]);
    assert_eq!(
        with(&project.run(&Options::default()), &Happened::Fresh),
        ["p"]
    );
    project.lock.set_source("hub:o/d@main", "abcd");
    let told = project.run(&Options::default());
    assert_eq!(sentences(&told, "p"), ["its source moved: e7f4 -> abcd"]);

    project.lock = Lock::default();
    for options in [
        Options {
            frozen: true,
            ..Options::default()
        },
        Options {
            locked: true,
            ..Options::default()
        },
    ] {
        let error = project.try_run(&options).unwrap_err();
        assert_eq!(error.code(), "locked::no-pin");
        assert!(error.is_locked());
    }
}

#[test]
fn the_lock_chooses_among_the_results_of_a_key() {
    let mut project =
        Project::new("name: x\nstages:\n  t:\n    uses: toy\n    inputs: { rows: data/a.jsonl }\n");
    project.run(&Options::default());
    // Another machine made other bytes from the same key.
    let store = project.store();
    let parts = project.parts("t");
    let made = &store.records(&parts.digest()).unwrap()[0];
    project.write("other", "other bytes");
    let tree = store.put(&project.dir.path().join("other")).unwrap();
    let other = Record {
        outputs: BTreeMap::from([("rows".to_owned(), tree)]),
        ..made.clone()
    };
    store.commit(&other).unwrap();
    let digests = |record: &Record| {
        let outputs = record.outputs.iter();
        outputs
            .map(|(name, tree)| (name.clone(), tree.digest()))
            .collect::<BTreeMap<_, _>>()
    };
    let told = project.run(&Options::default());
    assert_eq!(told[0].1, Happened::Fresh, "the last one");
    project.lock.set_results("default", "t", digests(&other));
    assert_eq!(
        project.run(&Options::default())[0].1,
        Happened::Restored,
        "the lock's"
    );
    assert_eq!(project.run(&Options::default())[0].1, Happened::Fresh);
    let locked = Options {
        locked: true,
        ..Options::default()
    };
    assert_eq!(project.run(&locked)[0].1, Happened::Fresh);

    let gone = BTreeMap::from([("rows".to_owned(), Digest::of(b"gone"))]);
    project.lock.set_results("default", "t", gone);
    assert_eq!(
        project.run(&Options::default())[0].1,
        Happened::Fresh,
        "the local one"
    );
    let error = project.try_run(&locked).unwrap_err();
    assert_eq!(
        (error.code(), error.is_locked()),
        ("locked::not-in-store", true)
    );
    project.lock = Lock::default();
    assert_eq!(
        project.try_run(&locked).unwrap_err().code(),
        "locked::no-result"
    );
    let recompute = Options {
        recompute: true,
        ..locked
    };
    assert_eq!(ran(&project.run(&recompute)), ["t"]);
}

#[test]
fn a_folder_that_holds_the_store_is_no_input() {
    let project = Project::new("name: x\nstages:\n  t:\n    uses: toy\n    inputs: { rows: ./ }\n");
    let error = project.try_run(&Options::default()).unwrap_err();
    assert_eq!(error.code(), "plan::holds-store");
}

/// A random graph: each stage reads some of those before it, and one file.
#[derive(Clone, Debug)]
struct Shape {
    reads: Vec<BTreeSet<usize>>,
    constant: Vec<bool>,
    changed: usize,
    change: usize,
}

fn shapes() -> impl Strategy<Value = Shape> {
    (1..8_usize).prop_flat_map(|count| {
        let reads = (0..count).map(|at| prop::collection::btree_set(0..at.max(1), 0..=at.min(3)));
        let reads = reads.collect::<Vec<_>>();
        (
            reads,
            prop::collection::vec(any::<bool>(), count),
            0..count,
            0..4_usize,
        )
            .prop_map(|(reads, constant, changed, change)| Shape {
                reads,
                constant,
                changed,
                change,
            })
    })
}

fn yaml(shape: &Shape, changed: bool) -> String {
    let mut text = "name: random\nstages:\n".to_owned();
    for (at, reads) in shape.reads.iter().enumerate() {
        let change = (changed && at == shape.changed).then_some(shape.change);
        let mut inputs = vec![format!("file: ./data/f{at}")];
        inputs.extend(reads.iter().map(|above| format!("i{above}: s{above}")));
        text += &format!(
            "  s{at}:\n    run: make{}\n    inputs: {{ {} }}\n    outputs: {{ o: o.txt }}\n    env: {{ E: '{}' }}\n    seed: {}\n",
            if change == Some(0) { " faster" } else { "" },
            inputs.join(", "),
            u8::from(change == Some(1)),
            u8::from(change == Some(2)),
        );
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// After a run everything is fresh; one changed part (command, env, seed, file) reruns its
    /// stage and exactly those below it whose input bytes changed; changing back runs nothing.
    #[test]
    fn one_change_stales_exactly_what_it_must(shape in shapes()) {
        let mut project = Project::new("");
        project.constant = (0..shape.reads.len())
            .filter(|at| shape.constant[*at])
            .map(|at| format!("s{at}"))
            .collect();
        for at in 0..shape.reads.len() {
            project.write(&format!("data/f{at}"), "old");
        }
        project.write("pipeline.yaml", &yaml(&shape, false));
        project.run(&Options::default());
        let told = project.run(&Options::default());
        prop_assert_eq!(with(&told, &Happened::Fresh).len(), shape.reads.len());

        project.write("pipeline.yaml", &yaml(&shape, true));
        if shape.change == 3 {
            project.write(&format!("data/f{}", shape.changed), "new");
        }
        let mut moved = BTreeSet::new();
        let mut wanted = BTreeSet::new();
        for (at, reads) in shape.reads.iter().enumerate() {
            if at == shape.changed || reads.iter().any(|above| moved.contains(above)) {
                wanted.insert(format!("s{at}"));
                if !shape.constant[at] {
                    moved.insert(at);
                }
            }
        }
        let told = project.run(&Options::default());
        let found: BTreeSet<_> = ran(&told).into_iter().map(str::to_owned).collect();
        prop_assert_eq!(found, wanted);

        project.write("pipeline.yaml", &yaml(&shape, false));
        project.write(&format!("data/f{}", shape.changed), "old");
        let told = project.run(&Options::default());
        prop_assert_eq!(ran(&told), Vec::<&str>::new());
    }
}

#[test]
fn the_place_of_an_input_is_what_a_stage_may_see() {
    let project = Project::new(
        "name: x\nstages:\n  s:\n    run: a\n    inputs: { one: ./data/a.jsonl, many: [data/a.jsonl, /etc/hostname] }\n    \
         outputs: { o: sub/o.txt }\n  t:\n    uses: toy\n    inputs: { rows: [data/a.jsonl, s] }\n",
    );
    let (pipeline, graph) = project.open();
    let (store, lock) = (project.store(), Lock::default());
    let mut planner = Planner::new(&pipeline, &store, &lock, Options::default());
    let tree = store.put(&project.dir.path().join("data/a.jsonl")).unwrap();
    let settled = Settled::from([(0, BTreeMap::from([("o".to_owned(), tree)]))]);
    let mut places = Vec::new();
    for &stage in graph.order() {
        if let Decision::Run { inputs, .. } = planner.decide(stage, &settled).unwrap() {
            places.extend(inputs.values().flatten().map(|item| item.place.clone()));
        }
    }
    assert_eq!(
        places,
        [
            "data/a.jsonl",
            "inputs/many/1/hostname",
            "data/a.jsonl",
            "inputs/rows/0/a.jsonl",
            "inputs/rows/1/o.txt",
        ]
    );
    assert!(Path::new("/etc/hostname").exists());
}

/// Not a test: prints what a plan of many fresh stages costs. `STAGES=10000 cargo test --release
/// -- --ignored --nocapture plan_of_many`.
#[test]
#[ignore = "a measurement"]
fn plan_of_many_fresh_stages() {
    let count: usize = std::env::var("STAGES").map_or(1000, |text| text.parse().unwrap());
    let mut text = "name: many\nstages:\n".to_owned();
    for at in 0..count {
        let above = at.checked_sub(10).map(|above| format!(", i: s{above}"));
        text += &format!(
            "  s{at}:\n    run: make\n    inputs: {{ f: ./data/a.jsonl{} }}\n    outputs: {{ o: o }}\n    seed: {at}\n",
            above.unwrap_or_default()
        );
    }
    let project = Project::new(&text);
    let begun = std::time::Instant::now();
    project.run(&Options::default());
    println!("{count} stages made in {:?}", begun.elapsed());
    for _ in 0..3 {
        let (pipeline, graph) = project.open();
        let begun = std::time::Instant::now();
        let store = project.store();
        let mut planner = Planner::new(&pipeline, &store, &project.lock, Options::default());
        let loaded = begun.elapsed();
        let mut settled = Settled::new();
        for &stage in graph.order() {
            match planner.decide(stage, &settled).unwrap() {
                Decision::Fresh { record, .. } => settled.insert(stage, record.outputs),
                other => panic!("{other:?}"),
            };
        }
        println!("opened in {loaded:?}, decided after {:?}", begun.elapsed());
    }
}
