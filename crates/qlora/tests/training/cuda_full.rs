//! A card that others fill: the step goes on by a smaller plan, says so, and a resumed run repeats it.

use std::sync::atomic::{AtomicBool, Ordering};

use qlora::cuda::{CudaEngine, Element, Options};
use qlora::train::{Example, TrainConfig, TrainEvent, TrainJob, TrainReport, train_on_gpu};
use qlora::{Adapter, ModelFiles};

use crate::cuda::{base, folder, without_gpu};
use crate::cuda_work::{NF4, apart, lora};

fn rows() -> Vec<Example> {
    apart(16, |_| 150)
}

struct Ran {
    adapter: Adapter,
    report: TrainReport,
    /// Steps from which a smaller plan was told.
    told: Vec<u64>,
    block: usize,
}

/// Eight steps, or until `stop_after`; goes on from `checkpoints`.
fn run(
    files: &ModelFiles,
    refuse_above: Option<usize>,
    checkpoints: Option<&std::path::Path>,
    stop_after: Option<u64>,
) -> Option<Ran> {
    let card = base(files, Element::F32, NF4);
    let mut adapter = Adapter::new(card.config(), &lora(0.05)).unwrap();
    let options = Options {
        refuse_above,
        ..Options::default()
    };
    let mut engine = CudaEngine::new(card, &adapter, options).unwrap();
    let (rows, cancel) = (rows(), AtomicBool::new(false));
    let config = TrainConfig {
        batch: 8,
        epochs: 4,
        lr: 1e-2,
        save_every: Some(1),
        ..TrainConfig::default()
    };
    let job = TrainJob {
        checkpoints,
        cancel: &cancel,
        ..TrainJob::new(&rows, &config)
    };
    let mut told = Vec::new();
    let report = train_on_gpu(&mut engine, &mut adapter, job, &mut |event| match event {
        TrainEvent::Fallback(fallback) => told.push(fallback.step),
        TrainEvent::Saved { step } if Some(step) == stop_after => {
            cancel.store(true, Ordering::Relaxed);
        }
        _ => {}
    });
    Some(Ran {
        report: report.ok()?,
        adapter,
        told,
        block: engine.bytes().1,
    })
}

#[test]
fn a_full_card_changes_the_plan_and_not_the_maths() {
    if without_gpu() {
        return;
    }
    let dir = folder(64);
    let files = ModelFiles::open(dir.path()).unwrap();
    let whole = run(&files, None, None, None).unwrap();
    assert!(whole.told.is_empty() && whole.report.fallbacks.is_empty());
    // Half the block: layers again, or fewer rows at a time.
    let most = whole.block * 2 / 3;
    let full = run(&files, Some(most), None, None).unwrap();
    assert_eq!(full.told, [1]);
    assert_eq!(full.report.fallbacks.len(), 1);
    assert!(full.block <= most);
    for (a, b) in full.report.steps.iter().zip(&whole.report.steps) {
        assert!((a.loss / b.loss - 1.0).abs() < 1e-5, "step {}", a.step);
        assert!(
            (a.grad_norm / b.grad_norm - 1.0).abs() < 1e-4,
            "step {}",
            a.step
        );
    }
    let bits =
        |ran: &Ran| -> Vec<u32> { ran.adapter.values().iter().map(|v| v.to_bits()).collect() };
    assert_eq!(
        bits(&run(&files, Some(most), None, None).unwrap()),
        bits(&full)
    );

    // Stopped on the full card and gone on with on an empty one: the bytes of never having stopped.
    let kept = tempfile::tempdir().unwrap();
    assert!(run(&files, Some(most), Some(kept.path()), Some(3)).is_none());
    let resumed = run(&files, None, Some(kept.path()), None).unwrap();
    assert_eq!(bits(&resumed), bits(&full));
    assert_eq!(resumed.report.fallbacks, full.report.fallbacks);
}

/// What a plan on paper counts is what a real card is then asked for.
#[test]
fn a_plan_on_paper_is_the_card_s() {
    use qlora::cuda::{Base, Device, Precision};
    use qlora::train::plan_on_gpu;

    if without_gpu() {
        return;
    }
    let dir = folder(64);
    let layers = dir.path().join("layers");
    let plain = ModelFiles::open(dir.path()).unwrap();
    qlora::quantize_layers(&plain, true, &layers, &mut |_, _| true).unwrap();
    let files = plain.with_layers(&layers).unwrap();
    let ran = run(&files, None, None, None).unwrap();
    let real = base(&files, Element::F32, NF4);
    let precision = Precision {
        element: Element::F32,
        quantization: NF4,
    };
    let device = Device::on_paper(real.device().info().clone());
    let sketch = Base::sketch(device, real.config(), precision, 256).unwrap();
    assert_eq!(sketch.bytes(), real.bytes());
    let engine = CudaEngine::new(sketch, &ran.adapter, Options::default()).unwrap();
    let config = TrainConfig {
        batch: 8,
        epochs: 4,
        ..TrainConfig::default()
    };
    let plan = plan_on_gpu(&engine, &ran.adapter, TrainJob::new(&rows(), &config)).unwrap();
    assert_eq!(plan.bytes as usize, ran.block);
}
