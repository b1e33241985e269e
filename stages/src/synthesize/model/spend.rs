//! What answers cost, and the budget.
//!
//! Promises: before each request its worst case fits into what is left; what may have
//! been billed counts as spent. Must not know: requests' meaning.

use serde_json::Value;

use crate::contract::{Params, StageError};

/// Tokens of an answer, as the service counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) input: u64,
    pub(super) cache_write: u64,
    pub(super) cache_read: u64,
    pub(super) output: u64,
}

/// The budget of a run, in US dollars.
pub(super) struct Purse {
    budget: Option<f64>,
    spent: f64,
    /// US dollars for a million tokens.
    price_in: f64,
    price_out: f64,
    longest: f64,
}

/// Tokens an example takes in an answer, on average.
const EXAMPLE: f64 = 260.0;

impl Purse {
    /// `longest`: tokens of the longest answer.
    pub(super) fn open(params: &Params, longest: f64) -> Result<Self, StageError> {
        let paid = params.text("provider").as_deref() == Some("anthropic");
        let known = |name: &str| params.float(name);
        let (price_in, price_out) = match (known("price_in"), known("price_out")) {
            (Some(price_in), Some(price_out)) => (price_in, price_out),
            _ if !paid => (0.0, 0.0),
            _ => {
                return Err(StageError::new(
                    "synthesize::no-price",
                    "a paid model needs its prices to keep the budget",
                    "set `price_in` and `price_out`: US dollars for a million tokens, from the service's price page",
                )
                .at("with.price_in"));
            }
        };
        let budget = params.float("budget_usd");
        if budget.is_none() && (paid || price_out > 0.0) {
            return Err(StageError::new(
                "synthesize::no-budget",
                "a paid model is asked only under a budget",
                "set `budget_usd`, for example 5",
            )
            .at("with.budget_usd"));
        }
        Ok(Self {
            budget,
            spent: 0.0,
            price_in,
            price_out,
            longest,
        })
    }

    pub(super) fn spent(&self) -> f64 {
        self.spent
    }

    /// Tokens of a request, rather too many than too few.
    fn request_tokens(body: &Value) -> f64 {
        body.to_string().chars().count() as f64 / 3.0
    }

    fn cost(&self, input: f64, output: f64) -> f64 {
        (input * self.price_in + output * self.price_out) / 1e6
    }

    /// What a request for `examples` will probably cost.
    pub(super) fn expected(&self, body: &Value, examples: usize) -> f64 {
        let output = (examples as f64 * EXAMPLE).min(self.longest);
        self.cost(Self::request_tokens(body), output)
    }

    /// The most a request can cost: no cache, the longest answer.
    fn worst(&self, body: &Value) -> f64 {
        self.cost(1.25 * Self::request_tokens(body), self.longest)
    }

    /// Refuses a run that is expected to cost more than the budget.
    pub(super) fn allows(&self, requests: usize, expected: f64) -> Result<(), StageError> {
        let Some(budget) = self.budget.filter(|budget| expected > *budget) else {
            return Ok(());
        };
        Err(StageError::new(
            "synthesize::over-budget",
            format!(
                "{requests} requests will cost about {expected:.2} USD; `budget_usd` is {budget}"
            ),
            "raise `budget_usd`, lower `count`, or use a cheaper model",
        )
        .at("with.budget_usd"))
    }

    /// Refuses a request whose worst case does not fit into what is left.
    pub(super) fn reserve(&self, body: &Value) -> Result<(), StageError> {
        let worst = self.worst(body);
        match self.budget {
            Some(budget) if self.spent + worst > budget => Err(StageError::new(
                "synthesize::budget-spent",
                format!(
                    "{:.2} of {budget} USD are spent, and the next request may cost {worst:.2}",
                    self.spent
                ),
                "raise `budget_usd` and run again: every answer so far is kept and costs nothing",
            )
            .at("with.budget_usd")),
            _ => Ok(()),
        }
    }

    /// Books an answer.
    pub(super) fn pay(&mut self, usage: Usage) {
        let input =
            usage.input as f64 + 1.25 * usage.cache_write as f64 + 0.1 * usage.cache_read as f64;
        self.spent += self.cost(input, usage.output as f64);
    }

    /// Books an answer that may have been made and got lost.
    pub(super) fn lose(&mut self, body: &Value) {
        self.spent += self.worst(body);
    }
}
