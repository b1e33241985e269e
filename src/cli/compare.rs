//! `tunesmith compare [STAGE...]`

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use cache::{Digest, Record};
use clap::{Args, ValueEnum};
use stages::Outcome;

use super::Common;
use super::exit::{Exit, Trouble};
use crate::lock::Lock;
use crate::plan::{Last, Provenance, base};
use crate::report::compare::{Row, Shape, draw};
use crate::report::screen;
use crate::run::Project;

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// Aligned columns
    Table,
    /// A table for a pull request
    Markdown,
    /// For a spreadsheet; parameters and metrics in full
    Csv,
    /// One object a line
    Json,
}

#[derive(Args, Clone, Debug)]
pub(super) struct CompareArgs {
    /// The stages whose results are compared, `eval` or `eval[lr=1e-4]`; all with metrics, if none is named
    #[arg(value_name = "STAGE")]
    stages: Vec<String>,
    /// Every result that the store still has, not only the last ones
    #[arg(long)]
    history: bool,
    /// Results that another lock file names: a path, `-`, or git:BRANCH (repeatable)
    #[arg(long = "lock", value_name = "LOCK")]
    locks: Vec<String>,
    /// Parameters that are the same everywhere, too
    #[arg(long)]
    all: bool,
    /// How to write it
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// The same as --format json
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn compare(common: &Common, args: &CompareArgs) -> Result<Exit, Trouble> {
    let project = common.project()?;
    let locks = args
        .locks
        .iter()
        .map(|lock| Ok((lock.clone(), read(lock, &project)?)));
    let locks = locks.collect::<Result<Vec<_>, Trouble>>()?;
    let records = project.store.usage()?.records;
    let records: Vec<Record> = records.into_iter().map(|used| used.record).collect();
    let compared = Compared {
        provenance: Provenance::new(&records),
        last: project.last(),
        records: &records,
        project: &project,
        args,
        locks,
    };
    let rows = compared.rows()?;
    if rows.is_empty() {
        return Err(Trouble::new(
            Exit::Failed,
            "compare::nothing",
            "there is no result to compare",
            "run the pipeline, or name a stage that has run: tunesmith compare STAGE",
        ));
    }
    let shape = match args.format {
        _ if args.json => Shape::Json,
        Format::Table => Shape::Table,
        Format::Markdown => Shape::Markdown,
        Format::Csv => Shape::Csv,
        Format::Json => Shape::Json,
    };
    let tables: Vec<String> = rows
        .values()
        .map(|rows| draw(rows, shape, args.all))
        .collect();
    let between = if shape == Shape::Json { "" } else { "\n" };
    screen::say(&tables.join(between));
    Ok(Exit::Ok)
}

/// A lock file of somewhere else.
fn read(spec: &str, project: &Project) -> Result<Lock, Trouble> {
    let trouble = |cause: String| {
        let mend = "name a file, `-` for standard input, or `git:BRANCH`";
        Trouble::new(Exit::Config, "compare::lock", cause, mend)
    };
    let text = if spec == "-" {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .map_err(|error| trouble(format!("standard input: {error}")))?;
        text
    } else if let Some(revision) = spec.strip_prefix("git:") {
        let shown = std::process::Command::new("git")
            .arg("-C")
            .arg(&project.pipeline.root)
            .args(["show", &format!("{revision}:./{}", crate::lock::FILE_NAME)])
            .output()
            .map_err(|error| trouble(format!("git: {error}")))?;
        if !shown.status.success() {
            let said = String::from_utf8_lossy(&shown.stderr);
            return Err(trouble(format!("`{spec}`: {}", said.trim())));
        }
        String::from_utf8_lossy(&shown.stdout).into_owned()
    } else {
        std::fs::read_to_string(spec).map_err(|error| trouble(format!("`{spec}`: {error}")))?
    };
    Ok(Lock::parse(&PathBuf::from(spec), &text)?)
}

struct Compared<'a> {
    project: &'a Project,
    args: &'a CompareArgs,
    locks: Vec<(String, Lock)>,
    records: &'a [Record],
    provenance: Provenance<'a>,
    last: Last,
}

