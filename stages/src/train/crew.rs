//! The processes that train one adapter together: who this one is, the others started, heard and ended.
//!
//! Where the command gave this stage several GPUs, this process is rank 0 and starts one worker for each of
//! the others, with its own request. Or somebody else started all of them and says in the environment who is
//! who. Promises: no process that was started here outlives the stage; of a failure the first cause is told,
//! not what followed from it. Must not know: gradients, cards.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use qlora::ranks::{self, Collective, Rendezvous};

use super::place::{self, Place};
use crate::base::engine;
use crate::contract::{Context, Params, Stage, StageError, WorkerMessage, WorkerRequest};

/// How long the others may take to end after rank 0: they write nothing.
const LAST_WORDS: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);
const LACKS: &str = "qlora::ranks";

/// This process among those that train together.
pub(super) struct Crew {
    ranks: Option<Box<dyn Collective>>,
    others: Vec<Other>,
}

/// A process that was started here.
struct Other {
    rank: usize,
    process: Child,
    /// Hears it to its end; gives what it failed with.
    hearing: Option<JoinHandle<Option<StageError>>>,
}

impl Crew {
    /// Meets all others, having started them where nobody else did.
    pub(super) fn meet(
        stage: &dyn Stage,
        params: &Params,
        ctx: &Context<'_>,
    ) -> Result<Self, StageError> {
        let mut crew = Self {
            ranks: None,
            others: Vec::new(),
        };
        match place::here(&|name| std::env::var(name).ok())? {
            Place::Alone => {}
            Place::First(world) => crew.start(stage, params, ctx, world)?,
            Place::Given(rank, meeting) => {
                let ranks = if rank == 0 {
                    let listener = listen(&meeting.address)?;
                    ranks::host(&listener, &meeting, &mut || going_on(ctx))
                } else {
                    ranks::join(&meeting, rank)
                };
                crew.ranks = Some(ranks.map_err(|error| engine(&error))?);
            }
        }
        Ok(crew)
    }

    fn start(
        &mut self,
        stage: &dyn Stage,
        params: &Params,
        ctx: &Context<'_>,
        world: usize,
    ) -> Result<(), StageError> {
        let listener = listen("127.0.0.1:0")?;
        let address = listener
            .local_addr()
            .map_err(|error| cannot_listen(&error))?;
        let meeting = Rendezvous {
            address: address.to_string(),
            token: token()?,
            world,
            patience: place::patience(&|name| std::env::var(name).ok())?,
        };
        ctx.log(format!("{world} ranks train together, this is rank 0"));
        let request = request(stage, params, ctx);
        for rank in 1..world {
            self.others.push(Other::start(rank, &meeting, &request)?);
        }
        let others = &mut self.others;
        let met = ranks::host(&listener, &meeting, &mut || {
            going_on(ctx)?;
            others.iter_mut().try_for_each(Other::runs)
        });
        match met {
            Ok(ranks) => {
                self.ranks = Some(ranks);
                Ok(())
            }
            Err(error) => Err(self.cause(engine(&error))),
        }
    }

    /// What the training loop sums over; none where this process is alone.
    pub(super) fn ranks(&self) -> Option<&dyn Collective> {
        self.ranks.as_deref()
    }

    /// Whether this process writes the results.
    pub(super) fn first(&self) -> bool {
        self.ranks.as_ref().is_none_or(|ranks| ranks.rank() == 0)
    }

    /// Ends the others; gives the outcome, or why it failed.
    pub(super) fn end<T>(mut self, outcome: Result<T, StageError>) -> Result<T, StageError> {
        if let (Err(error), Some(ranks)) = (&outcome, &self.ranks) {
            let why = qlora::Error::Config {
                what: error.message.clone(),
                mend: String::new(),
            };
            ranks.leave(&why);
        }
        outcome.map_err(|error| self.cause(error))
    }

    /// The fault that `error` is about, if it came from another rank that was started here.
    fn cause(&mut self, error: StageError) -> StageError {
        if error.code != LACKS {
            return error;
        }
        // Those who wait for rank 0 end when the connection does.
        self.ranks = None;
        let limit = Instant::now() + LAST_WORDS;
        let mut found = None;
        for other in &mut self.others {
            let (rank, ended) = (other.rank, other.end(limit));
            let told = match ended {
                (_, Some(told)) if told.code == LACKS => continue,
                (_, Some(told)) => StageError {
                    message: format!("rank {rank}: {}", told.message),
                    ..told
                },
                (Some(status), None) if !status.success() => died(rank, status),
                _ => continue,
            };
            found.get_or_insert(told);
        }
        found.unwrap_or(error)
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.ranks = None;
        let limit = Instant::now() + LAST_WORDS;
        for other in &mut self.others {
            other.end(limit);
        }
    }
}

