//! rsLoRA, rank and alpha patterns, a subset of layers, LoRA+: losses and the adapter after three AdamW
//! steps of Hugging Face PEFT, in f32, on the tiny Mistral of `peft_refs` (`golden/peft-options/options.py`).

use std::path::{Path, PathBuf};

use qlora::peft::PeftAdapter;
use qlora::train::{TrainConfig, TrainJob, train};
use qlora::weights::ModelFiles;
use qlora::{Adapter, LoraConfig, Model, Quantization};
use safetensors::SafeTensors;

use crate::peft_refs::{batch, distance, floats, golden, name, settings};

fn options(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/peft-options")
        .join(name)
}

/// Trains `start` as the reference was trained and compares losses and every pair.
fn check(case: &str, start: &Adapter, config: &TrainConfig) {
    let file = std::fs::read(options(&format!("{case}.safetensors"))).unwrap();
    let want = SafeTensors::deserialize(&file).unwrap();
    let files = ModelFiles::open(golden("tiny_f32")).unwrap();
    let mut model = Model::load(&files, Quantization::None).unwrap();
    let mut adapter = start.clone();
    let rows = batch();
    let mut run = |adapter: &mut Adapter, steps: usize| {
        let config = TrainConfig {
            epochs: steps,
            ..config.clone()
        };
        train(
            &mut model,
            adapter,
            TrainJob::new(&rows, &config),
            &mut |_| {},
        )
        .unwrap()
    };
    run(&mut adapter, 3);
    assert_eq!(
        adapter.slots().len() * 2 + 1,
        want.names().len(),
        "{case}: the same pairs"
    );
    for slot in adapter.slots() {
        for (half, range) in [("A", &slot.a), ("B", &slot.b)] {
            let want = floats(&want, &format!("after3.{}", name(slot, half)));
            let far = distance(&adapter.values()[range.clone()], &want);
            assert!(
                far < 1e-4,
                "{case}: {} after three steps: {far}",
                name(slot, half)
            );
        }
    }
    let losses = run(&mut start.clone(), 4).steps;
    for (step, want) in losses.iter().zip(floats(&want, "losses")) {
        let apart = (step.loss / f64::from(want) - 1.0).abs();
        assert!(apart < 1e-5, "{case}: {} {want}", step.loss);
    }
}

fn saved(folder: &Path) -> Adapter {
    let files = ModelFiles::open(golden("tiny_f32")).unwrap();
    Adapter::from_peft(
        &files.config().unwrap(),
        &PeftAdapter::load(folder).unwrap(),
    )
    .unwrap()
}

#[test]
fn adapters_of_every_shape_train_as_peft_trains_them() {
    for case in ["subset", "layers", "rslora", "patterns", "patterns_rslora"] {
        check(case, &saved(&options(case)), &settings(3, 1e-2));
    }
}

#[test]
fn a_faster_b_trains_as_pefts_lora_plus() {
    let files = ModelFiles::open(golden("tiny_f32")).unwrap();
    let stored = PeftAdapter::load(&golden("tiny_lora")).unwrap();
    let plain = LoraConfig {
        dropout: 0.0,
        ..saved(&golden("tiny_lora")).config().clone()
    };
    let start = Adapter::continued(&files.config().unwrap(), &stored, &plain).unwrap();
    let config = TrainConfig {
        lora_plus: 8.0,
        ..settings(3, 1e-2)
    };
    check("loraplus", &start, &config);
}

/// Masks over pairs of unequal rank and scale: the gradient of a step is that of separate rows.
#[test]
fn dropout_reaches_pairs_of_unequal_rank_and_scale() {
    let start = saved(&options("patterns"));
    let files = ModelFiles::open(golden("tiny_f32")).unwrap();
    let mut model = Model::load(&files, Quantization::None).unwrap();
    let rows = batch();
    let mut after = |dropout: f32, micro_batch: Option<usize>| {
        let lora = LoraConfig {
            dropout,
            ..start.config().clone()
        };
        let mut adapter = Adapter::zeros(model.config(), &lora).unwrap();
        adapter.values_mut().copy_from_slice(start.values());
        let config = TrainConfig {
            micro_batch,
            ..settings(3, 1e-2)
        };
        train(
            &mut model,
            &mut adapter,
            TrainJob::new(&rows, &config),
            &mut |_| {},
        )
        .unwrap();
        adapter.values().to_vec()
    };
    let (whole, rows_apart) = (after(0.3, None), after(0.3, Some(1)));
    assert!(distance(&rows_apart, &whole) < 1e-4);
    assert!(
        distance(&after(0.0, None), &whole) > 1e-3,
        "the masks do something"
    );
}
