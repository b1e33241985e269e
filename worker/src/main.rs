//! `tunesmith-worker`: runs one stage. A request as one JSON object on standard input,
//! messages as JSON lines on standard output, anything else on standard error.
//!
//! Promises: the last line is `done` or `failed`, also after a panic; SIGTERM sets the
//! stage's cancel flag; a request from another version is refused before any work. This is
//! the only executable that may link CUDA. Must not know: pipelines, the store, the
//! terminal, its neighbours.

use std::any::Any;
use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use stages::contract::{WorkerMessage, WorkerRequest, canonical};
use stages::{Context, Outcome, Params, Stage, StageError, registry};

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--version") {
        let line = format!("tunesmith-worker {}\n", env!("CARGO_PKG_VERSION"));
        return match std::io::stdout().write_all(line.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    die_with_the_guard();
    let cancel = Arc::new(AtomicBool::new(false));
    let messages = Messages::default();
    let ended = listen(&cancel).and_then(|()| serve(&messages, &cancel));
    let (last, code) = match ended {
        Ok(outcome) => (WorkerMessage::Done(outcome), ExitCode::SUCCESS),
        Err(error) => (WorkerMessage::Failed(error), ExitCode::FAILURE),
    };
    messages.send(&last);
    code
}

/// A GPU must not stay taken because whoever watched this process was killed: the kernel ends
/// it then. Where there is no such wish (macOS), the command's own care has to do.
fn die_with_the_guard() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Signal, set_parent_process_death_signal};
        let _refused = set_parent_process_death_signal(Some(Signal::KILL));
    }
}

/// SIGTERM and SIGINT ask the stage to stop at its next good moment.
fn listen(cancel: &Arc<AtomicBool>) -> Result<(), StageError> {
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(cancel)).map_err(|error| {
            StageError::new(
                "worker::signal",
                format!("cannot listen for signals: {error}"),
                "this is a fault of the machine; run again",
            )
        })?;
    }
    Ok(())
}

fn serve(messages: &Messages, cancel: &AtomicBool) -> Result<Outcome, StageError> {
    let request = read_request()?;
    let (stage, params) = accept(&request)?;
    let events = |event| messages.send(&WorkerMessage::Event(event));
    let context = Context {
        inputs: request.inputs,
        derived: request.derived,
        output: request.output,
        checkpoint: request.checkpoint,
        keep: request.keep,
        seed: request.seed,
        threads: request.threads.max(1),
        pin: request.pin,
        network: request.network,
        events: &events,
        cancel,
    };
    // The stage owns nothing that outlives this call, so a panic leaves nothing half-changed
    // behind but the output directory, which the caller discards.
    catch_unwind(AssertUnwindSafe(|| stage.run(&params, &context)))
        .unwrap_or_else(|panic| Err(panicked(&request.kind, panic.as_ref())))
}

fn read_request() -> Result<WorkerRequest, StageError> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| refusal(format!("the request cannot be read: {error}")))?;
    serde_json::from_str(&text)
        .map_err(|error| refusal(format!("the request is not understood: {error}")))
}

/// The stage and its parameters, if both sides are of one version.
fn accept(request: &WorkerRequest) -> Result<(&'static dyn Stage, Params), StageError> {
    let own = env!("CARGO_PKG_VERSION");
    if request.program != own {
        return Err(refusal(format!(
            "the command is version `{}`, the worker is version `{own}`",
            request.program
        )));
    }
    let stage = registry::find(&request.kind)
        .ok_or_else(|| refusal(format!("no stage kind `{}` in this worker", request.kind)))?;
    if request.version != stage.version() {
        return Err(refusal(format!(
            "the command asks for `{}` version {}, the worker has version {}",
            request.kind,
            request.version,
            stage.version()
        )));
    }
    let params = canonical(stage.fields(), &request.params).map_err(|faults| {
        let listed: Vec<_> = faults.into_iter().map(|fault| fault.message).collect();
        refusal(format!("parameters refused: {}", listed.join("; ")))
    })?;
    Ok((stage, params))
}

fn refusal(message: String) -> StageError {
    StageError::new(
        "worker::refused",
        message,
        "install `tunesmith` and `tunesmith-worker` from one build",
    )
}

fn panicked(kind: &str, panic: &(dyn Any + Send)) -> StageError {
    let said = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    StageError::new(
        "bug::panic",
        format!("a bug in stage `{kind}`: {said}"),
        "please report it with the stage's log (`tunesmith log STAGE`)",
    )
}

/// Standard output, a message a line; stages may send from several threads.
#[derive(Default)]
struct Messages {
    line: Mutex<Vec<u8>>,
}

impl Messages {
    fn send(&self, message: &WorkerMessage) {
        let mut line = self
            .line
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        line.clear();
        serde_json::to_writer(&mut *line, message).expect("messages are plain data");
        line.push(b'\n');
        let mut out = std::io::stdout().lock();
        // Whoever started the worker is gone when this fails; it is being killed too.
        let _gone = out.write_all(&line).and_then(|()| out.flush());
    }
}
