//! Commands that need no shell: `cp a b` is started as it stands, without a `sh` between.
//!
//! Promises: what runs, and what it is given, is what `sh -c` would have run; wherever that is in doubt (a character
//! that a shell reads, a word of its own, a program that is not found or is neither a binary nor names its
//! interpreter) the shell gets the command. As in GNU make, this saves a process for each such stage.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Commands and words that a shell has of its own.
const OWN: &str = "! . : [ alias bg break case cd command continue declare do done echo elif else esac eval exec exit \
    export false fc fg fi for function getopts hash history if in jobs kill let local printf pwd read readonly return \
    select set shift source test then time times trap true type typeset ulimit umask unalias unset until wait while";

/// The program and its arguments, to run in `folder` with `env`; None where a shell is needed.
pub(super) fn words(command: &str, folder: &Path, env: &[(String, String)]) -> Option<Vec<String>> {
    let argument = |byte: u8| byte.is_ascii_alphanumeric() || b" -_./+,:@%=".contains(&byte);
    // A block of text in the file ends with the end of its line.
    let command = command.trim_ascii();
    if !command.bytes().all(argument) {
        return None;
    }
    let words: Vec<String> = command
        .split_ascii_whitespace()
        .map(str::to_owned)
        .collect();
    let name = words.first()?;
    // `name=value` in front is an assignment.
    if name.contains('=') || OWN.split_ascii_whitespace().any(|own| own == name) {
        return None;
    }
    starts_by_itself(&found(name, folder, env)?).then_some(words)
}

/// Where a shell would find the program.
fn found(name: &str, folder: &Path, env: &[(String, String)]) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(folder.join(name));
    }
    let (_, path) = env.iter().rev().find(|(variable, _)| variable == "PATH")?;
    // An empty entry, or a relative one, means the folder that the command runs in.
    let places = path.split(':').map(|place| folder.join(place).join(name));
    places.into_iter().find(|place| may_run(place))
}

fn may_run(place: &Path) -> bool {
    let known = std::fs::metadata(place);
    known.is_ok_and(|known| known.is_file() && known.permissions().mode() & 0o111 != 0)
}

/// Whether the system itself can start it; a text without `#!` only a shell can.
fn starts_by_itself(place: &Path) -> bool {
    let mut start = [0; 4];
    let read = File::open(place).and_then(|mut file| file.read_exact(&mut start));
    may_run(place) && read.is_ok() && (start.starts_with(b"#!") || start == *b"\x7fELF")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn tried(command: &str) -> Option<Vec<String>> {
        let env = [("PATH".to_owned(), "/usr/bin:/bin".to_owned())];
        words(command, Path::new("/"), &env)
    }

    #[test]
    fn plain_words_of_a_program_that_is_there_need_no_shell() {
        assert_eq!(
            tried("cp -p  a.txt out/b").unwrap(),
            ["cp", "-p", "a.txt", "out/b"]
        );
        assert_eq!(tried("env A=1 ls").unwrap(), ["env", "A=1", "ls"]);
        assert_eq!(tried("ls -l\n").unwrap(), ["ls", "-l"]);
    }

    #[test]
    fn whatever_a_shell_reads_goes_to_it() {
        for command in [
            "",
            " ",
            "cp a b; ls",
            "cp a b\nls",
            "cp a > b",
            "cp 'a b' c",
            "cp $A b",
            "cp * b",
            "cp ~/a b",
            "A=1 ls",
            "cd a",
            "echo a",
            "exit 3",
            "no-such-program a",
            "cp a b &",
            "cp a b # all",
            "cp {a,b} c",
            "[ -e a ]",
        ] {
            assert_eq!(tried(command), None, "{command}");
        }
    }

    #[test]
    fn a_script_must_name_its_interpreter() {
        let dir = tempfile::tempdir().unwrap();
        let script = |name: &str, text: &str, mode: u32| {
            let place = dir.path().join(name);
            fs::write(&place, text).unwrap();
            fs::set_permissions(&place, fs::Permissions::from_mode(mode)).unwrap();
        };
        script("named", "#!/bin/sh\nexit 0\n", 0o755);
        script("bare", "exit 0\n", 0o755);
        script("data", "#!/bin/sh\n", 0o644);
        let run = |command: &str| words(command, dir.path(), &[]).is_some();
        assert!(run("./named"));
        assert!(!run("./bare") && !run("./data") && !run("./gone"));
    }
}
