//! A content-addressed store of files and folders, and of records that say which key made them.
//!
//! Promises:
//! - a blob or a record exists when it is renamed into place; after `kill -9`, a full disk or a
//!   power cut there is the whole of it or nothing;
//! - bytes are named by their blake3 digest, and a blob whose stat changed is rehashed before it
//!   is used again: a bad one is put aside in quarantine and counts as missing;
//! - a file is hashed again only when its size, mtime, ctime or inode changed (with git's
//!   racy-clean rule);
//! - several processes may use one store at once.
//!
//! Must not know: stages, pipelines, YAML, the terminal.

#![warn(missing_docs)]
#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests damage what they like")
)]

mod aside;
mod collect;
mod commit;
mod compare;
mod digest;
mod disk;
mod durable;
mod error;
mod glance;
mod incoming;
mod ingest;
mod key;
mod lease;
mod lock;
mod materialise;
mod memo;
mod network;
mod presence;
mod read;
mod record;
mod remote;
mod roots;
mod session;
mod stat;
mod store;
mod survey;
mod tree;
mod verify;
mod walk;

pub use collect::{Bounds, Collected};
pub use commit::Ticket;
pub use compare::{Difference, DifferenceKind};
pub use digest::{BadDigest, Digest};
pub use disk::{Change, Witness};
pub use durable::Syncing;
pub use error::Error;
pub use glance::{Glance, Glances, ResultLooks};
pub use key::{Difference as PartDifference, KeyParts};
pub use lease::Pace;
pub use lock::{Holder, KeyLock};
pub use memo::{Index, PathLooks};
pub use record::{Lack, LackCause, Log, Made, Record};
pub use remote::{
    Again, Folder, Moved, Objects, Refusal, RefusalKind, Remote, RemoteFault, Request, Seen, Sink,
    Unmoved,
};
pub use roots::Root;
pub use session::Scratch;
pub use store::{Kept, Locking, OUTSIDE_ABOVE, Opening, Store, Taken, is_shared};
pub use survey::{Amount, RecordUsage, Usage};
pub use tree::{Entry, Tree};
pub use verify::{Fault, FaultKind, Verification};
