//! The rule of bf16: rounding leaves each tensor at most 1.2 times as far from f32 as it leaves PEFT's, by root mean
//! square over the reference's draws of model, ids and adapter (`golden/heads/bf16.json`).
//!
//! One draw is chance: AdamW's first steps move a value by its gradient's sign, so the distance after them is
//! a handful of flipped signs.

use std::collections::BTreeMap;

use qlora::Model;
use qlora::train::{TrainJob, train};
use qlora::weights::ModelFiles;
use serde::Deserialize;

use super::{Case, NF4, SIZES, folder, golden, rows, start};
use crate::peft_refs::settings;

/// Draws that the reference made.
const DRAWS: usize = 6;
/// How much farther than PEFT's a tensor may end.
const ALLOWED: f64 = 1.2;

/// PEFT's side, draw by draw.
#[derive(Deserialize)]
struct Theirs {
    f32_losses: Vec<Vec<f64>>,
    #[cfg(feature = "cuda")]
    losses: Vec<Vec<f64>>,
    /// |bf16 - f32| / |f32| of each tensor.
    #[cfg(feature = "cuda")]
    distances: BTreeMap<String, Vec<f64>>,
}

impl Theirs {
    fn read(size: usize) -> Self {
        #[derive(Deserialize)]
        struct File {
            heads: BTreeMap<usize, Theirs>,
        }
        let file = std::fs::read(golden("bf16.json")).unwrap();
        let mut file: File = serde_json::from_slice(&file).unwrap();
        let found = file.heads.remove(&size).unwrap();
        assert_eq!(found.f32_losses.len(), DRAWS);
        found
    }
}

fn rms(distances: &[f64]) -> f64 {
    let squares: f64 = distances.iter().map(|d| d * d).sum();
    (squares / distances.len() as f64).sqrt()
}

/// Both sides' root mean squares, tensor by tensor; a tensor or a draw that one side lacks fails.
fn compared(
    ours: &BTreeMap<String, Vec<f64>>,
    theirs: &BTreeMap<String, Vec<f64>>,
) -> Vec<(String, f64, f64)> {
    assert!(ours.keys().eq(theirs.keys()));
    let both = ours.iter().zip(theirs.values());
    both.map(|((name, ours), theirs)| {
        assert_eq!((ours.len(), theirs.len()), (DRAWS, DRAWS), "{name}");
        (name.clone(), rms(ours), rms(theirs))
    })
    .collect()
}

/// Tensors that break the rule, in words. A distance that is no number breaks it.
fn offenders(compared: &[(String, f64, f64)]) -> Vec<String> {
    let holds = |ours: f64, theirs: f64| ours <= ALLOWED * theirs;
    compared
        .iter()
        .filter(|(_, ours, theirs)| !holds(*ours, *theirs))
        .map(|(name, ours, theirs)| format!("{name}: {ours:.5} / {theirs:.5}"))
        .collect()
}

#[test]
fn the_rule_names_what_breaks_it() {
    let side = |a: f64, b: f64| {
        BTreeMap::from([
            ("near".to_owned(), vec![a; DRAWS]),
            ("far".to_owned(), vec![b, b, b, b, b, 2.0 * b]),
        ])
    };
    let theirs = side(0.02, 0.01);
    assert!(offenders(&compared(&side(0.0239, 0.0119), &theirs)).is_empty());
    let broken = offenders(&compared(&side(0.0239, 0.0121), &theirs));
    assert_eq!(broken, ["far: 0.01482 / 0.01225"]);
    let broken = offenders(&compared(&side(f64::NAN, 0.01), &theirs));
    assert_eq!(broken, ["near: NaN / 0.02000"]);
}

/// Without this, distances of other models would be compared.
#[test]
fn the_reference_drew_what_is_drawn_here() {
    for size in SIZES {
        for (draw, want) in Theirs::read(size).f32_losses.iter().enumerate() {
            let case = Case { size, draw };
            let dir = folder(case);
            let files = ModelFiles::open(dir.path()).unwrap();
            let mut model = Model::load(&files, NF4).unwrap();
            let mut adapter = start(case, model.config());
            let (rows, one) = (rows(case), settings(1, 1e-3));
            let job = TrainJob::new(&rows, &one);
            let report = train(&mut model, &mut adapter, job, &mut |_| {}).unwrap();
            let off = (report.steps[0].loss / want[0] - 1.0).abs();
            assert!(off < 1e-5, "heads of {size}, draw {draw}: off by {off:.1e}");
        }
    }
}

