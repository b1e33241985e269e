//! One file over HTTP into a part file that survives a kill.
//!
//! Promises: the part only ever grows by bytes the server sent for its place in the file;
//! a broken transfer goes on where it stopped, as long as bytes keep coming; the sha256
//! is checked over the whole, earlier parts included, and a part that turns out wrong is
//! removed.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use sha2::{Digest, Sha256};

use crate::http::{Http, HttpError, Reply, Request, shown};
use crate::sha256;

use super::FetchError;
use super::progress::Progress;

/// Bytes that count as getting on: after them a broken transfer has all its attempts again.
const HEADWAY: u64 = 1 << 20;

/// What to download.
pub(super) struct Download<'a> {
    pub(super) url: String,
    pub(super) bearer: Option<&'a SecretString>,
    /// In bytes, when known before.
    pub(super) size: Option<u64>,
    /// When known before; else a hash the hub states in its answer is used.
    pub(super) sha256: Option<String>,
}

/// Downloads into `part`, which must not be there or hold the beginning of the same file.
/// Gives its size in bytes, or the answer when the server refuses (a status from 400).
pub(super) fn download(
    http: &Http<'_>,
    wanted: &Download<'_>,
    part: &Path,
    progress: &mut Progress<'_>,
) -> Result<Result<u64, Reply>, FetchError> {
    let mut file = Part::open(part)?;
    file.prime(progress)?;
    let resumed = file.len > 0;
    match attempt(http, wanted, &mut file, progress) {
        // The beginning may stem from other bytes (a file that changed under its name):
        // one more go without it.
        Err(FetchError::Checksum { .. }) if resumed => {
            http.context().log(format!(
                "{}: the kept part does not fit; starting anew",
                shown(&wanted.url)
            ));
            file.restart(progress)?;
            let again = attempt(http, wanted, &mut file, progress);
            clean(again, &file)
        }
        result => clean(result, &file),
    }
}

/// Removes a part that is known to be wrong.
fn clean<T>(result: Result<T, FetchError>, file: &Part) -> Result<T, FetchError> {
    if matches!(result, Err(FetchError::Checksum { .. })) {
        // It is wrong whether or not it can be removed; the next run checks again.
        let _ = std::fs::remove_file(&file.path);
    }
    result
}

fn attempt(
    http: &Http<'_>,
    wanted: &Download<'_>,
    file: &mut Part,
    progress: &mut Progress<'_>,
) -> Result<Result<u64, Reply>, FetchError> {
    let patience = http.patience();
    let mut expected = (wanted.size, wanted.sha256.clone());
    let mut failures = 0;
    if wanted.size.is_some_and(|size| file.len > size) {
        file.restart(progress)?;
    }
    let mut mark = file.len;
    while expected.0.is_none_or(|size| file.len < size) {
        let reply = ask(http, wanted, file.len)?;
        if reply.status == 416 && file.len > 0 {
            if ends_at(&reply, file.len) {
                break;
            }
            file.restart(progress)?;
            continue;
        }
        if !reply.ok() {
            return Ok(Err(reply));
        }
        if file.len > 0 && !continues(&reply, file.len) {
            file.restart(progress)?;
            if reply.status == 206 {
                continue;
            }
        }
        learn(&reply, file.len, &mut expected);
        if let Some(size) = expected.0 {
            progress.expect(size);
        }
        match file.take(reply, expected.0, progress)? {
            Ended::Whole => break,
            Ended::Broken(why) => {
                failures = if file.len - mark.min(file.len) >= HEADWAY {
                    1
                } else {
                    failures + 1
                };
                mark = file.len;
                if failures >= patience.attempts {
                    return Err(match expected.0 {
                        Some(size) => FetchError::Truncated {
                            what: format!("`{}`", shown(&wanted.url)),
                            expected: size,
                            found: file.len,
                        },
                        None => FetchError::Http(HttpError::Unreachable {
                            url: shown(&wanted.url),
                            cause: why,
                        }),
                    });
                }
                let wait = patience.step(failures);
                patience.wait(http.context(), wait)?;
            }
        }
    }
    file.flush()?;
    let found = file.sha256();
    match expected.1 {
        Some(expected) if expected != found => Err(FetchError::Checksum {
            what: format!("`{}`", shown(&wanted.url)),
            expected,
            found,
        }),
        _ => Ok(Ok(file.len)),
    }
}

fn ask(http: &Http<'_>, wanted: &Download<'_>, from: u64) -> Result<Reply, FetchError> {
    // Bytes are counted and resumed, so they must come as they are.
    let mut request = Request::get(&wanted.url)
        .bearer(wanted.bearer)
        .header("accept-encoding", "identity".to_owned());
    if from > 0 {
        request = request.header("range", format!("bytes={from}-"));
    }
    Ok(http.send(&request)?)
}

