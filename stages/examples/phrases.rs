//! Prints rows that a phrase book gives, for the person who edits it.
//!
//! `cargo run --release -p stages --example phrases -- data/tools.yaml data/grammar.yaml 40 7`
//! (the last two are the count and the seed; add a path to eval prompts to keep them out).

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use stages::contract::canonical;
use stages::conversation::{Message, read};
use stages::{Context, Stage, StageError};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [tools, grammar, rest @ ..] = args.as_slice() else {
        return Err("usage: phrases TOOLS GRAMMAR [COUNT] [SEED] [EVAL]".into());
    };
    let count: u64 = rest.first().map_or(Ok(40), |text| text.parse())?;
    let seed: u64 = rest.get(1).map_or(Ok(7), |text| text.parse())?;
    let mut inputs: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    inputs.insert("tools".to_owned(), vec![tools.into()]);
    inputs.insert("grammar".to_owned(), vec![grammar.into()]);
    if let Some(eval) = rest.get(2) {
        inputs.insert("eval".to_owned(), vec![eval.into()]);
    }
    let folder = tempfile::tempdir()?;
    draw(count, seed, inputs, folder.path()).map_err(|error| format!("{error}\n{}", error.mend))?;
    let mut out = std::io::stdout().lock();
    for placed in read(&folder.path().join("rows.jsonl"))? {
        let row = placed.row;
        let now = row
            .now
            .map(|now| now.strftime("%a %Y-%m-%d %H:%M").to_string());
        writeln!(out, "--- {} [{}]", row.id, now.unwrap_or_default())?;
        for message in &row.messages {
            match message {
                Message::User { content } => writeln!(out, "  > {content}")?,
                Message::Tool { content } => writeln!(out, "  = {content}")?,
                Message::Assistant { content, calls } => {
                    writeln!(out, "  {content}")?;
                    for call in calls {
                        let params = serde_json::to_string(&call.params)?;
                        writeln!(out, "    {} {params}", call.tool)?;
                    }
                }
            }
        }
    }
    write!(
        out,
        "{}",
        std::fs::read_to_string(folder.path().join("report.json"))?
    )?;
    Ok(())
}

fn draw(
    count: u64,
    seed: u64,
    inputs: BTreeMap<String, Vec<PathBuf>>,
    folder: &std::path::Path,
) -> Result<(), StageError> {
    let stage = stages::synthesize::Synthesize;
    let given = [("count".to_owned(), count.into())].into();
    let params = canonical(stage.fields(), &given).expect("a count is a right parameter");
    let cancel = AtomicBool::new(false);
    stage.run(
        &params,
        &Context {
            inputs,
            derived: BTreeMap::new(),
            output: folder.to_owned(),
            checkpoint: folder.to_owned(),
            keep: folder.to_owned(),
            seed,
            threads: 1,
            pin: None,
            network: false,
            events: &|_| {},
            cancel: &cancel,
        },
    )?;
    Ok(())
}
