//! The paid and the self-hosted provider: a language model writes rows under a schema.
//!
//! Promises: nothing is asked that was answered before (answers are kept by the bytes of
//! their request and the attempt), nothing is spent beyond the budget, and what comes back
//! is taken only if it would pass `validate`, calls the wanted tool and repeats nothing.
//! Asking for more rows asks only for more: requests are fixed batches of a stream. Must
//! not know: the phrase book, files other than the kept answers.

mod accept;
mod anthropic;
mod jobs;
mod keep;
mod openai;
mod schema;
mod spend;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::contract::{Context, Params, StageError};
use crate::conversation::{Conversation, Kind};
use crate::http::{Environment, Http, HttpError, Patience};
use crate::similarity::Guarded;
use crate::tools::ToolSet;

use accept::Accepted;
pub(super) use jobs::plan_mix;
use jobs::{Batch, Stream};
use keep::Kept;
use spend::{Purse, Usage};

/// Times one batch is asked again after an answer that cannot be used.
const ATTEMPTS: u32 = 3;
/// Batches asked beyond those that the wanted rows need, where rows are dropped.
const EXTRA: usize = 3;

/// Who is asked.
trait Writer {
    /// The body of a request: its bytes name the kept answer.
    fn body(&self, batch: &Batch<'_>) -> Value;

    /// Asks once.
    fn ask(&self, http: &Http<'_>, body: &Value) -> Result<Value, HttpError>;

    /// What an answer says: the text, or why there is none (`refusal`, `truncated`).
    fn read(&self, answer: &Value) -> Result<String, &'static str>;

    /// What an answer cost.
    fn usage(&self, answer: &Value) -> Usage;
}

/// What can be known to be wrong before anything is asked: no budget, no price, no
/// server, a host that is refused.
pub(super) fn check(params: &Params) -> Result<(), StageError> {
    if let Some(host) = params
        .text("base_url")
        .as_deref()
        .and_then(openai::refused_host)
    {
        return Err(openai::refusal(&host));
    }
    if params.text("provider").as_deref() == Some("openai-compatible") {
        openai::OpenAi::new(params, &Environment::of([]), String::new(), 0)?;
    }
    Purse::open(params, 0.0).map(|_| ())
}

/// What came of it.
pub(super) struct Written {
    pub(super) rows: Vec<Conversation>,
    /// Examples and answers not used, by reason.
    pub(super) dropped: BTreeMap<&'static str, usize>,
    /// Answers asked now, and answers that were kept.
    pub(super) asked: usize,
    pub(super) kept: usize,
    pub(super) spent_usd: f64,
    /// Streams that gave fewer rows than wanted: name, wanted, given.
    pub(super) short: Vec<(String, usize, usize)>,
}

/// Everything a run needs beside the parameters.
pub(super) struct Desk<'a> {
    pub(super) tools: &'a ToolSet,
    pub(super) eval: Option<&'a Guarded>,
    pub(super) mix: BTreeMap<Kind, f64>,
    pub(super) count: usize,
    pub(super) environment: Environment,
    pub(super) patience: Patience,
}

/// Writes rows with the provider that `params` names.
pub(super) fn write(
    params: &Params,
    desk: &Desk<'_>,
    ctx: &Context<'_>,
) -> Result<Written, StageError> {
    let system = jobs::system(desk.tools);
    let asks = params.int("max_tokens").unwrap_or(8192);
    if params.text("provider").as_deref() == Some("anthropic") {
        let writer = anthropic::Anthropic::new(params, &desk.environment, system, asks);
        run(&writer, params, desk, ctx)
    } else {
        let writer = openai::OpenAi::new(params, &desk.environment, system, asks)?;
        run(&writer, params, desk, ctx)
    }
}

fn run(
    writer: &dyn Writer,
    params: &Params,
    desk: &Desk<'_>,
    ctx: &Context<'_>,
) -> Result<Written, StageError> {
    let size = params.int("per_request").unwrap_or(10) as usize;
    let streams = jobs::streams(desk.tools, &desk.mix, desk.count);
    let kept = Kept::open(&ctx.keep)?;
    let purse = Purse::open(params, params.int("max_tokens").unwrap_or(8192) as f64)?;
    estimate(writer, &streams, size, &kept, &purse, ctx, desk)?;
    let http = Http::new(ctx, &desk.environment, desk.patience.clone())?;
    let mut clerk = Clerk {
        writer,
        http,
        ctx,
        kept,
        purse,
        patience: desk.patience.clone(),
        accepted: Accepted::new(desk.tools, desk.eval),
        asked: 0,
        found: 0,
    };
    let mut short = Vec::new();
    for stream in &streams {
        let given = clerk.stream(stream, size, desk)?;
        if given < stream.want {
            short.push((stream.name(), stream.want, given));
        }
        let done = clerk.accepted.rows.len() as u64;
        ctx.progress("writing", done, Some(desk.count as u64), "rows");
    }
    Ok(Written {
        rows: clerk.accepted.rows,
        dropped: clerk.accepted.dropped,
        asked: clerk.asked,
        kept: clerk.found,
        spent_usd: clerk.purse.spent(),
        short,
    })
}

/// Says what the run will cost before the first request, and refuses one over budget.
fn estimate(
    writer: &dyn Writer,
    streams: &[Stream],
    size: usize,
    kept: &Kept,
    purse: &Purse,
    ctx: &Context<'_>,
    desk: &Desk<'_>,
) -> Result<(), StageError> {
    let mut missing = 0;
    let mut expected = 0.0;
    for stream in streams {
        for number in 0..stream.want.div_ceil(size) {
            let batch = stream.batch(number, size, ctx.seed, desk.tools);
            let body = writer.body(&batch);
            if !kept.has(&body, 0) {
                missing += 1;
                expected += purse.expected(&body, size);
            }
        }
    }
    ctx.log(format!(
        "{missing} requests to ask, about {expected:.2} USD expected"
    ));
    purse.allows(missing, expected)
}

struct Clerk<'a> {
    writer: &'a dyn Writer,
    http: Http<'a>,
    ctx: &'a Context<'a>,
    kept: Kept,
    purse: Purse,
    patience: Patience,
    accepted: Accepted<'a>,
    asked: usize,
    found: usize,
}

