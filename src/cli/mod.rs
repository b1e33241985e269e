//! The command: its words, one page each, and what they mean to whoever called it.
//!
//! Promises: the exit codes of [`Exit`], whatever happens; faults go to standard error, what
//! was asked for to standard output. Must not know: how anything is done.

mod accept;
mod cache;
mod check;
mod compare;
mod exit;
mod explain;
mod graph;
mod init;
mod log;
mod open;
mod plan;
mod remote;
mod review;
mod run;
mod schema;
mod set;
mod trace;
mod update;
mod usage;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::report::screen;
use crate::run::{GUARD, guard};

pub use exit::Exit;

/// Options of every command.
#[derive(Args, Clone, Debug)]
struct Common {
    /// Start looking for pipeline.yaml in this folder
    #[arg(short = 'C', long = "directory", value_name = "DIR", global = true)]
    directory: Option<PathBuf>,
    /// The profile to use
    #[arg(long, value_name = "NAME", global = true)]
    profile: Option<String>,
    /// Override a parameter or a stage's field for this command: lr=1e-4, train.lr=1e-4 (repeatable); pipeline.lock is not written
    #[arg(long = "set", value_name = "NAME=VALUE", global = true)]
    sets: Vec<String>,
}

#[derive(Parser, Debug)]
#[command(
    name = "tunesmith",
    version,
    about = "make for LLM fine-tunes: runs the stages of pipeline.yaml whose inputs changed",
    after_help = "Without a command, `run` is meant: `tunesmith` runs the pipeline, `tunesmith train` \
                  runs `train` and what it needs.\n\nExit codes: 0 ok, 1 a stage failed, 2 the pipeline \
                  is at fault, 3 a gate is broken, 4 stale (plan --check), 5 locked, 6 waiting for people, \
                  130 cancelled.",
    propagate_version = true,
    subcommand_required = true
)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run the stages whose inputs changed (the default command)
    Run(run::RunArgs),
    /// Run every stage that acts outside (upload), with what it needs
    Deploy(run::RunArgs),
    /// Show what would run, and why
    Plan(plan::PlanArgs),
    /// Explain one stage: its key, its inputs, its result, why it would run
    Explain(explain::ExplainArgs),
    /// Compare results: runs, parameters, metrics
    Compare(compare::CompareArgs),
    /// Set a parameter or a stage's field in pipeline.yaml; comments and layout stay
    Set(set::SetArgs),
    /// Look up again what the sources of fetching stages are now, and pin that
    Update(update::UpdateArgs),
    /// Draw the graph of stages
    Graph(graph::GraphArgs),
    /// Check the pipeline without running anything
    Check(check::CheckArgs),
    /// Begin a new project
    Init(init::InitArgs),
    /// Show a stage's log
    Log(log::LogArgs),
    /// Draw when each stage of a run ran, for chrome://tracing or Perfetto
    Trace(trace::TraceArgs),
    /// Take what lies in out/ as a stage's result, after a change known to be harmless
    Accept(accept::AcceptArgs),
    /// Decide about rows that wait for people (exit code 6 while any does)
    Review(review::ReviewArgs),
    /// Look after the store
    Cache(cache::CacheArgs),
    /// Print the JSON Schema of pipeline.yaml
    #[command(hide = true)]
    Schema,
    /// Watch over the programs of stages (started by `run`)
    #[command(hide = true)]
    Guard,
}

impl Command {
    /// Whether it was asked to speak JSON: then its troubles are told so, too.
    fn json(&self) -> bool {
        match self {
            Self::Run(args) | Self::Deploy(args) => args.json,
            Self::Plan(args) => args.json,
            Self::Explain(args) => args.json,
            Self::Compare(args) => args.json,
            Self::Set(args) => args.json,
            Self::Update(args) => args.json,
            Self::Graph(args) => args.json,
            Self::Check(args) => args.json,
            Self::Init(args) => args.json,
            Self::Log(args) => args.json,
            Self::Accept(args) => args.json,
            Self::Review(args) => args.json,
            Self::Cache(args) => args.json,
            Self::Trace(_) | Self::Schema | Self::Guard => false,
        }
    }
}

