//! A worker whose guard is killed goes with it: a GPU must not stay taken.
#![cfg(target_os = "linux")]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn a_worker_ends_with_whoever_started_it() {
    // The shell stands for the guard; the worker waits for a request that never comes.
    let script = r#"exec 3<&0; "$0" <&3 & echo $!; wait"#;
    let mut guard = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_tunesmith-worker")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a shell");
    let mut said = BufReader::new(guard.stdout.take().expect("piped"));
    let mut worker = String::new();
    said.read_line(&mut worker).expect("a line");
    let status = format!("/proc/{}/status", worker.trim());
    let stat = format!("/proc/{}/stat", worker.trim());
    let patience = Instant::now() + Duration::from_mins(1);
    let wait = |what: &str, there: &dyn Fn() -> bool| {
        while !there() {
            assert!(Instant::now() < patience, "waited for {what} in vain");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    // It listens for signals once it has said how it wants to end.
    wait("the worker", &|| {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let caught = text.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        let term = 1 << (15 - 1);
        caught.is_some_and(|caught| caught & term != 0)
    });
    guard.kill().expect("it runs");
    guard.wait().expect("it was started");
    wait("its end", &|| {
        let text = std::fs::read_to_string(&stat).unwrap_or_default();
        text.is_empty() || text.contains(") Z ")
    });
}
