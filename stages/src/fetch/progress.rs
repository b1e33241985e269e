//! Progress in bytes, told often enough to look alive and seldom enough to cost nothing.

use crate::contract::Context;

use super::FetchError;

/// Bytes between two messages.
const STRIDE: u64 = 1 << 20;

/// How far a transfer of several files is.
pub(super) struct Progress<'a> {
    ctx: &'a Context<'a>,
    what: String,
    done: u64,
    total: Option<u64>,
    learns: bool,
    told: Option<u64>,
}

impl<'a> Progress<'a> {
    pub(super) fn new(ctx: &'a Context<'a>, what: &str, total: Option<u64>) -> Self {
        Self {
            ctx,
            what: what.to_owned(),
            done: 0,
            total,
            learns: false,
            told: None,
        }
    }

    /// Of a single file whose size its server will say.
    pub(super) fn of_one(ctx: &'a Context<'a>, what: &str) -> Self {
        Self {
            learns: true,
            ..Self::new(ctx, what, None)
        }
    }

    /// The size of the file at hand.
    pub(super) fn expect(&mut self, size: u64) {
        if self.learns {
            self.total = Some(size);
        }
    }

    /// `bytes` more have arrived. Also where a cancelled run stops.
    pub(super) fn add(&mut self, bytes: u64) -> Result<(), FetchError> {
        self.done += bytes;
        let due = self.told.is_none_or(|told| self.done - told >= STRIDE);
        if due || Some(self.done) == self.total {
            self.tell();
        }
        self.ctx.go_on().map_err(|_| FetchError::Cancelled)
    }

    /// `bytes` have to come again: the server could not continue.
    pub(super) fn take_back(&mut self, bytes: u64) {
        self.done -= bytes.min(self.done);
        self.told = None;
    }

    fn tell(&mut self) {
        self.told = Some(self.done);
        self.ctx
            .progress(&self.what, self.done, self.total, "bytes");
    }
}