impl Compared<'_> {
    /// Rows by stage, without cells.
    fn rows(&self) -> Result<BTreeMap<String, Vec<Row>>, Trouble> {
        let mut found: BTreeMap<String, Vec<Row>> = BTreeMap::new();
        let pipeline = &self.project.pipeline;
        let named = self.project.graph.named(pipeline, &self.args.stages)?;
        let ids: BTreeSet<&str> = named.iter().map(|at| &*pipeline.stages[*at].id).collect();
        let bases: BTreeSet<&str> = named.iter().map(|at| &*pipeline.stages[*at].name).collect();
        let wanted = |stage: &str| {
            let whole = self.args.stages.iter().any(|name| name == base(stage));
            ids.is_empty() || ids.contains(stage) || (whole && bases.contains(base(stage)))
        };
        let mut add = |row: Row| {
            let measured = row
                .metrics
                .as_ref()
                .is_none_or(|metrics| !metrics.is_empty());
            if measured || !ids.is_empty() {
                found
                    .entry(base(&row.stage).to_owned())
                    .or_default()
                    .push(row);
            }
        };
        let order = self
            .project
            .graph
            .order()
            .iter()
            .map(|at| &pipeline.stages[*at]);
        for spec in order.filter(|spec| wanted(&spec.id)) {
            let Some(last) = self.last.get(&spec.id) else {
                continue;
            };
            let records = self.project.store.records(&last.key)?;
            let record = records.iter().find(|record| record.result() == last.result);
            if let Some(record) = record {
                add(self.row(&spec.id, "now", record));
            }
        }
        if self.args.history {
            let mut records: Vec<&Record> = self.records.iter().collect();
            records.sort_by(|a, b| b.made.started.cmp(&a.made.started));
            for record in records.iter().filter(|record| wanted(&record.made.stage)) {
                let now = self.last.get(&record.made.stage);
                let here = self.project.graph.find(&record.made.stage).is_some();
                if !here || now.is_none_or(|last| last.key != record.key) {
                    add(self.row(&record.made.stage, &when(&record.made.started), record));
                }
            }
        }
        for (name, lock) in &self.locks {
            let beside = lock.stages(&pipeline.profile);
            let beside = beside.flat_map(|(_, outputs)| outputs.values());
            let beside: BTreeSet<String> = beside.map(Digest::hex).collect();
            for (stage, outputs) in lock.stages(&pipeline.profile) {
                if !wanted(stage) {
                    continue;
                }
                match self.provenance.of(stage, outputs, &beside) {
                    Some(record) => add(self.row(stage, &shown(name), record)),
                    None if !ids.is_empty() => add(Row {
                        stage: stage.to_owned(),
                        from: shown(name),
                        ..Row::default()
                    }),
                    None => {}
                }
            }
        }
        Ok(found)
    }

    fn row(&self, stage: &str, from: &str, record: &Record) -> Row {
        Row {
            stage: stage.to_owned(),
            from: from.to_owned(),
            parameters: self.provenance.parameters(stage, &record.parts),
            metrics: Some(Outcome::of(&record.outcome).metrics),
        }
    }
}

/// A time as people read it, UTC.
fn when(started: &str) -> String {
    let second = started.split(['.', 'Z']).next().unwrap_or_default();
    format!("{} UTC", second.replace('T', " "))
}

fn shown(lock: &str) -> String {
    match lock.strip_prefix("git:") {
        Some(branch) => branch.to_owned(),
        None if lock == "-" => "stdin".to_owned(),
        None => {
            let name = Path::new(lock).file_name();
            name.map_or_else(
                || lock.to_owned(),
                |name| name.to_string_lossy().into_owned(),
            )
        }
    }
}
