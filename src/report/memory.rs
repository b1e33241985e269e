//! `tunesmith plan --memory`: what training would take of cards, as a table.

use serde_json::json;
use stages::train::memory::{Forecast, OnCard};

use super::paint::Paint;
use super::units;

/// One table a set of stages that take the same.
pub fn text(stages: &[String], forecast: &Forecast) -> String {
    let paint = Paint::for_stdout();
    let mut out = format!("{}\n", paint.bold(&stages.join(", ")));
    out.push_str(&format!("  {}\n\n", rows(forecast)));
    let wide = forecast.cards.iter().map(|card| card.card.len());
    let wide = wide.max().unwrap_or(0).max("card".len());
    let head = format!(
        "  {:wide$}  {:>6}  {:>6}  {:>7}  {:>7}  {:>6}  how",
        "card", "GiB", "takes", "weights", "adapter", "step"
    );
    out.push_str(&paint.dim(&head));
    out.push('\n');
    for card in &forecast.cards {
        out.push_str(&line(card, wide));
    }
    out
}

fn rows(forecast: &Forecast) -> String {
    let rows = units::count(forecast.rows, "row");
    if forecast.assumed {
        let (longest, batch) = (forecast.longest, forecast.batch);
        let why = if forecast.bare {
            "of its base only the config is there"
        } else {
            "its rows are not made yet"
        };
        return format!(
            "{why}: a batch of {batch} is assumed, {longest} tokens each, which share nothing"
        );
    }
    format!(
        "{rows}, the longest of {} tokens, {} a step",
        forecast.longest, forecast.batch
    )
}

fn gib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 30))
}

fn line(card: &OnCard, wide: usize) -> String {
    let name = format!("  {:wide$}  {:>6}", card.card, gib(card.memory));
    let rest = match (&card.takes, &card.refused) {
        (Some(takes), _) => format!(
            "{:>6}  {:>7}  {:>7}  {:>6}  {}",
            gib(takes.total()),
            gib(takes.weights),
            gib(takes.adapter),
            gib(takes.step.bytes),
            takes.step
        ),
        (None, why) => {
            let why = why.as_deref().unwrap_or("not known");
            format!("{:>6}  {why}", "no")
        }
    };
    format!("{name}  {rest}\n")
}

/// A line a card.
pub fn json(stages: &[String], forecast: &Forecast) -> String {
    let mut out = String::new();
    for card in &forecast.cards {
        let line = json!({
            "stages": stages,
            "rows": forecast.rows,
            "longest": forecast.longest,
            "assumed": forecast.assumed,
            "bare": forecast.bare,
            "batch": forecast.batch,
            "card": card.card,
            "memory": card.memory,
            "fits": card.takes.is_some(),
            "why": card.refused,
            "total": card.takes.map(|takes| takes.total()),
            "takes": card.takes,
            "how": card.takes.map(|takes| takes.step.to_string()),
        });
        out.push_str(&format!("{line}\n"));
    }
    out
}

#[cfg(test)]
mod tests {
    use stages::train::memory::{Keeping, StepPlan, Takes};

    use super::*;

    fn forecast() -> Forecast {
        let takes = |step, keeping, rows, passes| Takes {
            weights: 4 << 30,
            adapter: 640 << 20,
            step: StepPlan {
                bytes: step,
                host_bytes: 1 << 30,
                keeping,
                rows,
                passes,
            },
            context: 532 << 20,
        };
        let card = |name: &str, gib: u64, takes, refused: Option<&str>| OnCard {
            card: name.to_owned(),
            memory: gib << 30,
            refused: refused.map(str::to_owned),
            takes,
        };
        Forecast {
            rows: 812,
            longest: 1203,
            assumed: false,
            bare: false,
            batch: 16,
            cards: vec![
                card("T4", 15, None, Some("has no bf16")),
                card("L4", 22, Some(takes(3 << 30, Keeping::Host, 2, 8)), None),
                card(
                    "H100",
                    79,
                    Some(takes(9 << 30, Keeping::Everything, 16, 1)),
                    None,
                ),
            ],
        }
    }

    #[test]
    fn a_table_says_what_fits_and_how() {
        let text = text(&["train".to_owned()], &forecast());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[1],
            "  812 rows, the longest of 1203 tokens, 16 a step"
        );
        assert_eq!(
            lines[3..],
            [
                "  card     GiB   takes  weights  adapter    step  how",
                "  T4      15.0      no  has no bf16",
                "  L4      22.0     8.1      4.0      0.6     3.0  layer inputs on the host (1024 MiB pinned), the rest computed again; 2 rows at a time, 8 passes",
                "  H100    79.0    14.1      4.0      0.6     9.0  every activation kept; 16 rows at a time",
            ]
        );
    }

    #[test]
    fn assumed_rows_are_said() {
        let forecast = Forecast {
            rows: 16,
            longest: 2048,
            assumed: true,
            ..forecast()
        };
        assert_eq!(
            rows(&forecast),
            "its rows are not made yet: a batch of 16 is assumed, 2048 tokens each, which share nothing"
        );
        let bare = Forecast {
            bare: true,
            ..forecast
        };
        assert!(rows(&bare).starts_with("of its base only the config is there: a batch of 16"));
    }
}