impl Other {
    /// A worker like this one, on the next GPU. From the thread that runs the stage: a worker goes with the
    /// thread that started it.
    fn start(rank: usize, meeting: &Rendezvous, request: &str) -> Result<Self, StageError> {
        let program = std::env::current_exe().map_err(|error| cannot_start(rank, &error))?;
        let mut command = Command::new(program);
        command
            .envs(place::environment(rank, meeting))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if let Some(device) = place::device(rank, &|name| std::env::var(name).ok()) {
            command.env(place::VISIBLE, device);
        }
        let mut process = command
            .spawn()
            .map_err(|error| cannot_start(rank, &error))?;
        let said = process.stdout.take().expect("piped");
        let mut input = process.stdin.take().expect("piped");
        let other = Self {
            rank,
            process,
            hearing: Some(std::thread::spawn(move || hear(said))),
        };
        input
            .write_all(request.as_bytes())
            .map_err(|error| cannot_start(rank, &error))?;
        Ok(other)
    }

    /// Fails if it has ended.
    fn runs(&mut self) -> qlora::Result<()> {
        match self.process.try_wait() {
            Ok(None) => Ok(()),
            _ => Err(qlora::Error::ranks(
                format!("rank {} has ended before it joined", self.rank),
                "look at its message",
            )),
        }
    }

    /// Waits for its end until `limit`, then ends it: its status if it ended by itself, and its failure.
    fn end(&mut self, limit: Instant) -> (Option<ExitStatus>, Option<StageError>) {
        let mut status = None;
        while let Ok(None) = self.process.try_wait() {
            if Instant::now() >= limit {
                let _gone = self.process.kill();
                break;
            }
            std::thread::sleep(PAUSE);
        }
        let waited = self.process.wait();
        if Instant::now() < limit {
            status = waited.ok();
        }
        let hearing = self.hearing.take();
        (status, hearing.and_then(|hearing| hearing.join().ok()?))
    }
}

/// Another rank's messages: only a failure matters, for rank 0 tells the rest. What is no message goes to
/// standard error, where the log takes it from.
fn hear(said: ChildStdout) -> Option<StageError> {
    let mut failed = None;
    for line in BufReader::new(said).lines().map_while(Result::ok) {
        match serde_json::from_str(&line) {
            Ok(WorkerMessage::Failed(error)) => failed = Some(error),
            Ok(_) => {}
            Err(_) => {
                let _unheard = writeln!(std::io::stderr(), "{line}");
            }
        }
    }
    failed
}

/// What this process was asked, for another one.
fn request(stage: &dyn Stage, params: &Params, ctx: &Context<'_>) -> String {
    let request = WorkerRequest {
        program: env!("CARGO_PKG_VERSION").to_owned(),
        kind: stage.kind().to_owned(),
        version: stage.version(),
        params: params.given().clone(),
        inputs: ctx.inputs.clone(),
        derived: ctx.derived.clone(),
        output: ctx.output.clone(),
        checkpoint: ctx.checkpoint.clone(),
        keep: ctx.keep.clone(),
        seed: ctx.seed,
        threads: ctx.threads,
        pin: ctx.pin.clone(),
        network: ctx.network,
    };
    serde_json::to_string(&request).expect("a request is plain data")
}

fn going_on(ctx: &Context<'_>) -> qlora::Result<()> {
    if ctx.cancel.load(Ordering::Relaxed) {
        return Err(qlora::Error::Cancelled);
    }
    Ok(())
}

fn listen(address: &str) -> Result<TcpListener, StageError> {
    TcpListener::bind(address).map_err(|error| cannot_listen(&error))
}

/// Sixteen bytes that nobody guesses.
fn token() -> Result<String, StageError> {
    let mut bytes = [0u8; 16];
    let source = std::path::Path::new("/dev/urandom");
    std::fs::File::open(source)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|error| StageError::io(source, &error))?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}

fn cannot_listen(error: &std::io::Error) -> StageError {
    StageError::new(
        "train::no-rendezvous",
        format!("rank 0 cannot listen for the others: {error}"),
        format!("check the address in {}", place::RENDEZVOUS),
    )
}

fn cannot_start(rank: usize, error: &std::io::Error) -> StageError {
    StageError::new(
        "train::no-rank",
        format!("rank {rank} cannot be started: {error}"),
        "check that the worker's file is still there, or claim one GPU",
    )
}

fn died(rank: usize, status: ExitStatus) -> StageError {
    let how = match status.signal() {
        Some(signal) => format!("was ended by signal {signal}"),
        None => format!("ended with status {}", status.code().unwrap_or(-1)),
    };
    StageError::new(
        "train::rank-died",
        format!("the process of rank {rank} {how}"),
        "most often the machine ran out of memory; run again: training goes on from its checkpoint",
    )
}
