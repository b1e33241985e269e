//! A tiny random decoder for tests: grouped heads, odd sizes, untied head.

use super::*;
use crate::config::LayerAttention;
use crate::ops::simd::tests::noise;

/// Two layers, four query heads on two key/value heads.
pub(crate) fn tiny_config() -> ModelConfig {
    ModelConfig {
        vocab: 61,
        hidden: 24,
        intermediate: 40,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 8,
        attention: vec![LayerAttention::default(); 2],
        attention_scale: ModelConfig::plain_scale(8),
        bos: Some(1),
        eos: vec![2],
        ..ModelConfig::default()
    }
}

/// Random values for a tensor of the given name.
pub(crate) fn tiny_tensor(config: &ModelConfig, name: &str) -> Matrix {
    let seed = name
        .bytes()
        .fold(7u64, |h, b| h.wrapping_mul(31).wrapping_add(u64::from(b)));
    let target = Target::ALL.into_iter().find(|t| name.contains(t.path()));
    let (rows, cols) = match target {
        Some(t) if name.ends_with(".bias") => (1, t.shape(config).0),
        Some(t) => t.shape(config),
        None if name.ends_with("norm.weight") => (1, config.hidden),
        None => (config.vocab, config.hidden),
    };
    let centre = if name.ends_with("norm.weight") {
        1.0
    } else {
        0.0
    };
    let data = noise(rows * cols, seed)
        .iter()
        .map(|v| centre + 0.3 * v)
        .collect();
    Matrix::new(rows, cols, data)
}

/// The random decoder itself.
pub(crate) fn tiny_model(config: &ModelConfig) -> Model {
    Model::from_tensors(
        config,
        |n| Ok(tiny_tensor(config, n)),
        |n| Ok(tiny_tensor(config, n)),
    )
    .unwrap()
}

#[test]
fn a_wrong_shape_is_named() {
    let config = tiny_config();
    let broken = |name: &str| {
        let cut = name == "model.layers.1.mlp.up_proj.weight";
        Ok(if cut {
            Matrix::zeros(3, 24)
        } else {
            tiny_tensor(&config, name)
        })
    };
    let error = Model::from_tensors(&config, broken, |n| Ok(tiny_tensor(&config, n)))
        .err()
        .unwrap();
    assert_eq!(
        error.to_string(),
        "`model.layers.1.mlp.up_proj.weight`: expected 40 x 24, found 3 x 24"
    );
}
