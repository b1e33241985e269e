//! An answer: its status, its headers (and those of the first hop), its body.

use std::io::Read;

use serde_json::Value;
use ureq::http::{HeaderMap, Response};

use super::{HttpError, shown};

/// The longest text of a failed answer that is read.
const MOST_TEXT: u64 = 64 * 1024;
/// The longest JSON answer that is read: a hub repository may list many files.
const MOST_JSON: u64 = 64 * 1024 * 1024;

/// An answer of any status.
pub(crate) struct Reply {
    /// The status.
    pub(crate) status: u16,
    /// The address that answered, after redirects.
    pub(crate) url: String,
    headers: HeaderMap,
    first: Option<HeaderMap>,
    body: Option<ureq::Body>,
    text: Option<String>,
}

impl Reply {
    pub(super) fn new(answer: Response<ureq::Body>, first: Option<HeaderMap>, url: String) -> Self {
        let (parts, body) = answer.into_parts();
        Self {
            status: parts.status.as_u16(),
            url,
            headers: parts.headers,
            first,
            body: Some(body),
            text: None,
        }
    }

    /// A header of the last answer.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// A header of the first answer, before redirects: a hub names the file's hash there.
    pub(crate) fn first_header(&self, name: &str) -> Option<&str> {
        let headers = self.first.as_ref().unwrap_or(&self.headers);
        headers.get(name)?.to_str().ok()
    }

    /// Whether it succeeded.
    pub(crate) fn ok(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Whether asking again later may give another answer. When repeating may do harm,
    /// only 429 says that nothing was done.
    pub(super) fn busy(&self, repeatable: bool) -> bool {
        self.status == 429 || (repeatable && (self.status == 408 || self.status >= 500))
    }

    /// The body as text, the first 64 KiB of it; may be asked twice.
    pub(crate) fn text(&mut self) -> String {
        if self.text.is_none() {
            let mut bytes = Vec::new();
            if let Some(body) = self.body.take() {
                // A failed answer whose text breaks off is still a failed answer.
                let _ = body.into_reader().take(MOST_TEXT).read_to_end(&mut bytes);
            }
            self.text = Some(String::from_utf8_lossy(&bytes).into_owned());
        }
        self.text.clone().unwrap_or_default()
    }

    /// The whole body as text, at most `most` bytes of it; an error when it breaks off.
    pub(crate) fn text_of(&mut self, most: u64) -> Result<String, HttpError> {
        if self.text.is_none() {
            let mut bytes = Vec::new();
            if let Some(body) = self.body.take() {
                let mut reader = body.into_reader().take(most);
                reader
                    .read_to_end(&mut bytes)
                    .map_err(|error| HttpError::Unreachable {
                        url: shown(&self.url),
                        cause: error.to_string(),
                    })?;
            }
            self.text = Some(String::from_utf8_lossy(&bytes).into_owned());
        }
        Ok(self.text.clone().unwrap_or_default())
    }

    /// The body as a stream, with no limit.
    pub(crate) fn into_reader(mut self) -> Box<dyn Read> {
        match self.body.take() {
            Some(body) => Box::new(body.into_reader()),
            None => Box::new(std::io::Cursor::new(self.text.unwrap_or_default())),
        }
    }

    /// The body as JSON.
    pub(crate) fn json(self) -> Result<Value, HttpError> {
        let url = shown(&self.url);
        let mut bytes = Vec::new();
        self.into_reader()
            .take(MOST_JSON)
            .read_to_end(&mut bytes)
            .map_err(|error| HttpError::Unreachable {
                url: url.clone(),
                cause: error.to_string(),
            })?;
        serde_json::from_slice(&bytes).map_err(|error| HttpError::NotJson {
            url,
            cause: error.to_string(),
        })
    }

    /// A failed answer as an error. `said` is what the server says, already cleaned.
    pub(crate) fn refused(&self, said: &str) -> HttpError {
        let line = said.lines().find(|line| !line.trim().is_empty());
        let line: String = line.unwrap_or("nothing more").chars().take(200).collect();
        HttpError::Status {
            url: shown(&self.url),
            status: self.status,
            said: line,
        }
    }
}
