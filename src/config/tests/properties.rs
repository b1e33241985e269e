//! Any text is read or refused with a place; any pipeline that follows the rules loads.

use proptest::prelude::*;

use super::super::load::load_text;
use super::{STAGES, open};
use crate::config::{Faults, Overrides, Pipeline};

fn load(yaml: &str) -> Result<Pipeline, Faults> {
    let file = std::path::Path::new("pipeline.yaml");
    load_text(
        file,
        yaml.to_owned(),
        &Overrides::default(),
        &STAGES,
        &|_| None,
    )?
    .finish(Vec::new())
}

fn every_fault_has_its_place(yaml: &str) -> Result<(), TestCaseError> {
    let Err(faults) = load(yaml) else {
        return Ok(());
    };
    prop_assert!(!faults.items.is_empty());
    for fault in &faults.items {
        let span = fault.span.clone();
        let span = span.ok_or_else(|| TestCaseError::fail(format!("no place: {fault:?}")))?;
        prop_assert!(
            span.start <= span.end && span.end <= yaml.len(),
            "{fault:?}"
        );
        prop_assert!(
            !fault.message.is_empty() && !fault.mend.is_empty(),
            "{fault:?}"
        );
    }
    super::drawn(faults);
    Ok(())
}

/// Bits of pipelines, so that random texts reach deep.
fn fragments() -> impl Strategy<Value = String> {
    let bits = prop::sample::select(vec![
        "name: a\n",
        "stages:\n",
        "  raw:\n",
        "    uses: fetch\n",
        "    with: {",
        "}",
        "]",
        "[",
        "dataset: x\n",
        "    inputs:\n",
        "      base: raw:rows\n",
        "      rows: ",
        "${",
        "rank",
        " * 2}",
        "\"",
        "'",
        "&a ",
        "*a",
        "<<: ",
        "- ",
        "? ",
        "!!int ",
        "!x ",
        "|\n",
        ">-\n",
        "#",
        "\t",
        "  ",
        "\n",
        "params: { rank: 16 }\n",
        "profiles: { p: { q: 1 } }\n",
        "é",
        "𝄞",
        "\u{feff}",
        "    matrix: { rank: [1, 2",
        "    matrix: { rank: { from: 1, to: 9, step: 2 } }\n",
        "    pick: { max: raw.a.b }\n",
        "    fingerprint: x\n",
        "    run: echo ${inputs.x}\n",
        "    outputs: { o: o }\n",
        "0x",
        "1e999",
        ".nan",
        "~",
        "null: 1\n",
        "    gates: { a: \">= ${x}\" }\n",
        "    timeout: 10m\n",
        "default: [raw]\n",
        "---\n",
        "...\n",
    ]);
    prop::collection::vec(bits, 0..40).prop_map(|bits| bits.concat())
}

/// A graph whose stages read only stages above them.
fn pipelines() -> impl Strategy<Value = Vec<Vec<usize>>> {
    prop::collection::vec(
        prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        1..30,
    )
    .prop_map(|stages| {
        let above = |at: usize, picks: Vec<prop::sample::Index>| -> Vec<usize> {
            if at == 0 {
                Vec::new()
            } else {
                picks.iter().map(|pick| pick.index(at)).collect()
            }
        };
        stages
            .into_iter()
            .enumerate()
            .map(|(at, picks)| above(at, picks))
            .collect()
    })
}

