//! A server on this machine for tests, and a context to run a stage in.
//!
//! The server hands each request, read whole, to a function; nothing here ever speaks to
//! another machine.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::contract::{Context, StageEvent};

use super::{Environment, Patience};

/// A request as the server saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) url: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub(crate) fn path(&self) -> &str {
        self.url.split('?').next().unwrap_or(&self.url)
    }
}

/// An answer to give.
#[derive(Clone, Debug)]
pub(crate) struct Say {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Promise the whole body, send only this many bytes and hang up.
    pub(crate) cut: Option<usize>,
}

impl Say {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
            cut: None,
        }
    }

    pub(crate) fn json(status: u16, value: &serde_json::Value) -> Self {
        Self::new(status, value.to_string()).with("Content-Type", "application/json")
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn cut(mut self, at: usize) -> Self {
        self.cut = Some(at);
        self
    }

    /// A file's bytes, honouring `Range: bytes=N-`.
    pub(crate) fn file(seen: &Seen, bytes: &[u8]) -> Self {
        let start = seen.header("range").and_then(|range| {
            range
                .strip_prefix("bytes=")?
                .strip_suffix('-')?
                .parse()
                .ok()
        });
        match start {
            Some(start) if start >= bytes.len() => {
                Self::new(416, "").with("Content-Range", format!("bytes */{}", bytes.len()))
            }
            Some(start) => Self::new(206, &bytes[start..]).with(
                "Content-Range",
                format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len()),
            ),
            None => Self::new(200, bytes),
        }
    }
}

/// A running server, one connection at a time; it stops when dropped.
pub(crate) struct TestServer {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl TestServer {
    pub(crate) fn new(answer: impl Fn(&Seen) -> Say + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let over = Arc::new(AtomicBool::new(false));
        let (log, done) = (Arc::clone(&seen), Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if done.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                // A client that hangs up is its own business.
                let _ = serve(stream, &answer, &log);
            }
        });
        Self {
            url,
            seen,
            over,
            thread: Some(thread),
        }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no panic holds it").clone()
    }

    /// `METHOD path` of every request so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        let line = |seen: &Seen| format!("{} {}", seen.method, seen.path());
        self.seen().iter().map(line).collect()
    }
}

/// Reads one request, answers it and closes. Written by hand because a well-behaved
/// server library cannot promise a body and then hang up.
fn serve(
    stream: TcpStream,
    answer: &impl Fn(&Seen) -> Say,
    log: &Mutex<Vec<Seen>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (Some(method), Some(url)) = (words.next(), words.next()) else {
        return Ok(());
    };
    let mut headers = BTreeMap::new();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    assert!(
        !headers.contains_key("transfer-encoding"),
        "every body has a known length"
    );
    let length = headers
        .get("content-length")
        .map_or(0, |length| length.parse().expect("a length is a number"));
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let seen = Seen {
        method,
        url,
        headers,
        body,
    };
    log.lock().expect("no panic holds it").push(seen.clone());
    give(reader.into_inner(), &answer(&seen))
}

fn give(mut stream: TcpStream, say: &Say) -> std::io::Result<()> {
    let mut head = format!(
        "HTTP/1.1 {} Test\r\nContent-Length: {}\r\nConnection: close\r\n",
        say.status,
        say.body.len()
    );
    for (name, value) in &say.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    let end = say.cut.unwrap_or(say.body.len()).min(say.body.len());
    stream.write_all(&say.body[..end])?;
    stream.flush()
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // Wakes the accepting thread; if that fails it is gone already.
        let _ = TcpStream::connect(self.url.trim_start_matches("http://"));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Waits too short to notice.
pub(crate) fn hasty() -> Patience {
    Patience {
        attempts: 3,
        first: Duration::from_millis(1),
        most: Duration::from_millis(2),
        longest: Duration::from_mins(1),
    }
}

/// An environment of these variables.
pub(crate) fn environment(values: &[(&str, &str)]) -> Environment {
    Environment::of(
        values
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    )
}

/// A place to run a stage in.
pub(crate) struct Bench {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) inputs: BTreeMap<String, Vec<PathBuf>>,
    pub(crate) network: bool,
    pub(crate) pin: Option<String>,
    pub(crate) cancel: AtomicBool,
    events: Mutex<Vec<StageEvent>>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for name in ["output", "checkpoint", "keep"] {
            std::fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        Self {
            folder,
            inputs: BTreeMap::new(),
            network: true,
            pin: None,
            cancel: AtomicBool::new(false),
            events: Mutex::new(Vec::new()),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs `body` in a context of this bench; the output folder is emptied before.
    pub(crate) fn run<T>(&self, body: impl FnOnce(&Context<'_>) -> T) -> T {
        let output = self.path("output");
        std::fs::remove_dir_all(&output).expect("the output folder");
        std::fs::create_dir(&output).expect("the output folder");
        let events = |event| self.events.lock().expect("no panic holds it").push(event);
        body(&Context {
            inputs: self.inputs.clone(),
            derived: BTreeMap::new(),
            output,
            checkpoint: self.path("checkpoint"),
            keep: self.path("keep"),
            seed: 1,
            threads: 1,
            pin: self.pin.clone(),
            network: self.network,
            events: &events,
            cancel: &self.cancel,
        })
    }

    pub(crate) fn events(&self) -> Vec<StageEvent> {
        self.events.lock().expect("no panic holds it").clone()
    }

    /// A file below the output folder.
    pub(crate) fn made(&self, name: &str) -> Vec<u8> {
        let path = self.path("output").join(name);
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}
