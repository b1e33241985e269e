//! The HTTP client of every store: `ureq`, which the stages use, too.
//!
//! Promises: a server that says nothing is noticed, a long transfer is not cut off; nothing is
//! compressed on the way, for sizes count.

use std::time::Duration;

use cache::{Refusal, RefusalKind};
use ureq::Agent;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

use crate::{Env, Settings};

const CONNECT: Duration = Duration::from_secs(5);

/// A client; `redirects` it follows by itself.
pub(crate) fn agent(settings: &Settings, redirects: u32, env: &Env<'_>) -> Result<Agent, String> {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(redirects)
        .timeout_connect(Some(CONNECT.min(settings.timeout)))
        .timeout_recv_response(Some(settings.timeout))
        .timeout_per_read(Some(settings.timeout))
        .timeout_per_write(Some(settings.timeout))
        .max_idle_connections(64)
        .max_idle_connections_per_host(32)
        .accept_encoding("identity")
        .user_agent(concat!("tunesmith/", env!("CARGO_PKG_VERSION")))
        .tls_config(TlsConfig::builder().root_certs(roots(env)?).build());
    Ok(config.build().new_agent())
}

/// Mozilla's roots, or those of `SSL_CERT_FILE`.
fn roots(env: &Env<'_>) -> Result<RootCerts, String> {
    let Some(path) = env("SSL_CERT_FILE").filter(|path| !path.is_empty()) else {
        return Ok(RootCerts::WebPki);
    };
    let bad = |cause: String| format!("`SSL_CERT_FILE` ({path}) cannot be used: {cause}");
    let pem = std::fs::read(&path).map_err(|error| bad(error.to_string()))?;
    let mut certificates = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(found) = item.map_err(|error| bad(error.to_string()))? {
            certificates.push(found);
        }
    }
    Ok(RootCerts::from(certificates))
}

/// What an error of the client means.
pub(crate) fn kind(error: &ureq::Error) -> RefusalKind {
    use ureq::{Error, Timeout};
    match error {
        Error::HostNotFound
        | Error::ConnectionFailed
        | Error::Timeout(Timeout::Connect | Timeout::Resolve) => RefusalKind::Unreachable,
        Error::Timeout(_) => RefusalKind::Slow,
        Error::Io(error) => io_kind(error),
        Error::BadUri(_) | Error::InvalidProxyUrl | Error::Tls(_) | Error::Pem(_) => {
            RefusalKind::Senseless
        }
        _ => RefusalKind::Passing,
    }
}

/// What a broken connection means.
pub(crate) fn io_kind(error: &std::io::Error) -> RefusalKind {
    use std::io::ErrorKind;
    if let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref()) {
        return kind(inner);
    }
    match error.kind() {
        ErrorKind::ConnectionRefused
        | ErrorKind::HostUnreachable
        | ErrorKind::NetworkUnreachable
        | ErrorKind::AddrNotAvailable => RefusalKind::Unreachable,
        ErrorKind::TimedOut | ErrorKind::WouldBlock => RefusalKind::Slow,
        _ => RefusalKind::Passing,
    }
}

/// A refusal that came from the client.
pub(crate) fn refusal(error: &ureq::Error) -> Refusal {
    Refusal::new(kind(error), error.to_string())
}
