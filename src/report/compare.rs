//! `tunesmith compare`: runs, parameters, metrics, as a table.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::units;

/// The longest cell of a table for people.
const WIDEST: usize = 40;

/// One result.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// Stage with its cell.
    pub stage: String,
    /// Where it comes from: `now`, a time, a lock file.
    pub from: String,
    /// `train.lr` -> value; of canonical JSON for parameters of built-in stages.
    pub parameters: BTreeMap<String, String>,
    /// Metrics; `None` where the result is not in the store.
    pub metrics: Option<BTreeMap<String, f64>>,
}

/// How to write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Aligned columns.
    Table,
    /// A table as Markdown has it.
    Markdown,
    /// Comma-separated, RFC 4180.
    Csv,
    /// One object a line.
    Json,
}

/// The rows of one stage. Of the parameters those that differ, or all.
pub fn draw(rows: &[Row], shape: Shape, all: bool) -> String {
    if shape == Shape::Json {
        let line = |row: &Row| {
            let told = json!({
                "stage": row.stage, "from": row.from,
                "parameters": row.parameters, "metrics": row.metrics,
            });
            format!("{told}\n")
        };
        return rows.iter().map(line).collect();
    }
    let parameters = parameters(rows, all);
    let metrics: BTreeSet<&String> = rows
        .iter()
        .flat_map(|row| row.metrics.iter().flat_map(BTreeMap::keys))
        .collect();
    let mut head = vec!["stage".to_owned(), "from".to_owned()];
    head.extend(parameters.iter().map(|name| (*name).clone()));
    head.extend(metrics.iter().map(|name| (*name).clone()));
    let mut lines = vec![head];
    for row in rows {
        let mut line = vec![row.stage.clone(), row.from.clone()];
        line.extend(parameters.iter().map(|name| {
            let value = row.parameters.get(*name).map_or("", String::as_str);
            if shape == Shape::Csv {
                value.to_owned()
            } else {
                short(value)
            }
        }));
        line.extend(metrics.iter().map(|name| match &row.metrics {
            None => "not in the store".to_owned(),
            Some(found) => match (found.get(*name), shape) {
                (None, _) => String::new(),
                (Some(value), Shape::Csv) => value.to_string(),
                (Some(value), _) => units::figure(*value),
            },
        }));
        lines.push(line);
    }
    match shape {
        Shape::Csv => lines.iter().map(|line| csv(line)).collect(),
        Shape::Markdown => markdown(&lines),
        _ => aligned(&lines, 2 + parameters.len()),
    }
}

/// The parameters worth a column: those that are not the same in every row.
fn parameters(rows: &[Row], all: bool) -> Vec<&String> {
    let names: BTreeSet<&String> = rows.iter().flat_map(|row| row.parameters.keys()).collect();
    let known: Vec<&Row> = rows.iter().filter(|row| row.metrics.is_some()).collect();
    let differs = |name: &&String| {
        let values: BTreeSet<_> = known.iter().map(|row| row.parameters.get(*name)).collect();
        values.len() > 1
    };
    names
        .into_iter()
        .filter(|name| all || differs(name))
        .collect()
}

fn short(value: &str) -> String {
    let line = value.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= WIDEST {
        return line;
    }
    line.chars().take(WIDEST - 1).chain(['…']).collect()
}

/// `numbers`: columns from here on stand to the right.
fn aligned(lines: &[Vec<String>], numbers: usize) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |at: usize| lines.iter().map(|line| line[at].chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|at| width(at).unwrap_or(0)).collect();
    let mut out = String::new();
    for line in lines {
        let cells = line.iter().zip(&widths).enumerate();
        let cells = cells.map(|(at, (cell, width))| {
            let space = " ".repeat(width - cell.chars().count());
            if at < numbers {
                format!("{cell}{space}")
            } else {
                format!("{space}{cell}")
            }
        });
        let text = cells.collect::<Vec<_>>().join("  ");
        out.push_str(&format!("{}\n", text.trim_end()));
    }
    out
}

fn markdown(lines: &[Vec<String>]) -> String {
    let mut out = String::new();
    for (at, line) in lines.iter().enumerate() {
        let cells: Vec<String> = line.iter().map(|cell| cell.replace('|', "\\|")).collect();
        out.push_str(&format!("| {} |\n", cells.join(" | ")));
        if at == 0 {
            out.push_str(&format!("|{}\n", " --- |".repeat(line.len())));
        }
    }
    out
}

fn csv(line: &[String]) -> String {
    let cell = |cell: &String| {
        if cell.contains(['"', ',', '\n', '\r']) {
            format!("\"{}\"", cell.replace('"', "\"\""))
        } else {
            cell.clone()
        }
    };
    let cells: Vec<String> = line.iter().map(cell).collect();
    format!("{}\r\n", cells.join(","))
}
