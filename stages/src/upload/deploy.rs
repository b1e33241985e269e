//! From an adapter to a complete fine-tune under its own name.
//!
//! The name holds a digest of the content, so "is it there" is a look at the list. What is
//! there may be half-made: the journal knows, or else the service is asked to run it
//! (3039: files are missing). Creating is not repeatable, so after a lost answer the list
//! is read again before anything is created a second time.

use serde_json::json;

use crate::contract::Context;

use super::adapter::{Adapter, CONFIG, WEIGHTS};
use super::cloudflare::{Cloudflare, Finetune, HALF_MADE, NOT_FOUND};
use super::error::UploadError;
use super::journal::Journal;
use super::params::Settings;

/// Older adapters that are asked whether they are whole.
const MOST_PROBES: usize = 5;

/// A complete fine-tune.
pub(super) struct Deployed {
    pub(super) id: String,
    pub(super) name: String,
    /// It was there before.
    pub(super) existed: bool,
    pub(super) notes: Vec<String>,
}

/// Makes sure that the adapter is there.
pub(super) fn deploy(
    service: &Cloudflare<'_>,
    settings: &Settings,
    adapter: &Adapter,
    model: &str,
) -> Result<Deployed, UploadError> {
    let ctx = service.context();
    let name = adapter.remote_name(&settings.name, model);
    let mut journal = Journal::open(ctx, &service.base, &service.account, &name);
    let all = service.list()?;
    let there = all.iter().find(|one| one.name == name);
    if let Some(one) = there.filter(|one| one.model != model && !one.model.is_empty()) {
        return Err(UploadError::NameTaken {
            name,
            model: one.model.clone(),
        });
    }
    let (id, existed) = if let Some(one) = there {
        let done = is_whole(service, &journal, one, model)?;
        if !done {
            ctx.log(format!(
                "`{name}` is there but half-made; sending its files"
            ));
            send(service, adapter, &mut journal, one)?;
        }
        (one.id.clone(), done)
    } else {
        before_create(service, settings, &all, model)?;
        let one = create(service, &name, model, &settings.description)?;
        journal.note(&one.id, None)?;
        send(service, adapter, &mut journal, &one)?;
        (one.id, false)
    };
    let count = all.len() + usize::from(there.is_none());
    let mut notes = vec![format!(
        "the account has {count} of {} adapters",
        settings.limit
    )];
    notes.extend(others(service, settings, &all, &name, model)?);
    Ok(Deployed {
        id,
        name,
        existed,
        notes,
    })
}

/// What can still be known to fail before a place in the account is used up.
fn before_create(
    service: &Cloudflare<'_>,
    settings: &Settings,
    all: &[Finetune],
    model: &str,
) -> Result<(), UploadError> {
    if all.len() >= settings.limit {
        let oldest: Vec<_> = all
            .iter()
            .take(3)
            .map(|one| format!("`{}`", one.name))
            .collect();
        return Err(UploadError::Limit {
            count: all.len(),
            limit: settings.limit,
            oldest: oldest.join(", "),
        });
    }
    match service.takes_lora(model) {
        Ok(Some(false)) => Err(UploadError::NoLora {
            model: model.to_owned(),
        }),
        Ok(Some(true)) => Ok(()),
        // The catalog is a courtesy; the upload itself will tell.
        Ok(None) | Err(UploadError::Service { .. }) => {
            service.context().warn(
                "upload::not-in-catalog",
                format!("the catalog does not say whether `{model}` takes adapters"),
            );
            Ok(())
        }
        Err(other) => Err(other),
    }
}

