//! `tunesmith review [STAGE...]`

use std::io::{BufRead as _, stdin};
use std::path::Path;
use std::process::Command;

use clap::Args;
use stages::Undecided;
use stages::review::Choice;

use super::Common;
use super::exit::{Exit, Trouble};
use crate::report::{review as page, screen};
use crate::run::{ReviewError, Reviews};

#[derive(Args, Clone, Debug)]
pub(super) struct ReviewArgs {
    /// Stages in which rows wait; all, if none is named
    #[arg(value_name = "STAGE")]
    stages: Vec<String>,
    /// Show the rows that wait, ask nothing
    #[arg(long)]
    list: bool,
    /// Accept these rows: names, or enough of their first letters (repeatable)
    #[arg(long, value_name = "ROW", num_args = 1..)]
    accept: Vec<String>,
    /// Reject these rows
    #[arg(long, value_name = "ROW", num_args = 1..)]
    reject: Vec<String>,
    /// Edit these rows in VISUAL or EDITOR
    #[arg(long, value_name = "ROW", num_args = 1..)]
    edit: Vec<String>,
    /// Tell it as JSON lines; nothing is asked
    #[arg(long)]
    pub(super) json: bool,
}

/// The exit code says whether people are still waited for.
pub(super) fn review(common: &Common, args: &ReviewArgs) -> Result<Exit, Trouble> {
    let project = common.project()?;
    let mut desk = Desk {
        reviews: Reviews::look(&project, &args.stages)?,
        scratch: project.store.home().join("edited.json"),
        json: args.json,
        decided: 0,
    };
    let named = desk.named(args)?;
    if !named.is_empty() {
        for (choice, stage, row) in named {
            desk.one(choice, &stage, &row)?;
        }
    } else if args.list || args.json {
        desk.list();
    } else {
        desk.ask()?;
    }
    let waiting = desk.reviews.waiting();
    if !args.json {
        screen::say(&page::rest(waiting, desk.decided, &desk.reviews.unknown));
    }
    Ok(if waiting > 0 { Exit::People } else { Exit::Ok })
}

struct Desk<'a> {
    reviews: Reviews<'a>,
    /// Where a row lies while it is edited.
    scratch: std::path::PathBuf,
    json: bool,
    decided: usize,
}

