//! `upload`: puts an adapter where it is served, and proves that it is applied there.
//!
//! Targets: Cloudflare Workers AI over its REST API, or a folder. Promises: everything
//! that the service would accept and then fail on at inference is refused before a byte is
//! sent; the remote name is made of the adapter's content, so running twice uploads once
//! and nothing is ever overwritten; a half-made upload is finished by the next run. Must
//! not know: how the adapter was made.

mod adapter;
mod cloudflare;
mod deploy;
mod error;
mod folder;
mod journal;
mod models;
mod params;
mod receipt;
mod verify;
mod worker;

use crate::contract::{
    Context, Effect, Fault, Field, Outcome, Params, Pool, Port, Product, Site, Stage, StageError,
};
use crate::http::{Environment, Http, Patience};

use adapter::Adapter;
use cloudflare::Cloudflare;
use error::UploadError;
use params::{Settings, Target};

/// The stage.
pub struct Upload;

const INPUTS: &[Port] = &[
    Port {
        name: "adapter",
        required: true,
        many: false,
        about: "a folder with `adapter_config.json` and `adapter_model.safetensors`, as `export` makes it",
    },
    Port {
        name: "system",
        required: false,
        many: false,
        about: "the generated system prompt: goes into the Worker and the verification",
    },
    Port {
        name: "scores",
        required: false,
        many: false,
        about: "an eval's scores: the upload waits for their gates",
    },
];

const PRODUCTS: &[Product] = &[
    Product {
        name: "receipt",
        path: "receipt.json",
        about: "what was uploaded where, by id, name and digests",
    },
    Product {
        name: "worker",
        path: "worker.ts",
        about: "a Cloudflare Worker that uses the adapter",
    },
    Product {
        name: "verification",
        path: "verification.json",
        about: "answers without and with the adapter, side by side",
    },
];

const ENV: &[&str] = &[
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "NO_PROXY",
    "no_proxy",
    "SSL_CERT_FILE",
    "CLOUDFLARE_API_TOKEN",
    "CF_API_TOKEN",
];

impl Stage for Upload {
    fn kind(&self) -> &'static str {
        "upload"
    }

    fn about(&self) -> &'static str {
        "uploads an adapter to Cloudflare Workers AI or a folder, and proves that it is applied"
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

    fn effect(&self) -> Effect {
        Effect::External
    }

    fn pool(&self) -> Pool {
        Pool::Net
    }

    fn passes_env(&self) -> &'static [&'static str] {
        ENV
    }

    fn check(&self, params: &Params, site: &Site) -> Vec<Fault> {
        let settings = match Settings::read(params) {
            Ok(settings) => settings,
            Err(faults) => return faults,
        };
        let mut faults = Vec::new();
        for folder in site.inputs.get("adapter").into_iter().flatten() {
            faults.extend(
                adapter::inspect(folder, settings.model())
                    .err()
                    .into_iter()
                    .flatten(),
            );
        }
        if settings.model().is_some() {
            faults.extend(rank_above(site));
        }
        if site.acts && settings.lacks_account() {
            faults.push(no_account());
        }
        faults
    }

    fn run(&self, params: &Params, ctx: &Context<'_>) -> Result<Outcome, StageError> {
        upload(params, ctx, &Environment::process(), Patience::default())
    }
}

/// Where to is a part of the key, so it is written down: an environment would upload the same key to
/// another account. Only who uploads needs one; `check` and training go without.
fn no_account() -> Fault {
    Fault::new(
        "upload::no-account",
        "with",
        "nothing says which account the adapter goes to",
        params::WRITE_ACCOUNT,
    )
}

/// The rank a training stage above will give, when the target cannot serve it: better to
/// know before the training.
fn rank_above(site: &Site) -> Option<Fault> {
    let above = site.upstream.get("adapter")?;
    let rank = above
        .iter()
        .filter(|(kind, _)| kind == "train")
        .find_map(|(_, params)| params.given().get("r")?.as_u64())?;
    (rank > models::MOST_RANK).then(|| adapter::rank_fault(rank))
}

/// The run, with its environment and its patience given.
fn upload(
    params: &Params,
    ctx: &Context<'_>,
    environment: &Environment,
    patience: Patience,
) -> Result<Outcome, StageError> {
    let settings = Settings::read(params).map_err(|faults| all(&faults))?;
    let folder = ctx.input("adapter")?;
    let adapter = adapter::inspect(folder, settings.model()).map_err(|faults| all(&faults))?;
    let adapter = adapter.seal()?;
    let system = match ctx.optional("system") {
        Some(path) => {
            let text = std::fs::read_to_string(path);
            Some(text.map_err(|error| StageError::io(path, &error))?)
        }
        None => None,
    };
    let outcome = match &settings.target {
        Target::Folder(to) => {
            folder::upload(ctx, &settings, &adapter, folder, to, system.as_deref())
        }
        Target::Cloudflare { .. } => {
            let http = Http::new(ctx, environment, patience)?;
            let service = Cloudflare::connect(&http, environment, &settings)?;
            serve(&service, &settings, &adapter, system.as_deref())
        }
    };
    outcome.map_err(StageError::from)
}

/// Deploys, verifies, and writes what is left behind.
fn serve(
    service: &Cloudflare<'_>,
    settings: &Settings,
    adapter: &Adapter,
    system: Option<&str>,
) -> Result<Outcome, UploadError> {
    let ctx = service.context();
    let model = settings.model().unwrap_or_default();
    let deployed = deploy::deploy(service, settings, adapter, model)?;
    let proof = if settings.verify {
        verify::verify(service, settings, model, &deployed.name, system)?
    } else {
        verify::Verification::skipped("`verify: false`")
    };
    let place = receipt::Place {
        account: &service.account,
        api: &service.base,
        id: &deployed.id,
        name: &deployed.name,
        model,
    };
    receipt::write(ctx, &receipt::cloudflare(&place, adapter))?;
    worker::write(ctx, model, &deployed.name, system, proof.form)?;
    proof.write(ctx)?;
    let mut outcome = proof.outcome();
    let mut notes = vec![format!(
        "`{}` on `{model}` is {}",
        deployed.name,
        if deployed.existed {
            "already there"
        } else {
            "uploaded"
        },
    )];
    notes.append(&mut outcome.notes);
    notes.extend(deployed.notes);
    notes.push("worker.ts is a Worker that uses it".to_owned());
    outcome.notes = notes;
    Ok(outcome)
}

/// Several faults as one error.
fn all(faults: &[Fault]) -> StageError {
    let lines: Vec<_> = faults.iter().map(|fault| fault.message.as_str()).collect();
    let mends: Vec<_> = faults.iter().map(|fault| fault.mend.as_str()).collect();
    let first = faults.first();
    StageError::new(
        first.map_or("upload::failed", |fault| &fault.code),
        lines.join("\n"),
        mends.join("\n"),
    )
    .at(first.map_or("", |fault| &fault.field))
}

#[cfg(test)]
mod tests;
