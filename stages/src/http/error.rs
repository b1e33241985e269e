//! What can go wrong between here and an answer.
//!
//! Promises: addresses are shown without query or user part, so no signed link or
//! password is ever printed.

use std::path::PathBuf;

use crate::contract::StageError;

use super::shown;

/// Why no answer came.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("`{url}` is needed, and this run may not use the network")]
    Offline { url: String },
    #[error("`{url}` cannot be reached: {cause}")]
    Unreachable { url: String, cause: String },
    #[error("`{url}` did not answer in time: {cause}")]
    TimedOut { url: String, cause: String },
    #[error("`{url}`: the connection is not safe: {cause}")]
    Tls { url: String, cause: String },
    #[error("`{url}` redirects more than {hops} times")]
    RedirectLoop { url: String, hops: usize },
    #[error("`{from}` redirects to `{to}`, which is not encrypted")]
    Downgrade { from: String, to: String },
    #[error("`{url}` is not an address: {cause}")]
    BadUrl { url: String, cause: String },
    #[error("the token for `{url}` holds characters a header cannot carry")]
    BadToken { url: String },
    #[error("`SSL_CERT_FILE` `{path}`: {cause}")]
    BadCertificates { path: String, cause: String },
    #[error("`{url}` answers {status}: {said}")]
    Status {
        url: String,
        status: u16,
        said: String,
    },
    #[error("`{url}` answers something that is not JSON: {cause}")]
    NotJson { url: String, cause: String },
    #[error("`{}`: {cause}", path.display())]
    File {
        path: PathBuf,
        cause: std::io::Error,
    },
    #[error("cancelled")]
    Cancelled,
}

impl HttpError {
    /// Sorts an error of the client library.
    pub(super) fn from_ureq(error: ureq::Error, url: &str) -> Self {
        let url = shown(url);
        let cause = error.to_string();
        match error {
            ureq::Error::Timeout(_) => Self::TimedOut { url, cause },
            ureq::Error::Tls(_) | ureq::Error::Rustls(_) | ureq::Error::Pem(_) => {
                Self::Tls { url, cause }
            }
            // The library's own words repeat the address, password and all.
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => Self::BadUrl {
                url,
                cause: "no host can be read from it".to_owned(),
            },
            ureq::Error::Io(inner) if inner.kind() == std::io::ErrorKind::TimedOut => {
                Self::TimedOut { url, cause }
            }
            _ => Self::Unreachable { url, cause },
        }
    }

    /// Whether asking again may help. Without `repeatable` only a request that cannot
    /// have arrived is asked again, and a library error does not say that.
    pub(super) fn may_pass(&self, repeatable: bool) -> bool {
        repeatable && matches!(self, Self::Unreachable { .. } | Self::TimedOut { .. })
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Offline { .. } => "net::offline",
            Self::Unreachable { .. } => "net::unreachable",
            Self::TimedOut { .. } => "net::timeout",
            Self::Tls { .. } => "net::tls",
            Self::RedirectLoop { .. } => "net::redirect-loop",
            Self::Downgrade { .. } => "net::downgrade",
            Self::BadUrl { .. } => "net::bad-url",
            Self::BadToken { .. } => "net::bad-token",
            Self::BadCertificates { .. } => "net::certificates",
            Self::Status { status: 429, .. } => "net::rate-limited",
            Self::Status { .. } => "net::status",
            Self::NotJson { .. } => "net::not-json",
            Self::File { .. } => "io::failed",
            Self::Cancelled => "stage::cancelled",
        }
    }

    fn mend(&self) -> &'static str {
        match self {
            Self::Offline { .. } => "run once without `--frozen`, or unset `HF_HUB_OFFLINE`",
            Self::Unreachable { .. } => {
                "check the connection, `HTTPS_PROXY` and the host name; what has arrived is kept"
            }
            Self::TimedOut { .. } => "run again: what has arrived is kept",
            Self::Tls { .. } => {
                "behind a proxy that opens TLS, let `SSL_CERT_FILE` name its certificate"
            }
            Self::RedirectLoop { .. } => "open the address in a browser; it may ask for a login",
            Self::Downgrade { .. } => "use an address that stays on https",
            Self::BadUrl { .. } => "write it as `https://host/path`",
            Self::BadToken { .. } => "copy the token again, without quotes or line breaks",
            Self::BadCertificates { .. } => "let `SSL_CERT_FILE` name a PEM file of certificates",
            Self::Status { status: 429, .. } => "wait a while and run again",
            Self::Status { status, .. } if *status >= 500 => {
                "the fault is at the server: run again later"
            }
            Self::Status { status: 404, .. } => "check the address",
            Self::Status { .. } => "check the address and whether it needs a login",
            Self::NotJson { .. } => "check that the endpoint is the API, not a web page",
            Self::File { .. } => "check that path and the free disk space",
            Self::Cancelled => "run again to go on",
        }
    }
}

impl From<HttpError> for StageError {
    fn from(error: HttpError) -> Self {
        let passes = match &error {
            HttpError::Unreachable { .. } | HttpError::TimedOut { .. } => true,
            HttpError::Status { status, .. } => *status == 429 || *status >= 500,
            _ => false,
        };
        let stage = Self::new(error.code(), error.to_string(), error.mend());
        if passes { stage.retryable() } else { stage }
    }
}
