//! Where people have a say: which rows wait for a decision, and what an edited row must be.

use serde_json::Value;

use super::{DECISIONS, Desk, drops, read_all, sort};
use crate::contract::{Context, Fault, Params, Site, StageError, Undecided, WAITING_FOR_PEOPLE};
use crate::conversation::Conversation;
use crate::review::{Choice, Decision, Decisions, Review, row_id};

/// What is to be reviewed, and what was decided.
pub(super) fn review(params: &Params, ctx: &Context<'_>) -> Result<Review, StageError> {
    let decisions = ctx.optional(DECISIONS).map(Decisions::read).transpose()?;
    Ok(Review {
        share: params.float("review").unwrap_or(0.0),
        sources: params.list("review_of"),
        seed: ctx.seed,
        decisions: decisions.unwrap_or_default(),
    })
}

pub(super) fn check(params: &Params, site: &Site) -> Vec<Fault> {
    let reviews = params.float("review").is_some_and(|share| share > 0.0);
    match site.inputs.get(DECISIONS) {
        None if reviews => vec![Fault::new(
            "validate::no-decisions",
            "with.review",
            "people review rows, and nothing says where their decisions lie",
            "add `decisions: ./data/review/decisions.jsonl` under `inputs`; the file need not exist yet",
        )],
        Some(files) if files.is_empty() => vec![Fault::new(
            "validate::decisions-of-a-stage",
            "inputs.decisions",
            "decisions are people's: no stage makes them",
            "name a file of the project; `tunesmith review` writes it",
        )],
        _ => Vec::new(),
    }
}

/// The rows that wait. Where the stage would fail anyhow, none: its faults come first.
pub(super) fn undecided(params: &Params, ctx: &Context<'_>) -> Result<Vec<Undecided>, StageError> {
    let review = review(params, ctx)?;
    if review.share <= 0.0 {
        return Ok(Vec::new());
    }
    let reviewed = review.apply(read_all(ctx.all("rows"))?)?;
    if reviewed.open.is_empty() {
        return Ok(Vec::new());
    }
    let desk = Desk::open(params, ctx)?;
    let sorted = sort(reviewed.rows, &desk.checker(), ctx)?;
    if !drops(params) && !sorted.findings.is_empty() {
        return Ok(Vec::new());
    }
    Ok(reviewed.open.undecided(&sorted.good))
}

/// Stops where rows wait. Whoever plans stops before; this holds where nobody could.
pub(super) fn wait(undecided: &[Undecided]) -> Result<(), StageError> {
    if undecided.is_empty() {
        return Ok(());
    }
    Err(StageError::new(
        &format!("validate{WAITING_FOR_PEOPLE}"),
        format!("rows that wait for a decision: {}", undecided.len()),
        "decide: `tunesmith review`",
    )
    .at("inputs.decisions"))
}

/// The row that a person made of the row called `name`, if it may go on.
pub(super) fn edited(
    params: &Params,
    ctx: &Context<'_>,
    name: &str,
    text: &str,
) -> Result<Value, StageError> {
    let refused = |causes: Vec<String>| {
        StageError::new(
            "validate::edited",
            format!("the edited row may not go on:\n{}", causes.join("\n")),
            "edit it again, or reject it",
        )
    };
    let to: Value = serde_json::from_str(text).map_err(|error| refused(vec![error.to_string()]))?;
    let rows = read_all(ctx.all("rows"))?;
    let old = rows.iter().find(|placed| row_id(&placed.row) == name);
    let Some(old) = old else {
        return Err(refused(vec![format!("there is no row `{name}` any more")]));
    };
    let decision = Decision {
        choice: Choice::Edit,
        about: String::new(),
        to: Some(to),
    };
    let row: Conversation = decision
        .row_in_place_of(name, &old.row)
        .map_err(|error| refused(vec![error.message]))?;
    let desk = Desk::open(params, ctx)?;
    let checker = desk.checker();
    let faults = checker.faults(&row).into_iter();
    let mut causes: Vec<String> = faults
        .map(|(code, cause)| format!("{cause} ({code})"))
        .collect();
    causes.extend(checker.too_long(checker.tokens(&row)));
    if causes.is_empty() {
        Ok(serde_json::to_value(&row).expect("a row is plain data"))
    } else {
        Err(refused(causes))
    }
}