/// The words that begin a command.
const WORDS: [&str; 18] = [
    "run", "deploy", "plan", "explain", "compare", "set", "update", "graph", "check", "init",
    "log", "trace", "accept", "review", "cache", "schema", GUARD, "help",
];

/// Options that take the next word as their value.
const VALUED: [&str; 9] = [
    "-C",
    "--directory",
    "--profile",
    "--set",
    "--force",
    "-j",
    "--jobs",
    "--pool",
    "--trace",
];

/// The whole command.
pub fn main(args: Vec<OsString>) -> ExitCode {
    // Its start is waited for, and reading a command line takes as long as all else of it.
    if let [_, word] = &*args
        && word == GUARD
    {
        return guard();
    }
    let cli = match Cli::try_parse_from(with_default(args)) {
        Ok(cli) => cli,
        Err(error) => {
            let text = error.render().to_string();
            if error.use_stderr() {
                screen::complain(&text);
                return Exit::Config.into();
            }
            screen::say(&text);
            return Exit::Ok.into();
        }
    };
    if let Command::Guard = cli.command {
        return guard();
    }
    let common = cli.common;
    let json = cli.command.json();
    let done = match cli.command {
        Command::Run(args) => run::run(&common, &args),
        Command::Deploy(args) => run::deploy(&common, args),
        Command::Plan(args) => plan::plan(&common, &args),
        Command::Explain(args) => explain::explain(&common, &args),
        Command::Compare(args) => compare::compare(&common, &args),
        Command::Update(args) => update::update(&common, &args),
        Command::Set(args) => set::set(&common, &args),
        Command::Graph(args) => graph::graph(&common, &args),
        Command::Check(args) => check::check(&common, &args),
        Command::Init(args) => init::init(&common, &args),
        Command::Log(args) => log::log(&common, &args),
        Command::Trace(args) => trace::trace(&common, &args),
        Command::Accept(args) => accept::accept(&common, &args),
        Command::Review(args) => review::review(&common, &args),
        Command::Cache(args) => cache::cache(&common, &args),
        Command::Schema => Ok(schema::schema()),
        Command::Guard => unreachable!("handled above"),
    };
    done.unwrap_or_else(|trouble| trouble.tell(json)).into()
}

/// Puts `run` in front where no command is named.
fn with_default(mut args: Vec<OsString>) -> Vec<OsString> {
    let mut words = args.iter().skip(1);
    let mut insert = true;
    while let Some(word) = words.next() {
        let word = word.to_string_lossy();
        if ["-h", "--help", "-V", "--version"].contains(&&*word) {
            insert = false;
            break;
        }
        if VALUED.contains(&&*word) && word != "--force" {
            words.next();
        } else if !word.starts_with('-') {
            insert = !WORDS.contains(&&*word);
            break;
        }
    }
    if insert {
        args.insert(1.min(args.len()), "run".into());
    }
    args
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use clap::CommandFactory;

    use super::{Cli, WORDS, with_default};

    fn filled(line: &str) -> String {
        let args = line.split(' ').map(OsString::from).collect();
        let filled = with_default(args).into_iter();
        let words: Vec<_> = filled
            .map(|word| word.into_string().expect("text"))
            .collect();
        words.join(" ")
    }

    #[test]
    fn run_is_meant_where_nothing_else_is_said() {
        assert_eq!(filled("tunesmith"), "tunesmith run");
        assert_eq!(filled("tunesmith train"), "tunesmith run train");
        assert_eq!(filled("tunesmith --profile x"), "tunesmith run --profile x");
        assert_eq!(
            filled("tunesmith --profile x plan"),
            "tunesmith --profile x plan"
        );
        assert_eq!(filled("tunesmith -C dir check"), "tunesmith -C dir check");
        assert_eq!(filled("tunesmith --json"), "tunesmith run --json");
        assert_eq!(filled("tunesmith --help"), "tunesmith --help");
    }

    #[test]
    fn every_command_is_a_word() {
        for command in Cli::command().get_subcommands() {
            assert!(
                WORDS.contains(&command.get_name()),
                "{}",
                command.get_name()
            );
        }
        Cli::command().debug_assert();
    }
}