fn written(stages: &[Vec<usize>], order: &[usize]) -> String {
    let mut yaml = "name: any\nstages:\n".to_owned();
    for at in order {
        let inputs: Vec<String> = stages[*at]
            .iter()
            .enumerate()
            .map(|(n, above)| format!("i{n}: s{above}"))
            .collect();
        yaml.push_str(&format!(
            "  s{at}:\n    run: cat > ${{outputs.o}}\n    inputs: {{ {} }}\n    outputs: {{ o: o }}\n",
            inputs.join(", ")
        ));
    }
    yaml
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read_or_refused_with_a_place(yaml in "(?s).{0,80}") {
        every_fault_has_its_place(&yaml)?;
    }

    #[test]
    fn any_mix_of_fragments_is_read_or_refused_with_a_place(yaml in fragments()) {
        every_fault_has_its_place(&yaml)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_pipeline_that_follows_the_rules_loads(
        (stages, order) in pipelines().prop_flat_map(|stages| {
            let order: Vec<usize> = (0..stages.len()).collect();
            (Just(stages), Just(order).prop_shuffle())
        }),
    ) {
        let (pipeline, graph) = open(&written(&stages, &order))
            .map_err(|faults| TestCaseError::fail(faults.to_string()))?;
        prop_assert_eq!(pipeline.stages.len(), stages.len());
        let mut place = vec![0; stages.len()];
        for (nth, stage) in graph.order().iter().enumerate() {
            place[*stage] = nth;
        }
        for stage in 0..stages.len() {
            for above in graph.parents(stage) {
                prop_assert!(place[above] < place[stage]);
                prop_assert!(graph.children(above).contains(&stage));
            }
        }
    }

    #[test]
    fn a_back_edge_is_a_cycle(stages in pipelines(), pick in any::<prop::sample::Index>()) {
        let mut stages = stages;
        let low = pick.index(stages.len());
        let high = stages.len();
        stages.push(vec![low]);
        stages[low].push(high);
        let order: Vec<usize> = (0..stages.len()).collect();
        let faults = open(&written(&stages, &order)).err();
        let codes: Vec<_> = faults.iter().flat_map(|f| f.items.iter().map(|i| i.code.as_str())).collect();
        prop_assert!(codes.contains(&"graph::cycle"), "{codes:?}");
    }
}

#[test]
fn depth_and_aliases_are_bounded() {
    let deep = "[".repeat(10_000);
    assert_eq!(load(&deep).err().unwrap().items.len(), 1);
    let mut deep_blocks = String::new();
    for depth in 0..200 {
        deep_blocks.push_str(&" ".repeat(depth));
        deep_blocks.push_str("a:\n");
    }
    assert!(load(&deep_blocks).is_err());
    let mut bomb = "x-0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n".to_owned();
    for n in 1..20 {
        let again = vec![format!("*a{}", n - 1); 10].join(", ");
        bomb.push_str(&format!("x-{n}: &a{n} [{again}]\n"));
    }
    let faults = load(&bomb).err().unwrap();
    assert_eq!(faults.items[0].code, "config::too-large");
}

/// For each stage the axes it binds and the earlier stages it reads.
type Sweep = Vec<(Vec<u8>, Vec<usize>)>;

/// A sweep, and whether a stage picks from its last one.
fn sweeps() -> impl Strategy<Value = (Sweep, bool)> {
    let stage = |at: usize| {
        let axes = prop::collection::btree_set(0..3_u8, 0..2);
        let reads = prop::collection::btree_set(0..at.max(1), 0..=at.min(2));
        (axes, reads)
            .prop_map(|(axes, reads)| (axes.into_iter().collect(), reads.into_iter().collect()))
    };
    let stages = (2..6_usize).prop_flat_map(move |count| (0..count).map(stage).collect::<Vec<_>>());
    (stages, any::<bool>())
}

fn sweep_yaml(stages: &[(Vec<u8>, Vec<usize>)], pick: bool) -> String {
    let mut text = "name: s\nparams: { a0: 0, a1: 0, a2: 0 }\nstages:\n".to_owned();
    for (at, (axes, reads)) in stages.iter().enumerate() {
        let inputs: Vec<_> = reads
            .iter()
            .map(|above| format!("i{above}: s{above}"))
            .collect();
        text += &format!(
            "  s{at}:\n    run: echo\n    inputs: {{ {} }}\n    outputs: {{ o: o }}\n",
            inputs.join(", ")
        );
        let axes: Vec<_> = axes.iter().map(|axis| format!("a{axis}: [1, 2]")).collect();
        if !axes.is_empty() {
            text += &format!("    matrix: {{ {} }}\n", axes.join(", "));
        }
    }
    if pick {
        let above = stages.len() - 1;
        text += &format!(
            "  best:\n    run: cp\n    inputs: {{ i: s{above} }}\n    outputs: {{ o: o }}\n    pick: {{ min: s{above}.loss }}\n"
        );
    }
    text
}

proptest! {
    /// A stage has one cell for every combination of the axes that it and all above it bind;
    /// each input names a cell that agrees with it; a stage that picks has one candidate for
    /// each of the measured cells.
    #[test]
    fn cells_are_every_combination_of_what_is_above((stages, pick) in sweeps()) {
        let yaml = sweep_yaml(&stages, pick);
        let mut axes: Vec<std::collections::BTreeSet<u8>> = Vec::new();
        for (own, reads) in &stages {
            let above = reads.iter().flat_map(|above| axes[*above].clone());
            axes.push(own.iter().copied().chain(above).collect());
        }
        let last = 1_usize << axes[stages.len() - 1].len();
        let pipeline = match load(&yaml) {
            Ok(pipeline) => pipeline,
            Err(faults) => {
                // Nothing to pick from.
                prop_assert!(pick && last == 1, "{}\n{}", faults, yaml);
                return Ok(());
            }
        };
        for (at, axes) in axes.iter().enumerate() {
            let name = format!("s{at}");
            let cells: Vec<_> = pipeline.stages.iter().filter(|spec| spec.name == name).collect();
            prop_assert_eq!(cells.len(), 1 << axes.len(), "{} of\n{}", name, yaml);
            for spec in cells {
                for (read, _) in spec.reads() {
                    let above = pipeline.stages.iter().find(|other| other.id == read);
                    let above = above.ok_or_else(|| TestCaseError::fail(format!("no `{read}`")))?;
                    prop_assert!(above.cell.iter().all(|(axis, value)| spec.cell.get(axis) == Some(value)));
                }
            }
        }
        if let Some(pick) = pipeline.stages.iter().find_map(|spec| spec.pick.as_ref()) {
            prop_assert_eq!(pick.candidates.len(), last);
        }
    }
}
