//! A repository of the Hugging Face hub, spoken to in its own protocol.
//!
//! `GET /api/{models|datasets}/{id}/revision/{rev}?blobs=true` lists the files of a commit,
//! `/{id}/resolve/{commit}/{file}` gives one, redirecting to wherever large files lie.
//! `HF_ENDPOINT`, `HF_TOKEN`, `HF_HOME`, `HF_HUB_CACHE` and `HF_HUB_OFFLINE` mean what they
//! mean to the hub's own tools, and files in their cache are used instead of downloaded.
//! Promises: the commit is resolved once, reported as the pin, and every file is of it;
//! large files are checked against the sha256 the hub states.

mod access;
mod cache;
mod choose;
mod listing;

use std::path::Path;

use crate::contract::{Context, Outcome};
use crate::http::{Environment, Http, Patience};

use super::download::{Download, download};
use super::params::{Kind, Repository, is_commit};
use super::progress::Progress;
use super::web::outcome;
use super::{FetchError, part_path, settle};

use access::Access;
use cache::HubCache;
use listing::{Listing, Remote};

pub(super) fn fetch(
    ctx: &Context<'_>,
    mut environment: Environment,
    patience: Patience,
    repository: &Repository,
    data: &Path,
) -> Result<Outcome, FetchError> {
    let access = Access::read(&mut environment);
    let cache = HubCache::find(&environment, repository);
    let revision = ctx.pin.as_deref().unwrap_or(&repository.revision);
    if !ctx.network || environment.flag("HF_HUB_OFFLINE") {
        return offline(ctx, &cache, repository, revision, data);
    }
    let http = Http::new(ctx, &environment, patience)?;
    let listing = listing::ask(&http, &access, repository, revision)?;
    listing.allow(repository)?;
    let chosen = choose::choose(&listing, repository)?;
    let total = chosen.iter().map(|file| file.size).sum::<Option<u64>>();
    let mut progress = Progress::new(ctx, "downloading", total);
    let mut bytes = 0;
    for file in &chosen {
        let to = data.join(&file.name);
        bytes += match cache.take(&listing.commit, file, &to, &mut progress)? {
            Some(size) => size,
            None => one(
                &http,
                &access,
                repository,
                &listing,
                file,
                &to,
                &mut progress,
            )?,
        };
    }
    let mut notes = vec![format!("commit {}", listing.commit)];
    notes.extend(
        listing
            .licence()
            .map(|licence| format!("licence: {licence}")),
    );
    Ok(outcome(chosen.len(), bytes, notes, Some(listing.commit)))
}

/// Downloads one file; gives its size.
fn one(
    http: &Http<'_>,
    access: &Access,
    repository: &Repository,
    listing: &Listing,
    file: &Remote,
    to: &Path,
    progress: &mut Progress<'_>,
) -> Result<u64, FetchError> {
    let url = access.file_url(repository, &listing.commit, &file.name);
    let part = part_path(http.context(), &url);
    let wanted = Download {
        url,
        bearer: access.token(),
        size: file.size,
        sha256: file.sha256.clone(),
    };
    let size = download(http, &wanted, &part, progress)?
        .map_err(|refused| access.refused(http, refused, repository, Some(&file.name)))?;
    settle(&part, to)?;
    Ok(size)
}

/// Without the network only a snapshot in the user's hub cache can serve.
fn offline(
    ctx: &Context<'_>,
    cache: &HubCache,
    repository: &Repository,
    revision: &str,
    data: &Path,
) -> Result<Outcome, FetchError> {
    let missing = |mend: &str| FetchError::Offline {
        what: format!("{}@{revision}", repository.id),
        mend: mend.to_owned(),
    };
    let commit = if is_commit(revision) {
        Some(revision.to_owned())
    } else {
        cache.commit(revision)
    };
    let commit = commit
        .ok_or_else(|| missing("run once with the network; the hub cache has no such revision"))?;
    let files = cache.snapshot(&commit, repository);
    if files.is_empty() {
        return Err(missing(
            "run once with the network; the hub cache has no such files",
        ));
    }
    let listing = Listing::of_snapshot(&commit, files);
    let chosen = choose::choose(&listing, repository)?;
    if !repository.licenses.is_empty() {
        return Err(missing("`licenses` can only be checked with the network"));
    }
    let mut progress = Progress::new(ctx, "copying", None);
    let mut bytes = 0;
    for file in &chosen {
        let taken = cache.take(&commit, file, &data.join(&file.name), &mut progress)?;
        bytes +=
            taken.ok_or_else(|| missing("run once with the network; a cached file is damaged"))?;
    }
    ctx.warn(
        "fetch::from-cache",
        format!(
            "`{}` is taken from the hub cache; whether it is complete cannot be checked offline",
            repository.id
        ),
    );
    Ok(outcome(
        chosen.len(),
        bytes,
        vec![format!("commit {commit}")],
        Some(commit),
    ))
}

/// The plural the hub's addresses use.
fn plural(kind: Kind) -> &'static str {
    match kind {
        Kind::Model => "models",
        Kind::Dataset => "datasets",
    }
}

#[cfg(test)]
mod tests;
