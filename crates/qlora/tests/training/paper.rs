//! Plans for cards that are not there, against what was measured on one that was (docs/performance.md).

use qlora::cuda::{Base, CardModel, CudaEngine, Device, Element, Keep, Options, Precision};
use qlora::train::{Example, Keeping, StepPlan, TrainConfig, TrainJob, plan_on_gpu};
use qlora::{
    Activation, Adapter, Architecture, Dtype, LayerAttention, LoraConfig, ModelConfig,
    Quantization, Rope, Target,
};

const GIB: f64 = 1_073_741_824.0;

fn mistral() -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Mistral,
        vocab: 32_000,
        hidden: 4096,
        intermediate: 14_336,
        layers: 32,
        heads: 32,
        kv_heads: 8,
        head_dim: 128,
        attention: vec![
            LayerAttention {
                window: None,
                rope: Rope::plain(1e6),
            };
            32
        ],
        attention_scale: ModelConfig::plain_scale(128),
        attention_softcap: None,
        logit_softcap: None,
        activation: Activation::Silu,
        rms_eps: 1e-5,
        norm_offset: 0.0,
        qk_norm: false,
        post_norms: false,
        embedding_scale: 1.0,
        tie_embeddings: false,
        qkv_bias: false,
        max_position: 32_768,
        bos: Some(1),
        eos: vec![2],
        dtype: Dtype::Bf16,
    }
}

/// Rows of `own` tokens each behind `shared` common ones.
fn rows(count: u32, shared: usize, own: impl Fn(u32) -> usize) -> Vec<Example> {
    (0..count)
        .map(|row| {
            let len = shared + own(row);
            let ids = (0..len as u32).map(|at| {
                if (at as usize) < shared {
                    at
                } else {
                    1000 + (row * 97 + at) % 30_000
                }
            });
            Example {
                id: format!("row-{row}"),
                ids: ids.collect(),
                labels: (0..len)
                    .map(|at| at >= shared + own(row) / 3 && at > 0)
                    .collect(),
                weight: 1.0,
            }
        })
        .collect()
}

/// Sixteen rows of 40 to 160 tokens behind a prompt of 600.
fn job() -> Vec<Example> {
    rows(16, 600, |row| 40 + (row as usize * 37) % 121)
}

struct Planned {
    plan: StepPlan,
    /// Everything but the context, in GiB.
    gib: f64,
}

fn plan(card: &CardModel, rows: &[Example], options: Options, micro: Option<usize>) -> Planned {
    tried(card, rows, options, micro).unwrap()
}

fn tried(
    card: &CardModel,
    rows: &[Example],
    options: Options,
    micro: Option<usize>,
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
        epochs: 1,
        batch: rows.len(),
        micro_batch: micro,
        ..TrainConfig::default()
    };
    let plan = plan_on_gpu(&engine, &adapter, TrainJob::new(rows, &config))?;
    let gib = (engine.bytes().0 as u64 + plan.bytes) as f64 / GIB;
    Ok(Planned { plan, gib })
}

fn keep(keep: Keep) -> Options {
    Options {
        keep: Some(keep),
        ..Options::default()
    }
}

/// What the benchmark read off one H100, every byte but the context: within 5 %.
#[test]
fn plans_are_what_was_used() {
    let card = CardModel::named("H100").unwrap();
    let dense = |count, len| rows(count, 0, move |_| len);
    for (name, rows, options, micro, used) in [
        ("the job", job(), Options::default(), None, 13.3),
        (
            "the job, offloaded",
            job(),
            keep(Keep::Offloaded),
            None,
            5.36,
        ),
        (
            "4 x 2048 kept",
            dense(4, 2048),
            keep(Keep::Everything),
            None,
            33.6,
        ),
        (
            "4 x 512 kept",
            dense(4, 512),
            keep(Keep::Everything),
            None,
            12.1,
        ),
        (
            "4 x 2048 offloaded",
            dense(4, 2048),
            keep(Keep::Offloaded),
            None,
            6.50,
        ),
        (
            "4 x 4096 offloaded",
            dense(4, 4096),
            keep(Keep::Offloaded),
            None,
            8.16,
        ),
        (
            "1 x 4096 offloaded",
            dense(1, 4096),
            keep(Keep::Offloaded),
            None,
            5.71,
        ),
    ] {
        let planned = plan(&card, &rows, options, micro);
        let off = planned.gib / used - 1.0;
        assert!(
            off.abs() < 0.05,
            "{name}: {:.2} GiB, used {used}",
            planned.gib
        );
    }
}

#[test]
fn smaller_cards_keep_less_and_then_take_fewer_rows() {
    let on = |gib: f64| plan(&CardModel::of_gib(gib), &job(), Options::default(), None);
    let mut last = (Keeping::Everything, 16);
    let mut seen = Vec::new();
    for gib in [24.0, 16.0, 12.0, 8.0, 7.0, 6.0] {
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
    assert!(seen.contains(&Keeping::Everything) && seen.contains(&Keeping::Host));
    let too_small = tried(&CardModel::of_gib(4.0), &job(), Options::default(), None);
    let Err(error) = too_small else {
        panic!("four GiB do not hold the weights")
    };
    assert!(
        error.to_string().contains("does not fit on a card"),
        "{error}"
    );
}
