//! The `ureq` agent: time limits, certificates, no redirects of its own.
//!
//! Promises: a stalled server is noticed (no bytes for a minute), a long transfer is not
//! cut off. Redirects stay with the caller, who decides what travels along.

use std::time::Duration;

use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

use super::{Environment, HttpError};

const CONNECT: Duration = Duration::from_secs(20);
/// A server that stores an adapter of 300 MB may think for a while before it answers.
const FIRST_BYTE: Duration = Duration::from_mins(5);
/// How long a download may bring nothing.
pub(super) const SILENCE: Duration = Duration::from_mins(1);

pub(super) fn agent(environment: &Environment) -> Result<ureq::Agent, HttpError> {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_connect(Some(CONNECT))
        .timeout_recv_response(Some(FIRST_BYTE))
        .timeout_per_read(Some(FIRST_BYTE))
        .timeout_per_write(Some(SILENCE))
        .user_agent(concat!("tunesmith/", env!("CARGO_PKG_VERSION")))
        .tls_config(TlsConfig::builder().root_certs(roots(environment)?).build());
    Ok(config.build().new_agent())
}

/// Mozilla's roots, or those of `SSL_CERT_FILE`: behind a proxy that opens TLS nothing
/// else works.
fn roots(environment: &Environment) -> Result<RootCerts, HttpError> {
    let Some(path) = environment.get("SSL_CERT_FILE") else {
        return Ok(RootCerts::WebPki);
    };
    let bad = |cause: String| HttpError::BadCertificates {
        path: path.to_owned(),
        cause,
    };
    let pem = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
    let mut certificates = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| bad(error.to_string()))? {
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() {
        return Err(bad("it holds no certificate".to_owned()));
    }
    Ok(RootCerts::from(certificates))
}
