//! A project in a temporary folder, and what commands say in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use regex::Regex;

/// A folder with a pipeline; gone when dropped.
pub(crate) struct Project {
    folder: tempfile::TempDir,
}

impl Project {
    /// A project with this `pipeline.yaml`. `DIR` in it stands for the folder.
    pub(crate) fn new(pipeline: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let project = Self { folder };
        project.write("pipeline.yaml", pipeline);
        project
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.path().join(path)
    }

    /// Writes a file; `DIR` in the text stands for the folder.
    pub(crate) fn write(&self, path: &str, text: &str) {
        let place = self.at(path);
        fs::create_dir_all(place.parent().expect("a file lies in a folder")).expect("a folder");
        let text = text.replace("DIR", &self.path().display().to_string());
        fs::write(place, text).expect("a file");
    }

    /// Puts the tiny model of the profile `smoke` into `model/` and its tools beside it.
    pub(crate) fn give_smoke_model(&self) {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
        let copy = |from: &str, to: &str| {
            std::fs::copy(data.join(from), self.at(to)).expect("a file");
        };
        std::fs::create_dir(self.at("model")).expect("a folder");
        copy("tools.yaml", "tools.yaml");
        for name in [
            "config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
        ] {
            copy(&format!("smoke-model/{name}"), &format!("model/{name}"));
        }
    }

    /// Replaces text in a file; it must be there.
    pub(crate) fn edit(&self, path: &str, from: &str, to: &str) {
        let text = self.read(path);
        assert!(text.contains(from), "`{path}` holds no `{from}`:\n{text}");
        fs::write(self.at(path), text.replace(from, to)).expect("a file");
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_else(|error| panic!("`{path}`: {error}"))
    }

    /// The command, ready to start in the project's folder.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tunesmith"));
        command
            .args(args)
            .current_dir(self.path())
            // What the user of this machine says about stores is no part of a test.
            .env("XDG_CONFIG_HOME", self.at("no-config"))
            .stdin(Stdio::null());
        for name in [
            "TUNESMITH_WORKER",
            "TUNESMITH_STORE",
            "TUNESMITH_REMOTE",
            "TUNESMITH_REMOTE_PUSH",
            "GITHUB_EVENT_NAME",
            "NO_COLOR",
            "TMPDIR",
        ] {
            command.env_remove(name);
        }
        command
    }

    /// Runs the command to its end.
    pub(crate) fn output(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the command starts")
    }

    /// Everything the command says and how it ends, as a snapshot has it.
    pub(crate) fn says(&self, args: &[&str]) -> String {
        let output = self.output(args);
        self.page(&output)
    }

    /// Runs the command; it must end well.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let output = self.output(args);
        assert!(output.status.success(), "{}", self.page(&output));
        self.filtered(&output.stdout)
    }

    pub(crate) fn page(&self, output: &Output) -> String {
        let code = output
            .status
            .code()
            .map_or_else(|| "signal".to_owned(), |code| code.to_string());
        let mut page = format!("exit {code}\n");
        for (name, bytes) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
            if !bytes.is_empty() {
                page.push_str(&format!("----- {name} -----\n{}", self.filtered(bytes)));
            }
        }
        page
    }

    /// Text without what differs from run to run.
    fn filtered(&self, bytes: &[u8]) -> String {
        let text = String::from_utf8(bytes.to_vec()).expect("the command says UTF-8");
        let folder = self.path().canonicalize().expect("the folder is there");
        let text = text
            .replace(&folder.display().to_string(), "[DIR]")
            .replace(&self.path().display().to_string(), "[DIR]");
        let mut text = text;
        for (pattern, shown) in [
            (r"\b[0-9a-f]{64}\b", "[DIGEST]"),
            (r"\b[0-9a-f]{12}\b", "[DIGEST]"),
            (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", "[WHEN]"),
            (r" *\b(\d+\.\d+s|\d+m \d\ds)", " [TIME]"),
            (
                r"on \S+ by tunesmith \S+",
                "on [HOST] by tunesmith [VERSION]",
            ),
            (r"process \d+ on \S+", "process [PID] on [HOST]"),
        ] {
            let pattern = Regex::new(pattern).expect("a pattern");
            text = pattern.replace_all(&text, shown).into_owned();
        }
        text
    }

    /// Every file below a folder with its bytes, sorted: what a run leaves.
    pub(crate) fn files(&self, folder: &str) -> Vec<(String, Vec<u8>)> {
        let root = self.at(folder);
        let mut files = Vec::new();
        for entry in walkdir::WalkDir::new(&root).sort_by_file_name() {
            let entry = entry.unwrap_or_else(|error| panic!("{error}"));
            if entry.file_type().is_file() {
                let path = entry.path().strip_prefix(&root).expect("below the root");
                let bytes = fs::read(entry.path()).expect("a file can be read");
                files.push((path.display().to_string(), bytes));
            }
        }
        files
    }

    /// The lines of a file that stages append to; none if it is not there.
    pub(crate) fn marks(&self, path: &str) -> Vec<String> {
        let text = fs::read_to_string(self.at(path)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Waits until a file is there (a stage says that it has come so far).
    pub(crate) fn wait_for(&self, path: &str) {
        wait_until(&format!("`{path}`"), || self.at(path).exists());
    }

    /// The store is whole, and nothing unfinished lies about.
    pub(crate) fn verify(&self) {
        let said = self.ok(&["cache", "verify"]);
        assert!(said.contains("all as they were stored"), "{said}");
        let left: Vec<_> = fs::read_dir(self.at(".tunesmith/store/tmp"))
            .expect("the store has a tmp folder")
            .flatten()
            .map(|entry| entry.path())
            .collect();
        assert_eq!(left, Vec::<PathBuf>::new(), "left unfinished");
    }
}

/// Waits for something that must come; a minute is for ever.
pub(crate) fn wait_until(what: &str, mut there: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_mins(1);
    while !there() {
        assert!(Instant::now() < patience, "waited for {what} in vain");
        std::thread::sleep(Duration::from_millis(5));
    }
}