impl Clerk<'_> {
    /// Asks batch by batch until the stream has its rows.
    fn stream(
        &mut self,
        stream: &Stream,
        size: usize,
        desk: &Desk<'_>,
    ) -> Result<usize, StageError> {
        let before = self.accepted.rows.len();
        let most = stream.want.div_ceil(size) + EXTRA;
        for number in 0..most {
            let given = self.accepted.rows.len() - before;
            if given >= stream.want {
                break;
            }
            self.ctx.go_on()?;
            let batch = stream.batch(number, size, self.ctx.seed, desk.tools);
            if let Some(text) = self.batch(&batch)? {
                self.accepted.take(&batch, &text, stream.want - given);
            }
        }
        Ok(self.accepted.rows.len() - before)
    }

    /// The text of a batch; a refused or cut answer is asked again, then given up.
    fn batch(&mut self, batch: &Batch<'_>) -> Result<Option<String>, StageError> {
        let body = self.writer.body(batch);
        for attempt in 0..ATTEMPTS {
            let answer = if let Some(answer) = self.kept.get(&body, attempt)? {
                self.found += 1;
                answer
            } else {
                let answer = self.ask(&body)?;
                self.purse.pay(self.writer.usage(&answer));
                self.kept.put(&body, attempt, &answer)?;
                self.asked += 1;
                answer
            };
            match self.writer.read(&answer) {
                Ok(text) => return Ok(Some(text)),
                Err(reason) => self.accepted.count(reason),
            }
        }
        Ok(None)
    }

    /// Asks, and asks again where the server was at fault. An answer that got lost may
    /// have been made and billed: it counts as spent.
    fn ask(&mut self, body: &Value) -> Result<Value, StageError> {
        let mut attempt = 1;
        loop {
            self.purse.reserve(body)?;
            let error = match self.writer.ask(&self.http, body) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let passes = match &error {
                HttpError::Status { status, .. } => *status >= 500 || *status == 408,
                HttpError::TimedOut { .. } => {
                    self.purse.lose(body);
                    true
                }
                HttpError::Unreachable { .. } => true,
                _ => false,
            };
            if !passes || attempt >= self.patience.attempts {
                return Err(explain(error));
            }
            // An overloaded server (529) wants to be left alone for longer.
            let overloaded = matches!(&error, HttpError::Status { status: 529, .. });
            let steps = if overloaded { attempt + 2 } else { attempt };
            self.ctx.log(format!("{error}; asking again"));
            self.patience.wait(self.ctx, self.patience.step(steps))?;
            attempt += 1;
        }
    }
}

fn explain(error: HttpError) -> StageError {
    let mend = match &error {
        HttpError::Status { status: 401, .. } => "set `ANTHROPIC_API_KEY` under `secrets`",
        HttpError::Status { status: 402, .. } => "add credit to the account",
        HttpError::Status { status: 403, .. } => "check what the key may use",
        HttpError::Status { status: 404, .. } => "check `model` and `base_url`",
        HttpError::Status { status: 400, .. } => "check `model`: it must know structured output",
        _ => return error.into(),
    };
    let mut stage = StageError::from(error);
    mend.clone_into(&mut stage.mend);
    stage
}

#[cfg(test)]
mod tests;
