//! Programs under guard, as the command sees them: started, asked to end, ended.
//!
//! Promises: one guard process for all programs of this process, started at the first one; a
//! handle that is dropped takes its program with it; a guard that is killed takes its programs
//! along, also one that it had no time to name, and the next program gets a new guard.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::{ChildStderr, ChildStdout};
use tokio::sync::oneshot;

use super::guard::GUARD;
use super::process::Program;
use super::wire::{self, Start, Wish, Word};

/// A program that runs, or ran.
pub(crate) struct Guarded {
    id: u64,
    guard: Arc<Guard>,
    ended: oneshot::Receiver<u8>,
    over: bool,
}

/// What a program writes.
pub(crate) struct Pipes {
    pub(crate) out: ChildStdout,
    pub(crate) err: ChildStderr,
}

/// The guard process.
struct Guard {
    socket: UnixStream,
    programs: Mutex<Programs>,
    /// Its own number, and that of the session it leads.
    session: u32,
}

#[derive(Default)]
struct Programs {
    next: u64,
    running: BTreeMap<u64, Running>,
    /// The guard is no more.
    gone: bool,
}

struct Running {
    ended: oneshot::Sender<u8>,
    /// Known from when it was started.
    group: Option<i32>,
}

impl Guarded {
    /// Starts `program`; needs a tokio runtime.
    pub(crate) fn start(program: &Program) -> std::io::Result<(Self, Pipes)> {
        let guard = Guard::shared()?;
        let (out, write_out) = std::io::pipe()?;
        let (err, write_err) = std::io::pipe()?;
        let pipes = Pipes {
            out: ChildStdout::from_std(OwnedFd::from(out).into())?,
            err: ChildStderr::from_std(OwnedFd::from(err).into())?,
        };
        let (tell, ended) = oneshot::channel();
        let mut programs = guard.programs();
        let id = programs.next;
        programs.next += 1;
        let running = Running {
            ended: tell,
            group: None,
        };
        programs.running.insert(id, running);
        let wish = Wish::Run(Start {
            id,
            line: program.line.clone(),
            folder: program.folder.clone(),
            env: program.env.clone(),
            input: program.input.clone(),
        });
        // Still under the lock: messages go out whole.
        let ends = [write_out.as_fd(), write_err.as_fd()];
        let sent = wire::send(&guard.socket, &wish, &ends);
        if sent.is_err() {
            programs.running.remove(&id);
        }
        drop(programs);
        sent?;
        let guarded = Self {
            id,
            guard,
            ended,
            over: false,
        };
        Ok((guarded, pipes))
    }

    /// Waits until the program and its group are gone. Cancel-safe.
    pub(crate) async fn wait(&mut self) -> std::io::Result<ExitStatus> {
        let code = (&mut self.ended).await;
        self.over = true;
        let code = code.map_err(|_| gone())?;
        Ok(ExitStatus::from_raw(i32::from(code) << 8))
    }

    /// Asks the program to end.
    pub(crate) fn term(&self) {
        self.guard.send(&Wish::Term(self.id));
    }

    /// Ends it.
    pub(crate) fn kill(&self) {
        self.guard.send(&Wish::Kill(self.id));
    }
}

/// The guard is no more, and took the program with it.
fn gone() -> std::io::Error {
    let kind = std::io::ErrorKind::ConnectionAborted;
    std::io::Error::new(kind, "the guard process was killed")
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if !self.over {
            self.kill();
        }
    }
}

/// Starts the guard on the side, where a program is about to be wanted: the first one finds it
/// there. What keeps it from starting is said to whoever wants it.
pub(crate) fn warm_up() {
    std::thread::spawn(|| drop(Guard::shared()));
}

impl Guard {
    /// The guard of this process.
    fn shared() -> std::io::Result<Arc<Self>> {
        static SHARED: Mutex<Option<Arc<Guard>>> = Mutex::new(None);
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(guard) = &*shared
            && !guard.programs().gone
        {
            return Ok(Arc::clone(guard));
        }
        let guard = Self::start()?;
        *shared = Some(Arc::clone(&guard));
        Ok(guard)
    }

    fn start() -> std::io::Result<Arc<Self>> {
        let (socket, theirs) = UnixStream::pair()?;
        let mut child = std::process::Command::new(std::env::current_exe()?)
            .arg(GUARD)
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let guard = Arc::new(Self {
            socket,
            programs: Mutex::default(),
            session: child.id(),
        });
        let heard = Arc::clone(&guard);
        std::thread::spawn(move || {
            heard.hear();
            // It ended, or is about to.
            let _status = child.wait();
        });
        Ok(guard)
    }

    fn programs(&self) -> MutexGuard<'_, Programs> {
        self.programs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A guard that is gone has no programs that could be asked.
    fn send(&self, wish: &Wish) {
        let _whole = self.programs();
        let _gone = wire::send(&self.socket, wish, &[]);
    }

    /// Hears the guard until its end.
    fn hear(&self) {
        while let Ok(Some((word, _))) = wire::receive::<Word>(&self.socket) {
            let mut programs = self.programs();
            match word {
                Word::Started { id, group } => {
                    if let Some(running) = programs.running.get_mut(&id) {
                        running.group = Some(group);
                    }
                }
                Word::Ended { id, code } => {
                    if let Some(running) = programs.running.remove(&id) {
                        // Nobody waits for a program whose handle was dropped.
                        let _dropped = running.ended.send(code);
                    }
                }
            }
        }
        let mut programs = self.programs();
        programs.gone = true;
        let untold = programs
            .running
            .values()
            .any(|running| running.group.is_none());
        for running in std::mem::take(&mut programs.running).into_values() {
            if let Some(group) = running.group.and_then(Pid::from_raw) {
                let _gone = kill_process_group(group, Signal::KILL);
            }
        }
        drop(programs);
        if untold {
            end_session(self.session);
        }
    }
}

/// Kills every process of a session, looking again until a look finds none, for one may have
/// started another meanwhile. Where there is no `/proc` (macOS) nobody is found.
fn end_session(session: u32) {
    const LOOKS: usize = 100;
    for _ in 0..LOOKS {
        let listing = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let numbers = listing.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let mut found = false;
        for number in numbers {
            let stat = std::fs::read_to_string(format!("/proc/{number}/stat"));
            if stat.is_ok_and(|stat| lives_in(&stat, session)) {
                found = true;
                let process = Pid::from_raw(number).expect("processes have numbers above zero");
                let _gone = kill_process(process, Signal::KILL);
            }
        }
        if !found {
            return;
        }
    }
}

/// Whether `/proc/N/stat` is that of a living process of the session. After the name, which may
/// hold anything, come its state, parent, group and session.
fn lives_in(stat: &str, session: u32) -> bool {
    let Some((_, fields)) = stat.rsplit_once(") ") else {
        return false;
    };
    let fields: Vec<&str> = fields.split(' ').take(4).collect();
    let own = fields.get(3).and_then(|field| field.parse().ok());
    own == Some(session) && !matches!(fields[0], "Z" | "X")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_hides_no_session() {
        let stat = "17 (a) Z 1 2 3) S 1 17 42 0 -1";
        assert!(lives_in(stat, 42));
        assert!(!lives_in(stat, 3) && !lives_in(stat, 17));
        assert!(!lives_in(&stat.replace(") S", ") Z"), 42));
        assert!(!lives_in("", 42));
    }
}
