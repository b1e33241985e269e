//! The offline provider: rows from a phrase book, without a key and without a model.
//!
//! Promises: the same book, tools and seed give the same rows; no two user texts are
//! alike, none gives an eval prompt away; every call fits its schema; asking for more rows keeps most of those that were
//! there, for each lesson draws from a stream of its own. Must not know: eval prompts,
//! other providers.

mod book;
mod clock;
mod day;
mod draw;
mod moment;
mod register;
mod template;

use std::collections::{BTreeMap, BTreeSet};

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::contract::{Context, StageError};
use crate::conversation::{Conversation, Kind};
use crate::similarity::{Guarded, hash, normal};
use crate::tools::ToolSet;
use crate::validate::leak;

use book::{Book, Lesson, Turn};
use draw::{Drawer, Failed};

/// Draws without a new row after which a lesson counts as exhausted.
const TRIES: u64 = 60;

/// What was drawn.
pub(super) struct Drawn {
    pub(super) rows: Vec<Conversation>,
    /// Draws thrown away because their text was there before.
    pub(super) alike: usize,
    /// Draws thrown away because they give an eval prompt away.
    pub(super) leaks: usize,
    /// Lessons that gave fewer rows than asked: name, asked, given.
    pub(super) short: Vec<(String, usize, usize)>,
}

/// Draws `count` rows; `mix` overrides the book's shares by type.
pub(super) fn write(
    text: &str,
    tools: &ToolSet,
    count: usize,
    mix: &BTreeMap<Kind, f64>,
    eval: Option<&Guarded>,
    ctx: &Context<'_>,
) -> Result<Drawn, StageError> {
    let book = book::read(text, tools).map_err(|faults| refuse(&faults))?;
    let mix = if mix.is_empty() { &book.mix } else { mix };
    let mut writer = Writer {
        book: &book,
        tools,
        eval,
        seed: ctx.seed,
        seen: BTreeSet::new(),
        drawn: Drawn {
            rows: Vec::new(),
            alike: 0,
            leaks: 0,
            short: Vec::new(),
        },
    };
    for (lesson, want) in book.lessons.iter().zip(quotas(&book, count, mix)) {
        ctx.go_on()?;
        writer.lesson(lesson, want)?;
        let done = writer.drawn.rows.len() as u64;
        ctx.progress("drawing", done, Some(count as u64), "rows");
    }
    Ok(writer.drawn)
}

fn refuse(faults: &[String]) -> StageError {
    StageError::new(
        "synthesize::grammar",
        format!(
            "the phrase book has {} faults:\n{}",
            faults.len(),
            faults.join("\n")
        ),
        "mend these places; the notation stands at the top of `data/grammar.yaml`",
    )
    .at("inputs.grammar")
}

/// How many rows each lesson gives: by type as `mix` says, within a type by weight. The
/// largest remainders get the rows that rounding leaves.
fn quotas(book: &Book, count: usize, mix: &BTreeMap<Kind, f64>) -> Vec<usize> {
    let total: f64 = mix.values().sum();
    let shares: Vec<f64> = book
        .lessons
        .iter()
        .map(|lesson| {
            let same = book
                .lessons
                .iter()
                .filter(|other| other.kind == lesson.kind);
            let weight: f64 = same.map(|other| other.weight).sum();
            let of_kind = mix.get(&lesson.kind).copied().unwrap_or(0.0) / total.max(1e-9);
            count as f64 * of_kind * lesson.weight / weight.max(1e-9)
        })
        .collect();
    let mut quotas: Vec<usize> = shares.iter().map(|share| share.floor() as usize).collect();
    let wanted = shares.iter().sum::<f64>().round() as usize;
    let mut order: Vec<usize> = (0..shares.len()).collect();
    order.sort_by(|a, b| {
        shares[*b]
            .fract()
            .total_cmp(&shares[*a].fract())
            .then(a.cmp(b))
    });
    let missing = wanted.saturating_sub(quotas.iter().sum());
    for at in order.into_iter().take(missing) {
        quotas[at] += 1;
    }
    quotas
}

struct Writer<'a> {
    book: &'a Book,
    tools: &'a ToolSet,
    eval: Option<&'a Guarded>,
    seed: u64,
    seen: BTreeSet<String>,
    drawn: Drawn,
}

