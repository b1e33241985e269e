//! Small models as a hub would hold them: `config.json` beside `model.safetensors` in f32.
//!
//! Must not know: what a config means, or where values come from.

use std::path::Path;

use qlora::Dtype;
use safetensors::tensor::TensorView;
use serde_json::Value;

/// The sides of a Llama-like decoder.
#[derive(Clone, Copy)]
pub(crate) struct Sides {
    pub(crate) vocab: usize,
    pub(crate) hidden: usize,
    pub(crate) inner: usize,
    pub(crate) layers: usize,
    /// Query heads times their size.
    pub(crate) queries: usize,
    /// Key heads times their size.
    pub(crate) keys: usize,
}

impl Sides {
    /// Name and shape of every weight, the head one of its own.
    pub(crate) fn weights(self) -> Vec<(String, Vec<usize>)> {
        let (hidden, inner) = (self.hidden, self.inner);
        let mut weights = vec![
            (
                "model.embed_tokens.weight".to_owned(),
                vec![self.vocab, hidden],
            ),
            ("lm_head.weight".to_owned(), vec![self.vocab, hidden]),
            ("model.norm.weight".to_owned(), vec![hidden]),
        ];
        for layer in 0..self.layers {
            for (part, shape) in [
                ("self_attn.q_proj", vec![self.queries, hidden]),
                ("self_attn.k_proj", vec![self.keys, hidden]),
                ("self_attn.v_proj", vec![self.keys, hidden]),
                ("self_attn.o_proj", vec![hidden, self.queries]),
                ("mlp.gate_proj", vec![inner, hidden]),
                ("mlp.up_proj", vec![inner, hidden]),
                ("mlp.down_proj", vec![hidden, inner]),
                ("input_layernorm", vec![hidden]),
                ("post_attention_layernorm", vec![hidden]),
            ] {
                weights.push((format!("model.layers.{layer}.{part}.weight"), shape));
            }
        }
        weights
    }
}

/// Writes a model whose weights have the values that `draw` gives for place, name and shape.
pub(crate) fn write(
    folder: &Path,
    config: &Value,
    weights: Vec<(String, Vec<usize>)>,
    draw: impl Fn(usize, &str, &[usize]) -> Vec<f32>,
) {
    let data: Vec<(String, Vec<usize>, Vec<u8>)> = weights
        .into_iter()
        .enumerate()
        .map(|(at, (name, shape))| {
            let bytes = Dtype::F32.encode(&draw(at, &name, &shape));
            (name, shape, bytes)
        })
        .collect();
    let views = data.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes);
        (name.as_str(), view.unwrap())
    });
    let file = safetensors::serialize(views, None).unwrap();
    std::fs::write(folder.join("model.safetensors"), file).unwrap();
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
}
