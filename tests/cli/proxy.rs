//! A proxy that breaks requests, in the ways in which networks and servers do.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Whether a request's first line is such a one.
pub(crate) type Such = fn(&str) -> bool;

/// Stands before a server; ends with the test.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

struct State {
    upstream: SocketAddr,
    /// Requests of a hundred that break.
    percent: u64,
    /// Every request takes so much longer.
    slow: Duration,
    /// The next request with such a first line is done, and its answer is lost.
    losing: Mutex<Option<Such>>,
    chance: AtomicU64,
    passed: AtomicUsize,
    broken: AtomicUsize,
    /// First lines of the requests.
    seen: Mutex<Vec<String>>,
}

impl Proxy {
    /// Before `upstream`; breaks so many of a hundred requests.
    pub(crate) fn before(upstream: SocketAddr, percent: u64, slow: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State {
            upstream,
            percent,
            slow,
            losing: Mutex::default(),
            chance: AtomicU64::new(7),
            passed: AtomicUsize::new(0),
            broken: AtomicUsize::new(0),
            seen: Mutex::default(),
        });
        let own = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let own = Arc::clone(&own);
                std::thread::spawn(move || {
                    // A client that goes away is no fault of the proxy.
                    let _gone = own.serve(client);
                });
            }
        });
        Self { address, state }
    }

    /// Before `upstream`; loses the answer to the first request whose first line is such a one.
    pub(crate) fn losing(upstream: SocketAddr, such: Such) -> Self {
        let proxy = Self::before(upstream, 0, Duration::ZERO);
        *proxy.state.losing.lock().expect("nobody panicked") = Some(such);
        proxy
    }

    /// Requests that went through, and that were broken.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let count = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
        (count(&self.state.passed), count(&self.state.broken))
    }

    /// The first lines of all requests so far.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.state.seen.lock().expect("nobody panicked").clone()
    }
}

impl State {
    /// A number below a hundred.
    fn roll(&self) -> u64 {
        let next = |old: u64| {
            let mut x = old;
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            Some(x)
        };
        let old = self
            .chance
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, next);
        (old.expect("it always gives one") >> 11) % 100
    }

    fn serve(&self, mut client: TcpStream) -> std::io::Result<()> {
        let request = whole(&mut client)?;
        let first = String::from_utf8_lossy(&request);
        let first = first.lines().next().unwrap_or_default().to_owned();
        let loses = {
            let mut losing = self.losing.lock().expect("nobody panicked");
            losing.take_if(|such| such(&first)).is_some()
        };
        self.seen.lock().expect("nobody panicked").push(first);
        std::thread::sleep(self.slow);
        let breaks = loses || self.roll() < self.percent;
        let counter = if breaks { &self.broken } else { &self.passed };
        counter.fetch_add(1, Ordering::SeqCst);
        let way = if loses { 2 } else { self.roll() % 4 };
        if breaks && way == 0 {
            let answer = "HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            return client.write_all(answer.as_bytes());
        }
        if breaks && way == 1 {
            // Nothing was done, and the connection breaks.
            return Ok(());
        }
        let mut server = TcpStream::connect(self.upstream)?;
        server.write_all(&request)?;
        let mut answer = Vec::new();
        server.read_to_end(&mut answer)?;
        match (breaks, way) {
            (false, _) => client.write_all(&answer),
            // It was done, and the answer is lost: all of it, or its end.
            (true, 2) => Ok(()),
            (true, _) => client.write_all(&answer[..answer.len() / 2]),
        }
    }
}

/// One request with its body, made to close the connection after it.
fn whole(client: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 8192];
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        match client.read(&mut buffer)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => bytes.extend_from_slice(&buffer[..read]),
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let field = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(':'));
        let found = lines.find(|(field, _)| field.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.trim().to_owned())
    };
    let length = field("content-length").map_or(0, |length| length.parse().expect("a number"));
    while bytes.len() < end + length {
        match client.read(&mut buffer)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => bytes.extend_from_slice(&buffer[..read]),
        }
    }
    let kept = head
        .lines()
        .filter(|line| !line.to_ascii_lowercase().starts_with("connection:") && !line.is_empty());
    let mut request = kept.collect::<Vec<_>>().join("\r\n");
    request.push_str("\r\nConnection: close\r\n\r\n");
    let mut request = request.into_bytes();
    request.extend_from_slice(&bytes[end..]);
    Ok(request)
}

/// A folder by HTTP, read only.
pub(crate) fn file_server(root: &std::path::Path) -> SocketAddr {
    let server = tiny_http::Server::http("127.0.0.1:0").expect("a port");
    let address = server.server_addr().to_ip().expect("an IP address");
    let root = root.to_owned();
    std::thread::spawn(move || {
        for request in server.incoming_requests() {
            let path = root.join(request.url().trim_start_matches('/'));
            let from = request
                .headers()
                .iter()
                .find(|header| header.field.equiv("Range"));
            let from = from.map_or(0, |header| {
                let value = header.value.as_str();
                let value = value.trim_start_matches("bytes=").trim_end_matches('-');
                value.parse::<usize>().expect("`bytes=N-`")
            });
            let _client_went = match std::fs::read(path) {
                Ok(bytes) if from > 0 => {
                    let rest = bytes.get(from..).unwrap_or_default().to_vec();
                    request.respond(tiny_http::Response::from_data(rest).with_status_code(206))
                }
                Ok(bytes) => request.respond(tiny_http::Response::from_data(bytes)),
                Err(_) => request.respond(tiny_http::Response::empty(404)),
            };
        }
    });
    address
}
