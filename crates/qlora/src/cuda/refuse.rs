//! What the CPU computes and a GPU does not: refused by name, before a base is loaded where it can be.

use crate::error::Error;
use crate::nn::adapter::{Adapter, Site};
use crate::train::TrainConfig;

/// Adapter columns come in whole fours.
const RANKS: usize = 4;

/// Everything about this run that a GPU does not train; empty where it does.
pub fn refusals(adapter: &Adapter, config: &TrainConfig) -> Vec<Error> {
    let mut refused = pairs(adapter);
    if config.lora_plus != 1.0 {
        refused.push(Error::unsupported(
            "lora_plus",
            config.lora_plus,
            "on a GPU, leave it out and raise `lr`, or hide the card (`CUDA_VISIBLE_DEVICES=`)",
        ));
    }
    refused
}

/// Pairs that a GPU does not run, in training or in answering.
pub(super) fn pairs(adapter: &Adapter) -> Vec<Error> {
    let mut refused = Vec::new();
    let odd = adapter.slots().iter().find(|s| !s.r.is_multiple_of(RANKS));
    if let Some(slot) = odd {
        refused.push(Error::unsupported(
            "lora r",
            slot.r,
            "on a GPU, use a multiple of 4",
        ));
    }
    let layers = adapter.slots().iter().map(|s| s.layer);
    let mut sites = layers.flat_map(|layer| Site::ALL.map(|site| adapter.site(layer, site)));
    let uneven = sites.find(|pairs| {
        pairs
            .iter()
            .any(|p| (p.r, p.scale) != (pairs[0].r, pairs[0].scale))
    });
    if let Some(pairs) = uneven {
        let names: Vec<_> = pairs.iter().map(|p| p.target.suffix()).collect();
        refused.push(Error::unsupported(
            "lora patterns",
            format!("ranks or scales that differ within {}", names.join(", ")),
            "on a GPU, give layers that read one input (q, k, v; gate, up) the same, or hide the card (`CUDA_VISIBLE_DEVICES=`)",
        ));
    }
    refused
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::lora::LoraConfig;
    use crate::nn::model::tests::tiny_config;

    fn refused(lora: &LoraConfig, lora_plus: f64) -> Vec<String> {
        let adapter = Adapter::new(&tiny_config(), lora).unwrap();
        let config = TrainConfig {
            lora_plus,
            ..TrainConfig::default()
        };
        let found = refusals(&adapter, &config);
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_a_gpu_does_not_train_is_named_at_once() {
        let lora = LoraConfig {
            rank_pattern: [("q_proj".to_owned(), 6)].into(),
            ..LoraConfig::default()
        };
        assert_eq!(
            refused(&lora, 2.0),
            [
                "`lora r: 6` is not supported",
                "`lora patterns: ranks or scales that differ within q_proj, k_proj, v_proj` is not supported",
                "`lora_plus: 2` is not supported",
            ]
        );
        let by_site = LoraConfig {
            layers: Some(vec![1]),
            rank_pattern: [("down_proj".to_owned(), 8)].into(),
            alpha_pattern: [("o_proj".to_owned(), 4.0)].into(),
            rslora: true,
            ..LoraConfig::default()
        };
        assert!(refused(&by_site, 1.0).is_empty());
    }
}
