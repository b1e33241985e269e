//! What a remote store can do: six requests about objects by path.
//!
//! Promises: blocking, usable from many threads; one call is one request, but for
//! [`Objects::put_parts`], which repeats its own. Whoever implements it says why it refused, in
//! one of a few kinds; nobody here knows HTTP. Must not know: records, digests.

use std::io::{self, Read};

/// Takes an object's bytes piece by piece.
pub type Sink<'a> = dyn FnMut(&[u8]) -> io::Result<()> + 'a;

/// Repeats a request as often as it makes sense.
pub type Again<'a> = dyn Fn(&mut Request<'_>) -> Result<(), Refusal> + 'a;

/// One request.
pub type Request<'a> = dyn FnMut() -> Result<(), Refusal> + 'a;

/// A place that holds objects by path (`v1/blobs/ab/…`, plain ASCII).
pub trait Objects: Send + Sync {
    /// Hands over an object's bytes from the byte `from` on; `false` if there is no such object.
    fn get(&self, path: &str, from: u64, sink: &mut Sink<'_>) -> Result<bool, Refusal>;

    /// An object's size, if it is there.
    fn size(&self, path: &str) -> Result<Option<u64>, Refusal>;

    /// Stores a small object whole. Unless `over`, one that is there already stays: `false`.
    fn put(&self, path: &str, bytes: &[u8], over: bool) -> Result<bool, Refusal>;

    /// Stores a large object in parts; it is there when all of it is. `again` repeats each
    /// request. An object that is there is replaced.
    fn put_parts(
        &self,
        path: &str,
        bytes: &mut dyn Read,
        size: u64,
        again: &Again<'_>,
    ) -> Result<(), Refusal>;

    /// Path and size of every object below `folder`.
    fn list(&self, folder: &str, each: &mut dyn FnMut(&str, u64)) -> Result<(), Refusal>;

    /// Ends what is under way as soon as it can; later calls may refuse.
    fn stop(&self) {}
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct Refusal {
    /// The kind.
    pub kind: RefusalKind,
    /// The cause, for people.
    pub cause: String,
}

/// What a refusal means for those to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// It may pass: a busy server, a broken connection.
    Passing,
    /// Nobody answers at that address.
    Unreachable,
    /// No answer in time.
    Slow,
    /// These credentials may not.
    Denied,
    /// The bucket or folder does not exist.
    Nowhere,
    /// Such a store cannot do that.
    Unable,
    /// The other side said something that makes no sense.
    Senseless,
    /// This side failed: its disk, mostly.
    Own,
    /// It was told to stop, or is left alone.
    Stopped,
}

impl Refusal {
    /// A refusal.
    pub fn new(kind: RefusalKind, cause: impl Into<String>) -> Self {
        let cause = cause.into();
        Self { kind, cause }
    }

    /// An error of this side.
    pub fn own(error: &io::Error) -> Self {
        Self::new(RefusalKind::Own, error.to_string())
    }

    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self.kind {
            RefusalKind::Passing => "remote::busy",
            RefusalKind::Unreachable => "remote::unreachable",
            RefusalKind::Slow => "remote::timeout",
            RefusalKind::Denied => "remote::denied",
            RefusalKind::Nowhere => "remote::nowhere",
            RefusalKind::Unable => "remote::unable",
            RefusalKind::Senseless => "remote::senseless",
            RefusalKind::Own => "remote::own",
            RefusalKind::Stopped => "remote::stopped",
        }
    }

    /// Whether the same request may be answered the next time.
    pub(crate) fn passing(&self) -> bool {
        matches!(
            self.kind,
            RefusalKind::Passing | RefusalKind::Unreachable | RefusalKind::Slow
        )
    }

    /// How much it counts towards leaving the remote alone.
    pub(crate) fn weight(&self) -> u32 {
        match self.kind {
            RefusalKind::Stopped | RefusalKind::Own => 0,
            RefusalKind::Passing | RefusalKind::Senseless => 1,
            RefusalKind::Unreachable => 4,
            RefusalKind::Slow => 5,
            RefusalKind::Denied | RefusalKind::Unable => 7,
            RefusalKind::Nowhere => 20,
        }
    }
}
