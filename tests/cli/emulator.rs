//! A server that stands in for a cloud's: a program of its own that says what it is asked for
//! (`port N`, and what else the tests need) and ends with its standard input.
//!
//! Promises: where it is not installed, a test says so and passes, unless CI needs it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

pub(crate) struct Emulator {
    child: Child,
    pub(crate) address: SocketAddr,
    said: Vec<String>,
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

impl Emulator {
    /// The server, or nothing where it is not installed, and that is said: unless `needed`, a
    /// variable, is set.
    #[expect(clippy::print_stderr, reason = "a test that tests nothing says so")]
    pub(crate) fn start(command: Command, needed: &str, what: &str) -> Option<Self> {
        let started = Self::started(command);
        if started.is_none() {
            let skipped = format!("SKIPPED: no {what}");
            assert!(std::env::var_os(needed).is_none(), "{skipped}");
            eprintln!("{skipped}");
        }
        started
    }

    fn started(mut command: Command) -> Option<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::null()).spawn().ok()?;
        // It says other things before, and may say more later.
        let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut said = Vec::new();
        let port = out.by_ref().lines().map_while(Result::ok).find_map(|line| {
            let port = line
                .strip_prefix("port ")
                .and_then(|port| port.trim().parse::<u16>().ok());
            said.push(line);
            port
        });
        let Some(port) = port else {
            child.wait().expect("it was started");
            return None;
        };
        std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Some(Self {
            child,
            address,
            said,
        })
    }

    /// What it said after `word`.
    pub(crate) fn said(&self, word: &str) -> &str {
        let mut lines = self.said.iter().filter_map(|line| line.split_once(' '));
        let found = lines.find(|(first, _)| *first == word);
        found.expect("it says that before its port").1
    }

    /// Answer to one request as it is written here: first line, and header lines that each end.
    pub(crate) fn ask(&self, head: &str, body: &[u8]) -> String {
        let mut server = TcpStream::connect(self.address).expect("it listens");
        let length = body.len();
        let head = format!(
            "{head}Host: 127.0.0.1\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        );
        server.write_all(head.as_bytes()).expect("sent");
        server.write_all(body).expect("sent");
        let mut answer = Vec::new();
        server.read_to_end(&mut answer).expect("an answer");
        String::from_utf8_lossy(&answer).into_owned()
    }
}

/// The Python that the tests' servers run with.
pub(crate) fn python() -> Command {
    Command::new(std::env::var("TUNESMITH_PYTHON").unwrap_or_else(|_| "python3".to_owned()))
}
