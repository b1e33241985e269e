//! A multipart form with one text field and one file, streamed from disk.
//!
//! The layout is the one `wrangler` 4 sends (field `file_name`, then part `file` named
//! `blob`), so a server that accepts wrangler accepts this. The body's length is known
//! before it starts: nothing is held in memory and nothing is chunked.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use crate::contract::Context;

use super::HttpError;

/// Fixed and not in any adapter: safetensors start with a length, JSON with a brace.
const BOUNDARY: &str = "----tunesmith-5b1f0c8e7a94d263";

/// The form.
pub(crate) struct Form {
    /// Value of the field `file_name`.
    pub(crate) file_name: String,
    /// The file sent as `file`.
    pub(crate) path: PathBuf,
}

impl Form {
    pub(super) fn content_type() -> String {
        format!("multipart/form-data; boundary={BOUNDARY}")
    }

    pub(super) fn open<'a>(&self, ctx: &'a Context<'a>) -> Result<FormReader<'a>, HttpError> {
        let fail = |cause| HttpError::File {
            path: self.path.clone(),
            cause,
        };
        let file = File::open(&self.path).map_err(fail)?;
        let size = file.metadata().map_err(fail)?.len();
        let head = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file_name\"\r\n\r\n{}\r\n\
             --{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"blob\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n",
            self.file_name
        );
        let tail = format!("\r\n--{BOUNDARY}--\r\n");
        let len = head.len() as u64 + size + tail.len() as u64;
        Ok(FormReader {
            ctx,
            what: format!("uploading {}", self.file_name),
            len,
            sent: 0,
            told: 0,
            inner: Box::new(
                Cursor::new(head)
                    .chain(file.take(size))
                    .chain(Cursor::new(tail)),
            ),
        })
    }
}

/// The form's bytes; tells how far it is and stops when the run does.
pub(super) struct FormReader<'a> {
    ctx: &'a Context<'a>,
    what: String,
    len: u64,
    sent: u64,
    told: u64,
    inner: Box<dyn Read>,
}

impl FormReader<'_> {
    pub(super) fn len(&self) -> u64 {
        self.len
    }
}

impl Read for FormReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ctx.cancel.load(Ordering::Relaxed) {
            return Err(io::Error::other("cancelled"));
        }
        let read = self.inner.read(buffer)?;
        self.sent += read as u64;
        if self.sent == self.len || self.sent - self.told >= 1 << 20 {
            self.told = self.sent;
            self.ctx
                .progress(&self.what, self.sent, Some(self.len), "bytes");
        }
        Ok(read)
    }
}
