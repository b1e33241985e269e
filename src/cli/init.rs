//! `tunesmith init`

use std::path::Path;

use clap::Args;
use serde_json::json;

use super::Common;
use super::exit::{Exit, Trouble};
use crate::report::screen;

#[derive(Args, Clone, Debug)]
pub(super) struct InitArgs {
    /// The folder to begin in
    #[arg(value_name = "DIR", default_value = ".")]
    folder: std::path::PathBuf,
    /// Tell what was made as JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// The files of a new project. They run as they stand.
const FILES: [(&str, &str); 3] = [
    ("pipeline.yaml", include_str!("init/pipeline.yaml")),
    ("data/phrases.txt", include_str!("init/phrases.txt")),
    (".gitignore", "/.tunesmith/\n/out/\n"),
];

pub(super) fn init(common: &Common, args: &InitArgs) -> Result<Exit, Trouble> {
    let base = common.directory.clone().unwrap_or_default();
    let folder = base.join(&args.folder);
    let pipeline = folder.join("pipeline.yaml");
    if pipeline.exists() {
        return Err(Trouble::new(
            Exit::Config,
            "init::exists",
            format!("`{}` is there already", pipeline.display()),
            "choose another folder: tunesmith init DIR",
        ));
    }
    let mut made = Vec::new();
    for (name, text) in FILES {
        let path = folder.join(name);
        if path.exists() {
            continue;
        }
        write(&path, text)?;
        made.push(name);
    }
    if args.json {
        let told = json!({ "folder": folder, "made": made });
        screen::say(&format!("{told}\n"));
        return Ok(Exit::Ok);
    }
    let made: Vec<String> = made.iter().map(|name| format!("  {name}\n")).collect();
    let made = made.concat();
    let go = match args.folder.to_str() {
        Some(".") | None => String::new(),
        Some(folder) => format!("cd {folder} && "),
    };
    screen::say(&format!("made\n{made}\n  next     {go}tunesmith run\n"));
    Ok(Exit::Ok)
}

fn write(path: &Path, text: &str) -> Result<(), Trouble> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(path, text));
    written.map_err(|error| {
        Trouble::new(
            Exit::Failed,
            "init::io",
            format!("cannot write `{}`: {error}", path.display()),
            "check the folder's permissions and the disk",
        )
    })
}