/// Whether an answer goes on at byte `from`.
fn continues(reply: &Reply, from: u64) -> bool {
    let range = reply.header("content-range").unwrap_or_default();
    reply.status == 206 && range.trim().starts_with(&format!("bytes {from}-"))
}

/// Whether a refused range says that the file ends just where we are.
fn ends_at(reply: &Reply, have: u64) -> bool {
    let range = reply.header("content-range").unwrap_or_default();
    range.trim() == format!("bytes */{have}")
}

/// What an answer says about the whole file.
fn learn(reply: &Reply, have: u64, expected: &mut (Option<u64>, Option<String>)) {
    let number = |text: Option<&str>| text.and_then(|text| text.trim().parse::<u64>().ok());
    if expected.0.is_none() {
        let rest = number(reply.header("content-length")).map(|rest| have + rest);
        expected.0 = number(reply.first_header("x-linked-size")).or(rest);
    }
    if expected.1.is_none() {
        expected.1 = reply.first_header("x-linked-etag").and_then(sha_of);
    }
}

/// The sha256 in an entity tag, when it is one: large files of the hub have it there.
pub(super) fn sha_of(tag: &str) -> Option<String> {
    let bare = tag.trim().trim_start_matches("W/").trim_matches('"');
    sha256::is_hash(bare).then(|| bare.to_ascii_lowercase())
}

enum Ended {
    Whole,
    Broken(String),
}

/// The part file, its length and the hash of what it holds.
struct Part {
    path: PathBuf,
    file: File,
    len: u64,
    hasher: Sha256,
}

impl Part {
    /// Opens the part. A part that another process is writing is left to it: this one
    /// starts its own.
    fn open(path: &Path) -> Result<Self, FetchError> {
        let fail = |error| FetchError::file(path, error);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| FetchError::file(folder, error))?;
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(fail)?;
        // Released with the file, also by a kill. A file system without locks is taken
        // as it is: the checksum still guards the result.
        if let Err(std::fs::TryLockError::WouldBlock) = file.try_lock() {
            return Err(FetchError::Busy {
                path: path.to_owned(),
            });
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            len: 0,
            hasher: Sha256::new(),
        })
    }

    /// Hashes what an earlier run left.
    fn prime(&mut self, progress: &mut Progress<'_>) -> Result<(), FetchError> {
        let fail = |error| FetchError::file(&self.path, error);
        let mut left = self.file.metadata().map_err(fail)?.len();
        let mut buffer = vec![0; 1 << 18];
        while left > 0 {
            let most = buffer
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            let read = self.file.read(&mut buffer[..most]).map_err(fail)?;
            if read == 0 {
                break;
            }
            self.hasher.update(&buffer[..read]);
            self.len += read as u64;
            left -= read as u64;
            progress.add(read as u64)?;
        }
        Ok(())
    }

    fn restart(&mut self, progress: &mut Progress<'_>) -> Result<(), FetchError> {
        progress.take_back(self.len);
        self.len = 0;
        self.hasher = Sha256::new();
        let start = self
            .file
            .set_len(0)
            .and_then(|()| self.file.seek(SeekFrom::Start(0)));
        start
            .map(|_| ())
            .map_err(|error| FetchError::file(&self.path, error))
    }

    /// Appends the answer's body.
    fn take(
        &mut self,
        reply: Reply,
        size: Option<u64>,
        progress: &mut Progress<'_>,
    ) -> Result<Ended, FetchError> {
        let mut body = reply.into_reader();
        let mut buffer = vec![0; 1 << 18];
        loop {
            let read = match body.read(&mut buffer) {
                Ok(read) => read,
                Err(error) => return Ok(Ended::Broken(error.to_string())),
            };
            if read == 0 {
                let whole = size.is_none_or(|size| self.len >= size);
                return Ok(if whole {
                    Ended::Whole
                } else {
                    Ended::Broken("the connection closed early".to_owned())
                });
            }
            let written = self.file.write_all(&buffer[..read]);
            written.map_err(|error| FetchError::file(&self.path, error))?;
            self.hasher.update(&buffer[..read]);
            self.len += read as u64;
            progress.add(read as u64)?;
        }
    }

    fn flush(&mut self) -> Result<(), FetchError> {
        self.file
            .flush()
            .map_err(|error| FetchError::file(&self.path, error))
    }

    fn sha256(&self) -> String {
        sha256::hex(&self.hasher.clone().finalize())
    }
}
