//! A store that is read by plain HTTP: any static file server, a CDN before a bucket.
//!
//! Promises: asks for what it needs and lists nothing; a transfer goes on where it broke.

use std::io::{self, Read};

use cache::{Again, Objects, Refusal, RefusalKind, Sink};
use ureq::Agent;
use ureq::http::{Response, StatusCode, header};

use crate::agent::{agent, io_kind, refusal};
use crate::{Env, Settings, TOKEN};

/// Bytes handed over at a time.
const PIECE: usize = 256 << 10;
/// Redirects that are followed.
const REDIRECTS: u32 = 5;

pub(crate) struct Web {
    url: String,
    agent: Agent,
    token: Option<String>,
}

impl Web {
    pub(crate) fn open(url: &str, settings: &Settings, env: &Env<'_>) -> Result<Self, String> {
        Ok(Self {
            url: url.to_owned(),
            agent: agent(settings, REDIRECTS, env)?,
            token: env(TOKEN).filter(|token| !token.is_empty()),
        })
    }

    fn authorization(&self) -> Option<String> {
        let token = self.token.as_ref()?;
        Some(format!("Bearer {token}"))
    }
}

/// Whether the object is there; what is neither is a refusal.
fn there<T>(response: &Response<T>) -> Result<bool, Refusal> {
    let status = response.status();
    let kind = match status {
        status if status.is_success() => return Ok(true),
        StatusCode::NOT_FOUND | StatusCode::GONE => return Ok(false),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => RefusalKind::Denied,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => RefusalKind::Passing,
        status if status.is_server_error() => RefusalKind::Passing,
        _ => RefusalKind::Senseless,
    };
    Err(Refusal::new(kind, format!("the server said {status}")))
}

fn unable<T>() -> Result<T, Refusal> {
    let cause = "a store that is read by HTTP cannot be written to or listed";
    Err(Refusal::new(RefusalKind::Unable, cause))
}

impl Objects for Web {
    fn get(&self, path: &str, from: u64, sink: &mut Sink<'_>) -> Result<bool, Refusal> {
        let mut request = self.agent.get(format!("{}/{path}", self.url));
        if let Some(value) = self.authorization() {
            request = request.header(header::AUTHORIZATION, value);
        }
        if from > 0 {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        let mut response = request.call().map_err(|error| refusal(&error))?;
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            return Ok(true);
        }
        if !there(&response)? {
            return Ok(false);
        }
        // A server that knows no ranges sends all of it: what is known already is passed over.
        let mut over = match response.status() {
            StatusCode::PARTIAL_CONTENT => 0,
            _ => from,
        };
        let mut body = response.body_mut().as_reader();
        let mut buffer = vec![0; PIECE];
        loop {
            let read = match body.read(&mut buffer) {
                Ok(0) => return Ok(true),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Refusal::new(io_kind(&error), error.to_string())),
            };
            let known = over.min(read as u64);
            over -= known;
            let piece = &buffer[known as usize..read];
            if !piece.is_empty() {
                sink(piece).map_err(|error| Refusal::own(&error))?;
            }
        }
    }

    fn size(&self, path: &str) -> Result<Option<u64>, Refusal> {
        let mut request = self.agent.head(format!("{}/{path}", self.url));
        if let Some(value) = self.authorization() {
            request = request.header(header::AUTHORIZATION, value);
        }
        let response = request.call().map_err(|error| refusal(&error))?;
        if !there(&response)? {
            return Ok(None);
        }
        let length = response.headers().get(header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        Ok(Some(length.unwrap_or(0)))
    }

    fn put(&self, _: &str, _: &[u8], _: bool) -> Result<bool, Refusal> {
        unable()
    }

    fn put_parts(
        &self,
        _: &str,
        _: &mut dyn Read,
        _: u64,
        again: &Again<'_>,
    ) -> Result<(), Refusal> {
        again(&mut || unable())
    }

    fn list(&self, _: &str, _: &mut dyn FnMut(&str, u64)) -> Result<(), Refusal> {
        unable()
    }
}
