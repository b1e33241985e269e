//! A layer where ranks divide the prefix: its keys and values are gathered before the attention, and their
//! gradients go back to whoever ran the tokens.
//!
//! Promises: gradients are added in f32, this rank's first, then the others' in their order, and join the
//! token's own gradient at the end; without a division nothing happens. It must not know how ranks reach each other.

use std::ops::Range;

use super::super::attention::ContextGradient;
use super::super::exec::Exec;
use super::super::memory::Region;
use super::super::nccl::Swap;
use super::super::pass::{Context, Span};
use super::{Backward, Kept, Run};

impl Run<'_> {
    /// Tells the others the keys and values of this rank's tokens, and gathers all into `whole`.
    pub(super) fn gather(&self, exec: &mut Exec<'_>, kept: &Kept, whole: Option<Context>) {
        let (Some(division), Some(whole)) = (&self.pass.division, whole) else {
            return;
        };
        let (query, kv) = (self.base.config.query_width(), self.base.config.kv_width());
        let whole = whole.side_by_side();
        let part = |tokens: Range<usize>| whole.slice(tokens.start, tokens.len());
        let own = part(division.own());
        exec.copy(own, kept.qkv.slice(0, own.rows).columns(query, 2 * kv));
        let swaps = division.others().map(|(rank, tokens)| Swap {
            rank,
            send: own.region(),
            receive: part(tokens).region(),
        });
        exec.swap(&swaps.collect::<Vec<_>>());
    }

    /// What the prefix's tokens in this pass look at before their own.
    pub(super) fn earlier(&self, whole: Option<Context>) -> Option<Context> {
        let before = self.pass.division.as_ref()?.own().start;
        let whole = whole.filter(|_| before > 0)?;
        Some(Context {
            keys: whole.keys.slice(0, before),
            values: whole.values.slice(0, before),
        })
    }

    /// The attention backward of this rank's part of the prefix, after that of the rows, which left `gradient` for
    /// all of it in `s`.
    pub(super) fn divided_back(
        &self,
        exec: &mut Exec<'_>,
        span: Span,
        kept: &Kept,
        s: &Backward,
        whole: Option<Context>,
    ) {
        let Some(division) = &self.pass.division else {
            return;
        };
        let kv = self.base.config.kv_width();
        let gradient = ContextGradient::over(s.joint);
        let earlier = self.earlier(whole);
        let into = earlier.map(|e| rows_of(gradient, 0..e.keys.rows, kv));
        self.call(span, kept, earlier)
            .backward(exec, &self.gradients(s, span, into, None));
        let own = division.own();
        let mut swaps = Vec::new();
        for (at, (rank, tokens)) in division.others().enumerate() {
            let theirs = rows_of(gradient, tokens, kv);
            let sent = self.received(s, at);
            for (send, receive) in [(theirs.keys, sent.keys), (theirs.values, sent.values)] {
                swaps.push(Swap {
                    rank,
                    send,
                    receive,
                });
            }
        }
        exec.swap(&swaps);
        let sum = rows_of(gradient, own, kv);
        for at in 0..division.others().count() {
            let sent = self.received(s, at);
            exec.add_floats(sum.keys, sent.keys, kv);
            exec.add_floats(sum.values, sent.values, kv);
        }
        let (query, rows) = (
            self.base.config.query_width(),
            s.d_qkv.slice(0, span.tokens),
        );
        exec.add_rows(rows, query, sum.keys, kv, false);
        exec.add_rows(rows, query + kv, sum.values, kv, false);
    }

    /// Where the other ranks' gradients for this rank's tokens arrive.
    fn received(&self, s: &Backward, at: usize) -> ContextGradient {
        let bytes = 4 * self.pass.joint * 2 * self.base.config.kv_width();
        ContextGradient::over(s.received.part(at * bytes, bytes))
    }
}

/// The gradient of some of the prefix's tokens.
fn rows_of(gradient: ContextGradient, tokens: Range<usize>, kv: usize) -> ContextGradient {
    let part = |all: Region| all.part(4 * kv * tokens.start, 4 * kv * tokens.len());
    ContextGradient {
        keys: part(gradient.keys),
        values: part(gradient.values),
    }
}
