//! Plans for cards that are not there, against what was measured on one that was (docs/performance.md).

use qlora::cuda::{Base, CardModel, CudaEngine, Device, Element, Keep, Options, Precision};
use qlora::train::{Example, Keeping, StepPlan, TrainConfig, TrainJob, plan_on_gpu};
use qlora::{Adapter, LoraConfig, Quantization, Target};

use workload::{GIB, dense, job, mistral};

#[path = "../../examples/cuda_bench/workload.rs"]
mod workload;

struct Planned {
    plan: StepPlan,
    /// Everything but the context, in GiB.
    gib: f64,
}

fn plan(card: &CardModel, rows: &[Example], batch: usize, options: Options) -> Planned {
    tried(card, rows, batch, options).unwrap()
}

fn tried(
    card: &CardModel,
    rows: &[Example],
    batch: usize,
    options: Options,
) -> qlora::Result<Planned> {
    let shape = mistral();
    let precision = Precision {
        element: Element::Bf16,
        quantization: Quantization::Nf4 { double: true },
    };
    let lora = LoraConfig {
        r: 16,
        alpha: 32.0,
        dropout: 0.05,
        targets: Target::ALL.to_vec(),
        seed: 5,
        ..LoraConfig::default()
    };
    let adapter = Adapter::zeros(&shape, &lora)?;
    let base = Base::sketch(Device::on_paper(card.info()), &shape, precision, 4100)?;
    let engine = CudaEngine::new(base, &adapter, options)?;
    let config = TrainConfig {
        epochs: 1000,
        max_steps: Some(16),
        batch,
        shared_prefix: batch == 16,
        ..TrainConfig::default()
    };
    let plan = plan_on_gpu(&engine, &adapter, TrainJob::new(rows, &config))?;
    let gib = (engine.bytes().0 as u64 + plan.bytes + plan.decoded_bytes) as f64 / GIB;
    Ok(Planned { plan, gib })
}

fn keep(keep: Keep) -> Options {
    Options {
        keep: Some(keep),
        decode_again: true,
        ..Options::default()
    }
}

/// What the benchmark read off one H100, every byte but the context: within 5 %.
#[test]
fn plans_are_what_was_used() {
    let card = CardModel::named("H100").unwrap();
    let (kept, host) = (Keep::Everything, Keep::Offloaded);
    let mut off = Vec::new();
    for (name, rows, batch, options, used) in [
        ("the job", job(), 16, keep(kept), 13.3),
        ("the job, offloaded", job(), 16, keep(host), 5.36),
        ("4 x 2048 kept", dense(16, 2048), 4, keep(kept), 33.6),
        ("4 x 512 kept", dense(16, 512), 4, keep(kept), 12.1),
        ("4 x 2048 offloaded", dense(16, 2048), 4, keep(host), 6.50),
        ("4 x 4096 offloaded", dense(16, 4096), 4, keep(host), 8.16),
        ("1 x 4096 offloaded", dense(4, 4096), 1, keep(host), 5.71),
    ] {
        let planned = plan(&card, &rows, batch, options);
        if (planned.gib / used - 1.0).abs() > 0.05 {
            off.push(format!("{name}: {:.2} GiB, used {used}", planned.gib));
        }
    }
    assert!(off.is_empty(), "{off:?}");
}

#[test]
fn memory_that_no_step_needs_holds_decoded_layers() {
    let rows = job();
    let on = |gib: f64| plan(&CardModel::of_gib(gib), &rows, 16, Options::default());
    let whole = on(80.0).plan;
    assert_eq!(whole.decoded_layers, 32);
    // 218 million weights a layer, and adapter columns beside each row of them.
    let gib = whole.decoded_bytes as f64 / GIB;
    assert!((13.0..14.0).contains(&gib), "{gib}");
    let layer = gib / 32.0;
    let mut seen = Vec::new();
    for card in [24.0, 16.0, 12.0, 8.0] {
        let planned = on(card);
        // All but a sixteenth and half a GiB is used; one more layer would not have fitted.
        let usable = card * 15.0 / 16.0 - 0.5;
        assert!(
            planned.gib <= usable && planned.gib + layer > usable,
            "{card}: {}",
            planned.plan
        );
        seen.push(planned.plan.decoded_layers);
    }
    assert!(
        seen.iter().all(|layers| *layers < 32) && seen[0] > 0,
        "{seen:?}"
    );
}

#[test]
fn smaller_cards_keep_less_and_then_take_fewer_rows() {
    let rows = job();
    let on = |gib: f64| plan(&CardModel::of_gib(gib), &rows, 16, Options::default());
    let mut last = (Keeping::Everything, 16);
    let mut seen = Vec::new();
    for gib in [24.0, 16.0, 12.0, 8.0, 7.0, 6.5] {
        let planned = on(gib);
        assert!(planned.gib < gib, "{gib}: {:.2}", planned.gib);
        let now = (planned.plan.keeping, planned.plan.rows);
        assert!(
            now.1 < last.1 || now.0 >= last.0,
            "{gib}: {now:?} after {last:?}"
        );
        last = now;
        seen.push(planned.plan.keeping);
    }
    assert!(
        seen.contains(&Keeping::Everything) && seen.contains(&Keeping::Host),
        "{seen:?}"
    );
    let too_small = tried(&CardModel::of_gib(4.0), &rows, 16, Options::default());
    let Err(error) = too_small else {
        panic!("four GiB do not hold the weights")
    };
    assert!(
        error.to_string().contains("does not fit on a card"),
        "{error}"
    );
}
