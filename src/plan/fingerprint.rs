//! `fingerprint: python --version`: what the tools of a command say they are, as a part of its
//! key.
//!
//! Promises: a program that was asked once is asked again only when the file behind its name is
//! another (path, size, times, inode), so planning starts nothing while the tools stay; what it
//! says is asked for in the environment that the stage will have, less its secrets.
//! `.tunesmith/fingerprints.json` remembers; losing it costs a start of each program.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::config::{Pipeline, StageSpec};

/// A program that has not answered by then is ended.
const PATIENCE: Duration = Duration::from_secs(30);

/// The most of an answer that is kept.
const LONGEST: usize = 4096;

/// An answer, and the file that gave it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Known {
    path: PathBuf,
    /// Size, mtime, ctime (each seconds and nanoseconds), inode.
    stat: [i64; 6],
    says: String,
}

/// What programs said.
#[derive(Debug)]
pub(super) struct Fingerprints {
    file: PathBuf,
    known: Option<BTreeMap<String, Known>>,
}

impl Fingerprints {
    pub(super) fn new(home: &Path) -> Self {
        Self {
            file: home.join("fingerprints.json"),
            known: None,
        }
    }

    /// What `command` of a stage says. `Err` says why it says nothing.
    pub(super) fn of(
        &mut self,
        pipeline: &Pipeline,
        spec: &StageSpec,
        command: &str,
    ) -> Result<String, String> {
        let env = environment(spec);
        let program = program(command, &env, &pipeline.root);
        let name = serde_json::to_string(&(command, &env)).expect("texts are plain data");
        let file = &self.file;
        let known = self.known.get_or_insert_with(|| {
            let text = std::fs::read(file).unwrap_or_default();
            serde_json::from_slice(&text).unwrap_or_default()
        });
        if let (Some((path, stat)), Some(known)) = (&program, known.get(&name))
            && (path, stat) == (&known.path, &known.stat)
        {
            return Ok(known.says.clone());
        }
        let says = ask(command, &env, &pipeline.root)?;
        if let Some((path, stat)) = program {
            let says = says.clone();
            known.insert(name, Known { path, stat, says });
            let text = serde_json::to_vec(&known).expect("answers are plain data");
            let aside = self
                .file
                .with_extension(format!("aside-{}", std::process::id()));
            // Remembering is a saving, no more.
            let _saved =
                std::fs::write(&aside, text).and_then(|()| std::fs::rename(&aside, &self.file));
        }
        Ok(says)
    }
}

/// The environment of a command, as far as it says which program is meant.
fn environment(spec: &StageSpec) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    for name in ["PATH", "HOME"] {
        env.extend(
            std::env::var(name)
                .ok()
                .map(|value| (name.to_owned(), value)),
        );
    }
    env.insert("LANG".to_owned(), "C.UTF-8".to_owned());
    env.insert("TZ".to_owned(), "UTC".to_owned());
    env.extend(spec.env.clone());
    env
}

/// The file of the program that a command begins with; `None` for what only the shell knows.
fn program(
    command: &str,
    env: &BTreeMap<String, String>,
    root: &Path,
) -> Option<(PathBuf, [i64; 6])> {
    let word = command.split_whitespace().next()?;
    let found = if word.contains('/') {
        root.join(word)
    } else {
        let paths = std::env::split_paths(env.get("PATH")?);
        let mut paths = paths.map(|folder| folder.join(word));
        paths.find(|path| path.is_file())?
    };
    let path = found.canonicalize().ok()?;
    let meta = path.metadata().ok()?;
    let stat = [
        meta.size() as i64,
        meta.mtime(),
        meta.mtime_nsec(),
        meta.ctime(),
        meta.ctime_nsec(),
        meta.ino() as i64,
    ];
    Some((path, stat))
}

fn ask(command: &str, env: &BTreeMap<String, String>, root: &Path) -> Result<String, String> {
    let mut child = Command::new("sh")
        // Some programs tell their version on the other stream.
        .args(["-c", &format!("( {command} ) 2>&1")])
        .current_dir(root)
        .env_clear()
        .envs(env)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| error.to_string())?;
    let out = child.stdout.take();
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _cut = out.map(|mut out| out.read_to_end(&mut bytes));
        bytes
    });
    let began = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if began.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(2)),
            Ok(None) => {
                let _ended = child.kill().and_then(|()| child.wait());
                return Err(format!("it did not answer within {}s", PATIENCE.as_secs()));
            }
            Err(error) => return Err(error.to_string()),
        }
    };
    let bytes = reader.join().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let text: String = text.trim().chars().take(LONGEST).collect();
    if status.success() {
        return Ok(text);
    }
    let first = text.lines().next().unwrap_or("it said nothing");
    Err(format!("it ended with {status}: {first}"))
}
