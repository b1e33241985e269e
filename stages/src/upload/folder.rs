//! The target `folder`: a copy of the adapter that appears whole or not at all.

use std::path::{Path, PathBuf};

use serde_json::json;
use walkdir::WalkDir;

use crate::contract::{Context, Outcome};

use super::adapter::{Adapter, CONFIG, WEIGHTS};
use super::error::UploadError;
use super::params::Settings;
use super::verify::{Form, Verification};
use super::{adapter, receipt, worker};

/// Named in `worker.ts` when the folder is all we know.
const LIKELY: &str = "@cf/mistral/mistral-7b-instruct-v0.2-lora";

pub(super) fn upload(
    ctx: &Context<'_>,
    settings: &Settings,
    adapter: &Adapter,
    from: &Path,
    to: &Path,
    system: Option<&str>,
) -> Result<Outcome, UploadError> {
    let there = adapter::inspect(to, None).ok();
    let there = there.map(Adapter::seal).transpose()?;
    let same = there.is_some_and(|there| there.digests == adapter.digests);
    if !same {
        replace(ctx, from, to)?;
    }
    let shown = to.display().to_string();
    let value = json!({
        "target": "folder",
        "folder": shown,
        "name": settings.name,
        "adapter": receipt::about(adapter),
    });
    receipt::write(ctx, &value)?;
    worker::write(ctx, LIKELY, &settings.name, system, Form::Messages)?;
    Verification::skipped("a folder answers nothing").write(ctx)?;
    let state = if same { "already holds" } else { "now holds" };
    Ok(Outcome {
        notes: vec![
            format!("`{shown}` {state} the adapter"),
            format!(
                "to serve it: `npx wrangler ai finetune create <model> {} {shown}`, or `target: cloudflare`",
                settings.name
            ),
        ],
        ..Outcome::default()
    })
}

/// Copies aside, then swaps. Only an empty folder or an older adapter is replaced.
fn replace(ctx: &Context<'_>, from: &Path, to: &Path) -> Result<(), UploadError> {
    if to.exists() && !replaceable(to) {
        return Err(UploadError::Occupied {
            path: to.to_owned(),
        });
    }
    let aside = beside(to, "new");
    let old = beside(to, "old");
    for path in [&aside, &old] {
        clear(path)?;
    }
    if let Err(error) = copy(ctx, from, &aside) {
        // What is left of it is cleared by the next run at the latest.
        let _ = clear(&aside);
        return Err(error);
    }
    if to.exists() {
        rename(to, &old)?;
    }
    rename(&aside, to)?;
    clear(&old)
}

fn replaceable(to: &Path) -> bool {
    let empty = std::fs::read_dir(to).is_ok_and(|mut entries| entries.next().is_none());
    empty || [CONFIG, WEIGHTS].iter().all(|name| to.join(name).is_file())
}

/// A hidden neighbour: on the same file system, so that a rename is one step.
fn beside(to: &Path, what: &str) -> PathBuf {
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    to.with_file_name(format!(".{name}.{what}"))
}

fn clear(path: &Path) -> Result<(), UploadError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(UploadError::file(path, error))
        }
        _ => Ok(()),
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), UploadError> {
    std::fs::rename(from, to).map_err(|error| UploadError::file(to, error))
}

fn copy(ctx: &Context<'_>, from: &Path, to: &Path) -> Result<(), UploadError> {
    let from = from
        .canonicalize()
        .map_err(|error| UploadError::file(from, error))?;
    for entry in WalkDir::new(&from).follow_links(true).sort_by_file_name() {
        let entry = entry.map_err(|error| UploadError::file(&from, error.into()))?;
        let target = to.join(entry.path().strip_prefix(&from).unwrap_or(entry.path()));
        if ctx.go_on().is_err() {
            return Err(crate::http::HttpError::Cancelled.into());
        }
        let done = if entry.file_type().is_dir() {
            std::fs::create_dir_all(&target)
        } else {
            std::fs::copy(entry.path(), &target)
                .and_then(|_| std::fs::File::open(&target)?.sync_all())
        };
        done.map_err(|error| UploadError::file(&target, error))?;
    }
    Ok(())
}