fn create(
    service: &Cloudflare<'_>,
    name: &str,
    model: &str,
    description: &str,
) -> Result<Finetune, UploadError> {
    let patience = service.patience();
    let mut attempt = 1;
    loop {
        let error = match service.create(name, model, description) {
            Ok(one) => return Ok(one),
            Err(error) => error,
        };
        let (lost, refused) = match &error {
            UploadError::Service { refusal, .. } => (refusal.status >= 500, refusal.status == 400),
            UploadError::Http(_) => (true, false),
            _ => (false, false),
        };
        // The answer was lost, or somebody was faster: either way it is ours by content.
        if lost || refused {
            service
                .patience()
                .wait(service.context(), patience.step(attempt))?;
            let all = service.list()?;
            if let Some(one) = all
                .into_iter()
                .find(|one| one.name == name && one.model == model)
            {
                return Ok(one);
            }
        }
        if !lost || attempt >= patience.attempts {
            return Err(error);
        }
        attempt += 1;
    }
}

/// Sends the files that are not known to be there, the small one first: a refusal of the
/// configuration should not cost an upload of the weights.
fn send(
    service: &Cloudflare<'_>,
    adapter: &Adapter,
    journal: &mut Journal,
    one: &Finetune,
) -> Result<(), UploadError> {
    for file in [CONFIG, WEIGHTS] {
        if journal.has(&one.id, file) {
            continue;
        }
        if let Err(inner) = service.send(&one.id, file, &adapter.path(file)) {
            return Err(UploadError::HalfMade {
                doing: format!("`{file}` is not uploaded"),
                name: one.name.clone(),
                id: one.id.clone(),
                inner: Box::new(inner),
            });
        }
        journal.note(&one.id, Some(file))?;
    }
    Ok(())
}

/// Whether a fine-tune that is listed has its files.
fn is_whole(
    service: &Cloudflare<'_>,
    journal: &Journal,
    one: &Finetune,
    model: &str,
) -> Result<bool, UploadError> {
    if journal.knows(&one.id) {
        return Ok([CONFIG, WEIGHTS]
            .iter()
            .all(|file| journal.has(&one.id, file)));
    }
    match probe(service, &one.name, model) {
        Ok(()) => Ok(true),
        Err(UploadError::Service { refusal, .. })
            if [HALF_MADE, NOT_FOUND].contains(&refusal.code) =>
        {
            Ok(false)
        }
        Err(other) => Err(other),
    }
}

/// Runs an adapter for one token: only a complete one answers.
fn probe(service: &Cloudflare<'_>, name: &str, model: &str) -> Result<(), UploadError> {
    let input = json!({
        "messages": [{"role": "user", "content": "hi"}],
        "lora": name,
        "max_tokens": 1,
        "temperature": 0,
        "seed": 1,
    });
    service.run(model, &input).map(|_| ())
}

/// Notes on the account's other adapters of this pipeline: the half-made ones hold a place
/// for nothing.
fn others(
    service: &Cloudflare<'_>,
    settings: &Settings,
    all: &[Finetune],
    name: &str,
    model: &str,
) -> Result<Vec<String>, UploadError> {
    let ours = |one: &&Finetune| {
        one.name != name && one.model == model && is_version(&one.name, &settings.name)
    };
    let older: Vec<_> = all.iter().filter(ours).collect();
    let ctx: &Context<'_> = service.context();
    let mut notes = Vec::new();
    if !older.is_empty() {
        notes.push(format!(
            "{} other versions of `{}`",
            older.len(),
            settings.name
        ));
    }
    for one in older.iter().rev().take(MOST_PROBES) {
        let journal = Journal::open(ctx, &service.base, &service.account, &one.name);
        let whole = match is_whole(service, &journal, one, model) {
            Ok(whole) => whole,
            Err(UploadError::Http(error)) => return Err(error.into()),
            // Quota, capacity: then it stays unknown.
            Err(_) => continue,
        };
        if !whole {
            notes.push(format!(
                "`{}` ({}) is half-made and holds a place; the API cannot delete it, Cloudflare's support can",
                one.name, one.id
            ));
        }
    }
    Ok(notes)
}

/// Whether `name` is `base` with a digest.
fn is_version(name: &str, base: &str) -> bool {
    let digest = name
        .strip_prefix(base)
        .and_then(|rest| rest.strip_prefix('-'));
    digest.is_some_and(|digest| {
        digest.len() == 12 && digest.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}
