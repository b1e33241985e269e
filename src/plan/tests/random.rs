//! Random graphs: one change stales exactly what it must.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{Happened, Project, ran, with};
use crate::plan::Options;

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
