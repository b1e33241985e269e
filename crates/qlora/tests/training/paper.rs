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

/// Uniform numbers (`SplitMix64`), those of the benchmark.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn ids(&mut self, count: usize) -> Vec<u32> {
        (0..count)
            .map(|_| 3 + (self.next() % 31_997) as u32)
            .collect()
    }
}

fn example(row: usize, ids: Vec<u32>, first: usize) -> Example {
    Example {
        id: format!("row-{row}"),
        labels: (0..ids.len()).map(|at| at >= first).collect(),
        ids,
        weight: 1.0,
    }
}

/// The benchmark's job: rows of 40 to 160 tokens behind a prompt of 600.
fn job() -> Vec<Example> {
    let mut draw = Draw(7);
    let prompt = draw.ids(600);
    (0..1000)
        .map(|row| {
            let own = 40 + (draw.next() % 121) as usize;
            let ids = [prompt.clone(), draw.ids(own)].concat();
            example(row, ids, 600 + own / 3)
        })
        .collect()
}

/// Its dense batches, four of them.
fn dense(rows: usize, tokens: usize) -> Vec<Example> {
    let mut draw = Draw(11);
    (0..4 * rows)
        .map(|row| example(row, draw.ids(tokens), 0))
        .collect()
}

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
    let (kept, host) = (Keep::Everything, Keep::Offloaded);
    let mut off = Vec::new();
    for (name, rows, batch, options, used) in [
        ("the job", job(), 16, keep(kept), 13.3),
        ("the job, offloaded", job(), 16, keep(host), 5.36),
        ("4 x 2048 kept", dense(4, 2048), 4, keep(kept), 33.6),
        ("4 x 512 kept", dense(4, 512), 4, keep(kept), 12.1),
        ("4 x 2048 offloaded", dense(4, 2048), 4, keep(host), 6.50),
        ("4 x 4096 offloaded", dense(4, 4096), 4, keep(host), 8.16),
        ("1 x 4096 offloaded", dense(1, 4096), 1, keep(host), 5.71),
    ] {
        let planned = plan(&card, &rows, batch, options);
        if (planned.gib / used - 1.0).abs() > 0.05 {
            off.push(format!("{name}: {:.2} GiB, used {used}", planned.gib));
        }
    }
    assert!(off.is_empty(), "{off:?}");
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
