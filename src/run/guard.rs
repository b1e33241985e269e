//! The guard: a small process between the command and the programs of stages, so that nothing
//! a stage started outlives the command, even one that is killed with SIGKILL.
//!
//! The command starts `tunesmith guard` once, at its first program, with one end of a socket
//! pair as standard input, and tells it what to start ([`super::wire`]). Every program gets a
//! process group of its own; when it ends, what is left of its group is killed and its status is
//! told (128 + the signal's number after a signal). The end of the socket, which the kernel
//! sends when the command is gone, however it went, kills every group.
//!
//! It leads a session of its own: should it be killed itself, the command ends what it told of by
//! group, and what it had started and not told of yet by session.
//!
//! The guard starts the programs itself, so there is no moment at which one runs unguarded; and
//! it is small and has one thread more than programs, so starting one from here costs less than
//! from the command. Linux's parent-death signal would reach the program only, not what it
//! started; a socket needs no platform and no unsafe code.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::wire::{self, Start, Wish, Word};

/// The hidden subcommand.
pub const GUARD: &str = "guard";

/// Exit code when the program cannot be started, as shells have it.
pub(crate) const NOT_STARTED: u8 = 127;

/// The whole life of a guard process.
pub fn guard() -> ExitCode {
    // Fails only where it leads a group already: then groups alone are ended.
    let _groups_alone = rustix::process::setsid();
    let control = std::io::stdin().as_fd().try_clone_to_owned();
    let Ok(socket) = control.map(UnixStream::from) else {
        return ExitCode::from(NOT_STARTED);
    };
    let socket = Arc::new(socket);
    let groups = Arc::new(Groups::default());
    pass_signals_on(Arc::clone(&groups));
    while let Ok(Some((wish, descriptors))) = wire::receive(&socket) {
        match wish {
            Wish::Run(start) => run(start, descriptors, &groups, &socket),
            Wish::Term(id) => groups.signal(id, Signal::TERM),
            Wish::Kill(id) => groups.signal(id, Signal::KILL),
        }
    }
    groups.signal_all(Signal::KILL);
    ExitCode::SUCCESS
}

/// Process groups of the programs that run, by the command's numbers.
#[derive(Default)]
struct Groups(Mutex<BTreeMap<u64, Pid>>);

impl Groups {
    fn all(&self) -> MutexGuard<'_, BTreeMap<u64, Pid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock is held while the signal is sent: a number is never used again before that.
    fn signal(&self, id: u64, signal: Signal) {
        if let Some(group) = self.all().get(&id) {
            let _gone = kill_process_group(*group, signal);
        }
    }

    fn signal_all(&self, signal: Signal) {
        for group in self.all().values() {
            let _gone = kill_process_group(*group, signal);
        }
    }
}

/// Starts a program and a thread that waits for it.
fn run(start: Start, descriptors: Vec<OwnedFd>, groups: &Arc<Groups>, socket: &Arc<UnixStream>) {
    let id = start.id;
    let Ok(mut child) = spawn(&start, descriptors) else {
        let code = NOT_STARTED;
        return say(socket, &Word::Ended { id, code });
    };
    let group = Pid::from_child(&child);
    groups.all().insert(id, group);
    let started = Word::Started {
        id,
        group: group.as_raw_nonzero().get(),
    };
    say(socket, &started);
    let groups = Arc::clone(groups);
    let socket = Arc::clone(socket);
    let wait = move || {
        feed(&mut child, start.input);
        // Looked at, not taken: as long as the leader is there as a zombie, nobody else gets
        // its number, and what is killed is its group.
        let _until = waitid(
            WaitId::Pid(group),
            WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
        );
        groups.all().remove(&id);
        let _nobody_left = kill_process_group(group, Signal::KILL);
        let code = code(&mut child);
        say(&socket, &Word::Ended { id, code });
    };
    std::thread::spawn(wait);
}

/// Starts the program; why it cannot be is told where its own complaints would go.
fn spawn(start: &Start, descriptors: Vec<OwnedFd>) -> Result<Child, ()> {
    let mut descriptors = descriptors.into_iter();
    let (Some(out), Some(err)) = (descriptors.next(), descriptors.next()) else {
        return Err(());
    };
    let complain = err.try_clone();
    let Some((name, arguments)) = start.line.split_first() else {
        return Err(());
    };
    let spawned = Command::new(find(name, &start.folder, &start.env))
        .arg0(name)
        .args(arguments)
        .current_dir(&start.folder)
        .env_clear()
        .envs(start.env.iter().map(|(name, value)| (name, value)))
        .stdin(if start.input.is_empty() {
            Stdio::null()
        } else {
            Stdio::piped()
        })
        .stdout(out)
        .stderr(err)
        .process_group(0)
        .spawn();
    spawned.map_err(|error| {
        if let Ok(place) = complain {
            let line = format!("cannot start `{name}`: {error}\n");
            let _gone = std::fs::File::from(place).write_all(line.as_bytes());
        }
    })
}

/// The program that `name` means under the program's own PATH. A whole path lets the standard
/// library start it without copying this process first.
fn find(name: &str, folder: &Path, env: &[(String, String)]) -> PathBuf {
    if name.contains('/') {
        return folder.join(name);
    }
    let path = env.iter().find(|(name, _)| name == "PATH");
    let folders = path.map_or("/bin:/usr/bin", |(_, value)| value).split(':');
    let mut places = folders.map(|folder| Path::new(folder).join(name));
    places
        .find(|place| place.is_absolute() && place.is_file())
        .unwrap_or_else(|| PathBuf::from(name))
}

/// Takes the status of a program that has ended.
fn code(child: &mut Child) -> u8 {
    let Ok(status) = child.wait() else { return 1 };
    status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(1)
}

/// A command that is gone hears nothing; the end of the socket says the rest.
fn say(socket: &UnixStream, word: &Word) {
    static WHOLE: Mutex<()> = Mutex::new(());
    let _one_at_a_time = WHOLE.lock().unwrap_or_else(PoisonError::into_inner);
    let _gone = wire::send(socket, word, &[]);
}

/// Writes the program's input and closes it; a program that does not read it is no fault.
fn feed(child: &mut Child, input: String) {
    if let Some(mut pipe) = child.stdin.take() {
        std::thread::spawn(move || pipe.write_all(input.as_bytes()));
    }
}

/// A guard that is itself asked to end (`killall tunesmith`) asks the programs instead: it
/// goes when the command has gone.
fn pass_signals_on(groups: Arc<Groups>) {
    // Without handlers a signal would end the guard alone; nothing else depends on them.
    let Ok(mut signals) = Signals::new([SIGTERM, SIGINT, SIGHUP]) else {
        return;
    };
    std::thread::spawn(move || {
        for _ in signals.forever() {
            groups.signal_all(Signal::TERM);
        }
    });
}
