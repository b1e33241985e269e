//! `tunesmith set train.lr 1e-4`

use std::path::Path;

use clap::Args;
use serde_json::json;

use super::Common;
use super::exit::{Exit, Trouble};
use crate::config::{self, Edited};
use crate::report::screen;

#[derive(Args, Clone, Debug)]
pub(super) struct SetArgs {
    /// A parameter (`lr`), or a field of a stage (`train.lr`, `train.env.MODE`)
    #[arg(value_name = "NAME")]
    name: String,
    /// Its value as the file would have it
    #[arg(value_name = "VALUE", allow_hyphen_values = true)]
    value: String,
    /// Tell it as JSON
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn set(common: &Common, args: &SetArgs) -> Result<Exit, Trouble> {
    let file = common.file()?;
    let unreadable = |error: std::io::Error| {
        let cause = format!("cannot change `{}`: {error}", file.display());
        Trouble::new(
            Exit::Failed,
            "set::not-written",
            cause,
            "check the file and its permissions",
        )
    };
    let text = std::fs::read_to_string(&file).map_err(unreadable)?;
    let wanted = (args.name.as_str(), args.value.as_str());
    let registry = stages::registry::all();
    let edited = config::edit(&file, &text, wanted, &common.overrides(), registry)?;
    if edited.text != text {
        write(&file, &edited.text).map_err(unreadable)?;
    }
    let line = text[..edited.at].matches('\n').count() + 1;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    screen::say(&if args.json {
        let told = json!({
            "file": name, "line": line, "set": edited.path, "old": edited.old,
            "new": args.value, "followed": edited.followed,
        });
        format!("{told}\n")
    } else {
        said(args, &edited, &format!("{name}:{line}"))
    });
    Ok(Exit::Ok)
}

fn said(args: &SetArgs, edited: &Edited, place: &str) -> String {
    let mut text = String::new();
    if let Some(followed) = &edited.followed {
        let set = &edited.path;
        text.push_str(&format!("`{}` is `{followed}`: sets `{set}`\n", args.name));
    }
    let old = edited.old.as_deref().unwrap_or("not set");
    text.push_str(&format!(
        "{place}: {} {old} -> {}\n",
        edited.path, args.value
    ));
    text
}

/// The whole file in one step, with its permissions.
fn write(file: &Path, text: &str) -> std::io::Result<()> {
    let file = file.canonicalize()?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let aside = file.with_file_name(format!(".{name}.aside"));
    std::fs::write(&aside, text)?;
    std::fs::set_permissions(&aside, file.metadata()?.permissions())?;
    std::fs::rename(&aside, &file)
}