impl Writer<'_> {
    /// Draws rows of one lesson until the quota is full or nothing new comes.
    fn lesson(&mut self, lesson: &Lesson, want: usize) -> Result<(), StageError> {
        let order = self.order(lesson);
        let (mut given, mut draw, mut fruitless) = (0, 0u64, 0);
        while given < want && fruitless < TRIES {
            let way = order[draw as usize % order.len()];
            let rows = self.draw(lesson, way, draw)?;
            draw += 1;
            let fresh = rows
                .iter()
                .all(|row| !self.seen.contains(&normal(&row.user_text())));
            if rows.is_empty() || !fresh {
                self.drawn.alike += 1;
                fruitless += 1;
                continue;
            }
            if let Some(eval) = self.eval
                && rows.iter().any(|row| leak(row, eval).is_some())
            {
                self.drawn.leaks += 1;
                fruitless += 1;
                continue;
            }
            fruitless = 0;
            given += rows.len();
            for row in rows {
                self.seen.insert(normal(&row.user_text()));
                self.drawn.rows.push(row);
            }
        }
        if given < want {
            self.drawn.short.push((lesson.name.clone(), want, given));
        }
        Ok(())
    }

    /// Every variant and every first wording once, shuffled: no wording is used twice
    /// before all were used once.
    fn order(&self, lesson: &Lesson) -> Vec<(usize, usize)> {
        let mut order: Vec<(usize, usize)> = Vec::new();
        for (variant, sides) in lesson.variants.iter().enumerate() {
            let wordings = sides.iter().map(|script| wordings(script)).max();
            order.extend((0..wordings.unwrap_or(1)).map(|first| (variant, first)));
        }
        order.shuffle(&mut self.stream(lesson, u64::MAX));
        order
    }

    fn stream(&self, lesson: &Lesson, draw: u64) -> ChaCha8Rng {
        let name = format!("{}/{}/{}/{draw}", self.seed, lesson.kind, lesson.name);
        ChaCha8Rng::seed_from_u64(hash(name.as_bytes()))
    }

    /// One draw: one row, or the two of a pair; empty when `now` left no room.
    fn draw(
        &self,
        lesson: &Lesson,
        (variant, first): (usize, usize),
        draw: u64,
    ) -> Result<Vec<Conversation>, StageError> {
        let mut rng = self.stream(lesson, draw);
        let now = moment::some_now(&mut rng);
        let sides = &lesson.variants[variant];
        let id = format!("grammar-{}-{}-{draw}", lesson.kind, lesson.name);
        let mut drawer = Drawer::new(self.book, now, &mut rng);
        let mut rows = Vec::new();
        for (side, script) in sides.iter().enumerate() {
            let messages = match drawer.row(script, first) {
                Ok(messages) => messages,
                Err(Failed::NoRoom) => return Ok(Vec::new()),
                Err(Failed::Unbound(cause)) => {
                    return Err(refuse(&[format!(
                        "{} {}: {cause}",
                        lesson.kind, lesson.name
                    )]));
                }
            };
            let pair = sides.len() > 1;
            let row = Conversation {
                id: if pair {
                    format!("{id}-{}", side + 1)
                } else {
                    id.clone()
                },
                source: "grammar".to_owned(),
                kind: lesson.kind,
                group: pair.then(|| id.clone()),
                now: Some(now),
                tools: None,
                weight: None,
                messages,
            };
            self.check(&row)?;
            rows.push(row);
        }
        Ok(rows)
    }

    fn check(&self, row: &Conversation) -> Result<(), StageError> {
        let faults: Vec<String> = row
            .calls()
            .flat_map(|call| self.tools.check(call))
            .map(|fault| format!("{}: `{}`: {fault}", row.id, row.user_text()))
            .collect();
        if faults.is_empty() {
            Ok(())
        } else {
            Err(refuse(&faults))
        }
    }
}

fn wordings(script: &[Turn]) -> usize {
    match script.first() {
        Some(Turn::User(texts)) => texts.len(),
        _ => 1,
    }
}

#[cfg(test)]
mod tests;
