//! The object stores behind a remote cache: S3 and what speaks its protocol, Google Cloud Storage,
//! Azure, plain HTTP to read from, a folder.
//!
//! Promises: whatever the store, six blocking requests ([`cache::Objects`]) from any thread; the
//! only async runtime is a small one inside this crate, which nobody outside sees; credentials come
//! from the environment alone and are handed back so that they can be kept out of messages.
//! Must not know: results, stages, who asks.

#![warn(missing_docs)]

mod address;
mod agent;
#[cfg(feature = "cloud")]
mod cloud;
#[cfg(feature = "cloud")]
mod connector;
#[cfg(feature = "cloud")]
mod service;
mod web;

use std::time::Duration;

use cache::{Folder, Objects};

pub use address::{Address, BadAddress};

/// How a store is reached.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where S3, Google or Azure answer, if not at their own addresses: `http://127.0.0.1:9000`.
    pub endpoint: Option<String>,
    /// The region of an S3 bucket; else `AWS_REGION`.
    pub region: Option<String>,
    /// How long an answer may take to begin, and a transfer to bring nothing.
    pub timeout: Duration,
}

/// Variables whose values are secret.
const SECRETS: [&str; 13] = [
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_CLIENT_SECRET",
    "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_CLIENT_SECRET",
    "AZURE_STORAGE_SAS_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_TOKEN",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
    "GOOGLE_BEARER_TOKEN",
    TOKEN,
];

/// Sent as `Authorization: Bearer` to a store that is read by HTTP.
const TOKEN: &str = "TUNESMITH_REMOTE_TOKEN";

/// The environment.
pub type Env<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// Opens the store at an address; no request is sent. The error is a sentence.
pub fn open(
    address: &Address,
    settings: &Settings,
    env: &Env<'_>,
) -> Result<Box<dyn Objects>, String> {
    match address {
        Address::Folder(path) => Ok(Box::new(Folder::new(path))),
        Address::Web(url) => Ok(Box::new(web::Web::open(url, settings, env)?)),
        #[cfg(feature = "cloud")]
        Address::Cloud {
            service,
            bucket,
            prefix,
        } => Ok(Box::new(cloud::Cloud::open(
            *service, bucket, prefix, settings, env,
        )?)),
        #[cfg(not(feature = "cloud"))]
        Address::Cloud { .. } => {
            Err("this `tunesmith` was built without its feature `cloud`".to_owned())
        }
    }
}

/// Values in the environment that no message may show.
pub fn secrets(env: &Env<'_>) -> Vec<String> {
    let values = SECRETS.iter().filter_map(|name| env(name));
    values.filter(|value| value.len() >= 4).collect()
}
