//! The rotary tables of a decoder: one for each kind of layer, found by layer.

use crate::config::{ModelConfig, Rope};
use crate::ops::rope::RopeTable;

/// Tables for positions `0..len`, shared by the layers that turn alike.
pub(crate) struct Ropes {
    tables: Vec<RopeTable>,
    of_layer: Vec<usize>,
}

impl Ropes {
    pub(crate) fn new(config: &ModelConfig, positions: usize) -> Self {
        let mut kinds: Vec<Rope> = Vec::new();
        let of_layer = config
            .attention
            .iter()
            .map(|layer| {
                kinds
                    .iter()
                    .position(|kind| *kind == layer.rope)
                    .unwrap_or_else(|| {
                        kinds.push(layer.rope);
                        kinds.len() - 1
                    })
            })
            .collect();
        let tables = kinds
            .into_iter()
            .map(|kind| RopeTable::new(config.head_dim, kind, positions))
            .collect();
        Self { tables, of_layer }
    }

    pub(crate) fn layer(&self, layer: usize) -> &RopeTable {
        &self.tables[self.of_layer[layer]]
    }
}
