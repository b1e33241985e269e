//! What one trip through the decoder works on: which tokens form which row, where they stand, and which
//! weights, adapter and masks apply.

use std::ops::Range;

use super::adapter::{Adapter, Site};
use super::linear::SiteCall;
use super::model::Model;
use super::ropes::Ropes;
use crate::ops::attended::{Context, Query};
use crate::ops::dropout::Dropout;
use crate::tensor::Matrix;

/// Rows of tokens laid end to end, all behind one shared prefix.
pub(crate) struct Rows {
    spans: Vec<Range<usize>>,
    positions: Vec<u32>,
}

impl Rows {
    /// Rows of the given lengths, starting at position `prefix`.
    pub(crate) fn new(lens: impl IntoIterator<Item = usize>, prefix: usize) -> Self {
        let mut spans = Vec::new();
        let mut positions = Vec::new();
        for len in lens {
            spans.push(positions.len()..positions.len() + len);
            positions.extend((prefix..prefix + len).map(|p| p as u32));
        }
        Self { spans, positions }
    }

    /// One token per row, each at its own position.
    pub(crate) fn single(positions: impl IntoIterator<Item = usize>) -> Self {
        let positions: Vec<u32> = positions.into_iter().map(|p| p as u32).collect();
        Self {
            spans: (0..positions.len()).map(|t| t..t + 1).collect(),
            positions,
        }
    }

    pub(crate) fn spans(&self) -> &[Range<usize>] {
        &self.spans
    }

    pub(crate) fn positions(&self) -> &[u32] {
        &self.positions
    }
}

/// Everything that stays the same from layer to layer.
pub(crate) struct Pass<'a> {
    pub(crate) model: &'a Model,
    /// Must be attached to the model.
    pub(crate) adapter: Option<&'a Adapter>,
    pub(crate) rope: &'a Ropes,
    pub(crate) rows: &'a Rows,
    pub(crate) dropout: Option<&'a Dropout>,
}

impl<'a> Pass<'a> {
    pub(crate) fn site(&self, layer: usize, site: Site) -> SiteCall<'a> {
        let adapter = self
            .adapter
            .and_then(|a| self.model.site_adapter(a, layer, site));
        SiteCall {
            linear: self.model.layers[layer].linear(site),
            dropout: self.dropout.filter(|_| adapter.is_some()),
            adapter,
            place: (layer * Site::ALL.len() + site as usize) as u64,
        }
    }

    /// Every row against its own keys in `qkv` and those of the prefix (`context`: keys, then values).
    pub(crate) fn queries<'q>(
        &self,
        qkv: &'q Matrix,
        context: Option<&'q Matrix>,
    ) -> Vec<Query<'q>> {
        let config = self.model.config();
        let (query, kv) = (config.query_width(), config.kv_width());
        let prefix = context.map(|c| whole(c, kv));
        let row = |span: &Range<usize>| Query {
            start: span.start,
            len: span.len(),
            first: 0,
            prefix,
            own: Context {
                data: &qkv.data()[span.start * qkv.cols()..],
                stride: qkv.cols(),
                key: query,
                value: query + kv,
                len: span.len(),
            },
        };
        self.rows.spans.iter().map(row).collect()
    }
}

/// A matrix of keys and values as a context.
pub(crate) fn whole(keys_values: &Matrix, kv: usize) -> Context<'_> {
    Context {
        data: keys_values.data(),
        stride: keys_values.cols(),
        key: 0,
        value: kv,
        len: keys_values.rows(),
    }
}
