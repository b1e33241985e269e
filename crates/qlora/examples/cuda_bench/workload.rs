//! What the benchmark works on: Mistral 7B's shape, the plan's job and dense rows, the same in every run. The tests of
//! plans for cards that are not there (tests/training/paper.rs) plan for the same.

use qlora::train::Example;
use qlora::{Architecture, Dtype, LayerAttention, ModelConfig, Rope};

pub(crate) const GIB: f64 = 1_073_741_824.0;

pub(crate) fn mistral() -> ModelConfig {
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
        max_position: 32_768,
        bos: Some(1),
        eos: vec![2],
        dtype: Dtype::Bf16,
        ..ModelConfig::default()
    }
}

/// Uniform ids (`SplitMix64`), the same in every run.
pub(crate) struct Draw(pub(crate) u64);

impl Draw {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn ids(&mut self, count: usize) -> Vec<u32> {
        (0..count)
            .map(|_| 3 + (self.next() % 31_997) as u32)
            .collect()
    }
}

/// Rows of one shared prompt of 600 ids and 40 to 160 own ones, loss on the last two thirds of those.
pub(crate) fn job() -> Vec<Example> {
    let mut draw = Draw(7);
    let prompt = draw.ids(600);
    (0..1000)
        .map(|i| {
            let own = 40 + (draw.next() % 121) as usize;
            let ids = [prompt.clone(), draw.ids(own)].concat();
            let first = 600 + own / 3;
            let labels = (0..ids.len()).map(|p| p >= first).collect();
            Example {
                id: format!("row-{i}"),
                ids,
                labels,
                weight: 1.0,
            }
        })
        .collect()
}

/// Rows of their own, loss on all ids.
pub(crate) fn dense(rows: usize, tokens: usize) -> Vec<Example> {
    let mut draw = Draw(11);
    (0..rows)
        .map(|i| Example {
            id: format!("row-{i}"),
            ids: draw.ids(tokens),
            labels: vec![true; tokens],
            weight: 1.0,
        })
        .collect()
}