#[cfg(feature = "cuda")]
mod cuda {
    use qlora::cuda::Element;
    use safetensors::SafeTensors;

    use super::super::cuda::on_gpu;
    use super::*;
    use crate::cuda::without_gpu;
    use crate::peft_refs::{distance, floats};

    /// For whoever runs the test with `--nocapture`.
    #[expect(clippy::print_stderr, reason = "a figure that a person asks for")]
    fn say(figure: &str) {
        eprintln!("{figure}");
    }

    /// PEFT's f32 tensors where they are stored, else ours, after a look at their losses.
    fn exact(case: Case, theirs: &Theirs, off: &mut Vec<String>) -> BTreeMap<String, Vec<f32>> {
        let Case { size, draw } = case;
        if draw == 0 {
            let file = std::fs::read(golden(&format!("head{size}.safetensors"))).unwrap();
            let tensors = SafeTensors::deserialize(&file).unwrap();
            let named = theirs.distances.keys();
            return named
                .map(|name| (name.clone(), floats(&tensors, name)))
                .collect();
        }
        let ours = on_gpu(case, Element::F32);
        assert_eq!(ours.losses.len(), theirs.f32_losses[draw].len());
        let losses = ours.losses.iter().zip(&theirs.f32_losses[draw]);
        for (step, (got, want)) in losses.enumerate() {
            let far = (got / want - 1.0).abs();
            if far.is_nan() || far >= 1e-5 {
                off.push(format!("f32 loss {step} of draw {draw}: {far:.1e}"));
            }
        }
        ours.tensors.into_iter().collect()
    }

    /// The first losses, before any step: both sides' rounding of one forward pass, by root mean square.
    fn first_losses(size: usize, ours: &[f64], theirs: &Theirs, off: &mut Vec<String>) {
        let exact = theirs.f32_losses.iter().map(|losses| losses[0]);
        let far = |losses: &mut dyn Iterator<Item = f64>| {
            let far: Vec<f64> = losses
                .zip(exact.clone())
                .map(|(a, b)| a / b - 1.0)
                .collect();
            rms(&far)
        };
        let our = far(&mut ours.iter().copied());
        let their = far(&mut theirs.losses.iter().map(|losses| losses[0]));
        let told = format!("first loss: {our:.1e} / {their:.1e}");
        say(&format!("{size} {told}"));
        if our.is_nan() || our >= 5e-4 {
            off.push(told);
        }
    }

    #[test]
    fn cuda_bf16_training_is_as_near_to_f32_as_peft_s() {
        if without_gpu() {
            return;
        }
        let mut broken = Vec::new();
        for size in SIZES {
            let theirs = Theirs::read(size);
            let (mut ours, mut losses) = (BTreeMap::<String, Vec<f64>>::new(), Vec::new());
            let mut off = Vec::new();
            for draw in 0..DRAWS {
                let case = Case { size, draw };
                let exact = exact(case, &theirs, &mut off);
                let rounded = on_gpu(case, Element::Bf16);
                losses.push(rounded.losses[0]);
                for (name, got) in &rounded.tensors {
                    let far = distance(got, &exact[name]);
                    ours.entry(name.clone()).or_default().push(far);
                }
            }
            first_losses(size, &losses, &theirs, &mut off);
            let compared = compared(&ours, &theirs.distances);
            for (name, our, their) in &compared {
                let ratio = our / their;
                say(&format!("{size} {name} {our:.5} / {their:.5} = {ratio:.3}"));
            }
            off.extend(offenders(&compared));
            broken.extend(off.into_iter().map(|what| format!("{size} {what}")));
        }
        let broken = broken.join("\n");
        assert!(broken.is_empty(), "too far from f32:\n{broken}");
    }
}