impl Desk<'_> {
    /// The rows that the command line decides about; all names are looked up before any decision.
    fn named(&self, args: &ReviewArgs) -> Result<Vec<(Choice, String, String)>, Trouble> {
        let mut found = Vec::new();
        for (choice, names) in [
            (Choice::Accept, &args.accept),
            (Choice::Reject, &args.reject),
            (Choice::Edit, &args.edit),
        ] {
            for name in names {
                let (stage, row) = self.find(name)?;
                found.push((choice, stage, row));
            }
        }
        Ok(found)
    }

    fn find(&self, name: &str) -> Result<(String, String), Trouble> {
        let mut rows = self.reviews.named(name)?;
        let cause = match rows.len() {
            1 => return Ok(rows.remove(0)),
            0 => format!("no row `{name}` waits or was decided about"),
            _ => format!("`{name}` begins the names of {} rows", rows.len()),
        };
        let mend = "`tunesmith review --list` names the rows that wait";
        Err(Trouble::new(Exit::Config, "review::row", cause, mend))
    }

    fn list(&self) {
        for queue in &self.reviews.queues {
            for (at, row) in queue.rows.iter().enumerate() {
                screen::say(&if self.json {
                    page::waiting_json(&queue.stage, row)
                } else {
                    page::card(&queue.stage, row, (at + 1, queue.rows.len())) + "\n"
                });
            }
        }
    }

    fn decide(
        &mut self,
        stage: &str,
        row: &str,
        choice: Choice,
        to: Option<serde_json::Value>,
    ) -> Result<(), Trouble> {
        let decided = self.reviews.decide(stage, row, choice, to)?;
        self.decided += 1;
        screen::say(&if self.json {
            page::decided_json(stage, row, &decided)
        } else {
            page::decided(row, &decided)
        });
        Ok(())
    }

    /// A decision of the command line.
    fn one(&mut self, choice: Choice, stage: &str, row: &str) -> Result<(), Trouble> {
        if choice != Choice::Edit {
            return self.decide(stage, row, choice, None);
        }
        let mut waiting = self.reviews.queues.iter().flat_map(|queue| &queue.rows);
        let Some(waiting) = waiting.find(|waiting| waiting.row == row).cloned() else {
            let cause = format!("`{row}` is decided about: only a row that waits is edited");
            let mend = "remove its line from the file of decisions first";
            return Err(Trouble::new(Exit::Config, "review::row", cause, mend));
        };
        let text = self.in_editor(&waiting)?;
        let to = self.reviews.edited(stage, row, &text)?;
        self.decide(stage, row, Choice::Edit, Some(to))
    }

    /// Card by card, until the last or `quit`.
    fn ask(&mut self) -> Result<(), Trouble> {
        let queues = self.reviews.queues.iter();
        let rows = queues.flat_map(|queue| {
            let of = queue.rows.len();
            let rows = queue.rows.iter().cloned().enumerate();
            rows.map(move |(at, row)| (queue.stage.clone(), row, (at + 1, of)))
        });
        let rows: Vec<(String, Undecided, (usize, usize))> = rows.collect();
        for (stage, row, place) in rows {
            screen::say(&page::card(&stage, &row, place));
            if !self.answer(&stage, &row)? {
                return Ok(());
            }
            screen::say("\n");
        }
        Ok(())
    }

    /// Asks about one row until there is an answer; false is `quit`, or the end of the input.
    fn answer(&mut self, stage: &str, row: &Undecided) -> Result<bool, Trouble> {
        loop {
            screen::say(&page::question());
            let mut line = String::new();
            let read = stdin().lock().read_line(&mut line);
            let word = line.trim().to_lowercase();
            match (read, word.as_str()) {
                (Ok(0) | Err(_), _) => {
                    screen::say("\n");
                    return Ok(false);
                }
                (_, "q" | "quit") => return Ok(false),
                (_, "s" | "skip") => return Ok(true),
                (_, "a" | "accept") => self.decide(stage, &row.row, Choice::Accept, None)?,
                (_, "r" | "reject") => self.decide(stage, &row.row, Choice::Reject, None)?,
                (_, "e" | "edit") => {
                    if !self.edit(stage, row)? {
                        continue;
                    }
                }
                _ => continue,
            }
            return Ok(true);
        }
    }

    /// Edits a row; false where nothing came of it, and why is said.
    fn edit(&mut self, stage: &str, row: &Undecided) -> Result<bool, Trouble> {
        let text = self.in_editor(row)?;
        if text.trim() == row.text.trim() {
            screen::say("  nothing was changed\n");
            return Ok(false);
        }
        match self.reviews.edited(stage, &row.row, &text) {
            Ok(to) => self
                .decide(stage, &row.row, Choice::Edit, Some(to))
                .map(|()| true),
            Err(ReviewError::Stage(error)) => {
                screen::say(&format!("  {}\n  {}\n", error.message, error.mend));
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The text of a row after a person had it in an editor.
    fn in_editor(&self, row: &Undecided) -> Result<String, Trouble> {
        let failed = |cause: String| {
            let mend = "set EDITOR to an editor that ends with 0 when the text is saved";
            Trouble::new(Exit::Failed, "review::editor", cause, mend)
        };
        let unreadable = |error| failed(format!("`{}`: {error}", self.scratch.display()));
        std::fs::write(&self.scratch, &row.text).map_err(unreadable)?;
        let ended = open(&self.scratch);
        let text = std::fs::read_to_string(&self.scratch).map_err(unreadable);
        // It was only for the editor.
        let _gone = std::fs::remove_file(&self.scratch);
        ended.map_err(failed)?;
        text
    }
}

/// Opens the editor on a file and waits for its end.
fn open(file: &Path) -> Result<(), String> {
    let set = |name| {
        std::env::var(name)
            .ok()
            .filter(|set: &String| !set.is_empty())
    };
    let editor = set("VISUAL").or_else(|| set("EDITOR"));
    let editor = editor.unwrap_or_else(|| "vi".to_owned());
    let mut command = Command::new("sh");
    // As git does: the variable may hold arguments.
    command
        .args(["-c", &format!("{editor} \"$1\""), "sh"])
        .arg(file);
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{editor}` ended with {status}")),
        Err(error) => Err(format!("`{editor}`: {error}")),
    }
}

impl From<ReviewError> for Trouble {
    fn from(error: ReviewError) -> Self {
        match error {
            ReviewError::Faults(found) => found.into(),
            ReviewError::Plan(error) => error.into(),
            ReviewError::Stage(error) => {
                Self::new(Exit::Failed, &error.code, error.message, &error.mend)
            }
        }
    }
}
