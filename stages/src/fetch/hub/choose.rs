//! Which files of a repository are fetched.
//!
//! Without `files`: of a dataset everything, of a model what is needed to run it from
//! safetensors. Pickles are never among them.

use super::super::FetchError;
use super::super::glob;
use super::super::params::{Kind, Repository};
use super::listing::{Listing, Remote};

/// What a model needs.
const MODEL: [&str; 7] = [
    "*.safetensors",
    "*.json",
    "*.jinja",
    "tokenizer.model",
    "merges.txt",
    "vocab.txt",
    "LICENSE*",
];
const WEIGHTS: [&str; 2] = [".safetensors", ".gguf"];

/// The chosen files, in the listing's order, with the user's own checksums.
pub(super) fn choose(
    listing: &Listing,
    repository: &Repository,
) -> Result<Vec<Remote>, FetchError> {
    let chosen = if repository.files.is_empty() {
        usual(listing, repository)?
    } else {
        asked(listing, repository)?
    };
    let unknown = repository
        .sha256
        .keys()
        .find(|name| !chosen.iter().any(|file| file.name == **name));
    if let Some(name) = unknown {
        return Err(FetchError::NoMatch {
            id: repository.id.clone(),
            pattern: name.clone(),
            mend: "`sha256` names a file that is not fetched: correct its name".to_owned(),
        });
    }
    let own = |file: &Remote| Remote {
        sha256: repository
            .sha256
            .get(&file.name)
            .cloned()
            .or_else(|| file.sha256.clone()),
        ..file.clone()
    };
    Ok(chosen.into_iter().map(own).collect())
}

fn asked<'l>(listing: &'l Listing, repository: &Repository) -> Result<Vec<&'l Remote>, FetchError> {
    for pattern in &repository.files {
        if !listing
            .files
            .iter()
            .any(|file| glob::fits(pattern, &file.name))
        {
            return Err(FetchError::NoMatch {
                id: repository.id.clone(),
                pattern: pattern.clone(),
                mend: near(listing, pattern),
            });
        }
    }
    let fits = |file: &&Remote| {
        repository
            .files
            .iter()
            .any(|pattern| glob::fits(pattern, &file.name))
    };
    let chosen: Vec<_> = listing.files.iter().filter(fits).collect();
    let pickles: Vec<_> = chosen
        .iter()
        .filter(|file| glob::is_pickle(&file.name))
        .collect();
    if !pickles.is_empty() {
        let names: Vec<_> = pickles
            .iter()
            .map(|file| format!("`{}`", file.name))
            .collect();
        return Err(FetchError::Pickle {
            id: repository.id.clone(),
            files: names.join(", "),
        });
    }
    Ok(chosen)
}

fn near(listing: &Listing, pattern: &str) -> String {
    if glob::is_literal(pattern) {
        let names = listing.files.iter().map(|file| file.name.as_str());
        let near = names.min_by_key(|name| strsim::damerau_levenshtein(name, pattern));
        if let Some(near) = near {
            return format!("did you mean `{near}`?");
        }
    }
    let names: Vec<_> = listing
        .files
        .iter()
        .take(8)
        .map(|file| format!("`{}`", file.name))
        .collect();
    format!(
        "the repository has {}{}",
        names.join(", "),
        if listing.files.len() > 8 { ", ..." } else { "" }
    )
}

fn usual<'l>(listing: &'l Listing, repository: &Repository) -> Result<Vec<&'l Remote>, FetchError> {
    let safe = listing
        .files
        .iter()
        .filter(|file| !glob::is_pickle(&file.name));
    let chosen: Vec<_> = match repository.kind {
        Kind::Dataset => safe.filter(|file| !file.name.starts_with('.')).collect(),
        Kind::Model => {
            // Some repositories hold the same weights twice, whole and in shards.
            let shards = listing.files.iter().any(|file| {
                file.name == "model.safetensors.index.json" || file.name == "model.safetensors"
            });
            safe.filter(|file| MODEL.iter().any(|pattern| glob::fits(pattern, &file.name)))
                .filter(|file| !(shards && file.name.starts_with("consolidated")))
                .collect()
        }
    };
    let enough = match repository.kind {
        Kind::Dataset => !chosen.is_empty(),
        Kind::Model => chosen.iter().any(|file| file.name.ends_with(WEIGHTS[0])),
    };
    if enough {
        return Ok(chosen);
    }
    let pickles: Vec<_> = listing
        .files
        .iter()
        .filter(|file| glob::is_pickle(&file.name))
        .map(|file| format!("`{}`", file.name))
        .collect();
    let weights = listing
        .files
        .iter()
        .any(|file| WEIGHTS.iter().any(|end| file.name.ends_with(end)));
    if !pickles.is_empty() && !weights {
        return Err(FetchError::Pickle {
            id: repository.id.clone(),
            files: pickles.join(", "),
        });
    }
    Err(FetchError::NoMatch {
        id: repository.id.clone(),
        pattern: "*.safetensors".to_owned(),
        mend: format!("say which under `files`: {}", near(listing, "*")),
    })
}
