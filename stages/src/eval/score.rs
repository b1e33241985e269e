//! Judges one answer against what its prompt expects.
//!
//! Promises: pure; an answer is judged on its text alone. A block that does not parse makes
//! the whole answer invalid: a Worker would drop it.

use serde::Serialize;

use super::prompts::{EvalPrompt, ExpectedCall};
use crate::conversation::Call;
use crate::format::parse_turn;
use crate::tools::ToolSet;

/// What one answer was worth.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Verdict {
    /// The tools it called, sorted; empty when none or invalid.
    pub(crate) called: Vec<String>,
    /// The tools it should have called, sorted.
    pub(crate) expected: Vec<String>,
    /// At least one block, and every block is exactly `tool` and `params` of a known tool.
    pub(crate) valid_json: bool,
    /// Every call fits its tool's schema.
    pub(crate) valid_params: bool,
    /// The called tools are the expected ones; for a negative: no call at all.
    pub(crate) right_tools: bool,
    /// Every expected parameter fits.
    pub(crate) right_params: bool,
    /// Whether it tried to call anything, well-formed or not.
    pub(crate) attempted: bool,
    /// Why it is not right, for people.
    pub(crate) why: Option<String>,
}

/// Judges `answer`.
pub(crate) fn judge(prompt: &EvalPrompt, answer: &str, tools: &ToolSet) -> Verdict {
    let expected = sorted(prompt.expect.iter().map(|call| call.tool.clone()));
    let attempted = attempts_call(answer);
    let parsed = parse_turn(answer).map_err(|fault| fault.to_string());
    let known = parsed.and_then(|turn| {
        match turn
            .calls
            .iter()
            .find(|call| tools.get(&call.tool).is_none())
        {
            Some(call) => Err(format!("unknown tool `{}`", call.tool)),
            None => Ok(turn.calls),
        }
    });
    let (calls, fault) = match known {
        Ok(calls) => (calls, None),
        Err(fault) => (Vec::new(), Some(fault)),
    };
    let called = sorted(calls.iter().map(|call| call.tool.clone()));
    let schema = calls
        .iter()
        .find_map(|call| tools.check(call).first().map(ToString::to_string));
    let right_tools = if expected.is_empty() {
        !attempted
    } else {
        fault.is_none() && called == expected
    };
    let right_params = right_tools && schema.is_none() && fits(&prompt.expect, &calls);
    let why = why(
        right_tools,
        right_params,
        fault,
        &expected,
        &called,
        schema.as_ref(),
    );
    Verdict {
        valid_json: !calls.is_empty(),
        valid_params: !calls.is_empty() && schema.is_none(),
        called,
        expected,
        right_tools,
        right_params,
        attempted,
        why,
    }
}

/// Anything that looks like a call: a fence, or an object with a `tool` key.
fn attempts_call(answer: &str) -> bool {
    answer.contains("```") || answer.contains("\"tool\"")
}

fn sorted(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

/// Whether each expected call has a call of its own that fits. Calls of one tool are tried
/// in every pairing by simple search: prompts expect few calls.
fn fits(expected: &[ExpectedCall], calls: &[Call]) -> bool {
    let Some((first, rest)) = expected.split_first() else {
        return true;
    };
    calls.iter().enumerate().any(|(index, call)| {
        let fits_one = call.tool == first.tool
            && first.params.iter().all(|(name, matcher)| {
                call.params
                    .get(name)
                    .is_some_and(|value| matcher.accepts(value))
            });
        fits_one && {
            let mut others = calls.to_vec();
            others.remove(index);
            fits(rest, &others)
        }
    })
}

fn why(
    right_tools: bool,
    right_params: bool,
    fault: Option<String>,
    expected: &[String],
    called: &[String],
    schema: Option<&String>,
) -> Option<String> {
    if right_tools && right_params {
        return None;
    }
    if let Some(fault) = fault {
        return Some(fault);
    }
    if !right_tools {
        let name = |tools: &[String]| match tools {
            [] => "no call".to_owned(),
            tools => tools.join(" + "),
        };
        return Some(format!("expected {}, got {}", name(expected), name(called)));
    }
    Some(schema.map_or_else(
        || "a parameter differs from what is expected".to_owned(),
        Clone::clone,
    ))
}
