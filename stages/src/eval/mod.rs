//! Stage `eval`: greedy answers to the prompts a person wrote, scored.
//!
//! Promises: temperature 0; the prompt prefix is computed once; equal model, adapter and
//! prompts give equal bytes on equal machines. The base and the tuned model are scored by separate stages of
//! this kind; `baseline` puts another one's figures beside this one's. Gates are not its
//! business. Must not know: training.

mod answer;
mod metrics;
mod prompts;
mod report;
mod score;

use std::path::Path;

use serde_json::json;

use crate::base::{Base, TEMPLATE_VERSION, quantization};
use crate::contract::{
    Context, Derived, Field, FieldType, Outcome, Params, Port, Product, Stage, StageError,
};
use crate::format::FORMAT_VERSION;
use crate::layers;
use crate::prompt::PROMPT_VERSION;
use answer::Questions;
use prompts::EvalPrompt;
use report::{Baseline, Report};
use score::Verdict;

/// The stage.
pub struct Eval;

const FIELDS: &[Field] = &[
    Field {
        name: "quantization",
        kind: FieldType::Choice(&["none", "nf4"]),
        default: Some("\"none\""),
        about: "how the base is held: none (as a 16-bit deployment) or nf4 (as in training)",
    },
    Field {
        name: "max_new_tokens",
        kind: FieldType::Int(1, 4096),
        default: Some("200"),
        about: "longest answer, in tokens",
    },
];

const INPUTS: &[Port] = &[
    Port {
        name: "base",
        required: true,
        many: false,
        about: "base model",
    },
    Port {
        name: "adapter",
        required: false,
        many: false,
        about: "PEFT adapter; without it the base is scored",
    },
    Port {
        name: "prompts",
        required: true,
        many: true,
        about: "eval prompts with what a right answer does",
    },
    Port {
        name: "tools",
        required: true,
        many: false,
        about: "tools.yaml",
    },
    Port {
        name: "baseline",
        required: false,
        many: false,
        about: "report of another eval, shown beside this one",
    },
];

const PRODUCTS: &[Product] = &[
    Product {
        name: "report",
        path: "report.json",
        about: "metrics with 95 % intervals, confusion, diagnosis",
    },
    Product {
        name: "transcripts",
        path: "transcripts.jsonl",
        about: "every prompt, answer and verdict",
    },
    Product {
        name: "page",
        path: "report.md",
        about: "the same for people, failures in full",
    },
];

impl Stage for Eval {
    fn kind(&self) -> &'static str {
        "eval"
    }

    fn about(&self) -> &'static str {
        "answers the eval prompts greedily and scores tool selection, JSON, disambiguation and restraint"
    }

    fn version(&self) -> u32 {
        1
    }

    fn shared(&self) -> &'static [(&'static str, u32)] {
        &[
            ("engine", qlora::ENGINE_VERSION),
            ("format", FORMAT_VERSION),
            ("prompt", PROMPT_VERSION),
            ("template", TEMPLATE_VERSION),
        ]
    }

    fn fields(&self) -> &'static [Field] {
        FIELDS
    }

    fn inputs(&self) -> &'static [Port] {
        INPUTS
    }

    fn whole_pool(&self) -> bool {
        true
    }

    fn products(&self) -> &'static [Product] {
        PRODUCTS
    }

    fn derives(&self, params: &Params) -> Vec<Derived> {
        layers::derived(params)
    }

    fn run(&self, params: &Params, ctx: &Context<'_>) -> Result<Outcome, StageError> {
        let base = Base::open(ctx.input("base")?, ctx.input("tools")?)?.with_derived(ctx)?;
        let prompts = prompts::read(ctx.all("prompts"))?;
        let baseline = ctx.optional("baseline").map(read_baseline).transpose()?;
        let limit = params.int("max_new_tokens").unwrap_or(200) as usize;
        let ids = answer(&base, &prompts, params, limit, ctx)?;

        let stopped: Vec<bool> = ids.iter().map(|ids| ids.len() < limit).collect();
        let answers: Vec<String> = ids
            .iter()
            .map(|ids| base.decode(ids).trim().to_owned())
            .collect();
        let judged: Vec<(EvalPrompt, Verdict)> = prompts
            .into_iter()
            .zip(&answers)
            .map(|(prompt, answer)| {
                let verdict = score::judge(&prompt, answer, base.tools());
                (prompt, verdict)
            })
            .collect();
        let report = Report::new(&judged, &stopped);
        write(&ctx.output, &report, baseline.as_ref(), &judged, &answers)?;
        let metrics = report
            .metrics
            .iter()
            .map(|(name, share)| (name.clone(), share.value))
            .collect();
        Ok(Outcome {
            metrics,
            notes: report.table(baseline.as_ref()),
            pin: None,
        })
    }
}

/// Token ids of every answer, in the order of the prompts.
fn answer(
    base: &Base,
    prompts: &[EvalPrompt],
    params: &Params,
    limit: usize,
    ctx: &Context<'_>,
) -> Result<Vec<Vec<u32>>, StageError> {
    let encoded: Vec<_> = prompts
        .iter()
        .map(|prompt| base.encode_prompt(prompt.now, &prompt.messages))
        .collect::<Result<_, _>>()?;
    Questions {
        base,
        quantization: quantization(params),
        adapter: ctx.optional("adapter"),
        prompts: &encoded,
        limit,
        stop: &base.stop_ids()?,
    }
    .answer(ctx)
}

fn read_baseline(path: &Path) -> Result<Baseline, StageError> {
    let text = std::fs::read_to_string(path).map_err(|error| StageError::io(path, &error))?;
    serde_json::from_str(&text).map_err(|error| {
        StageError::new(
            "eval::broken-baseline",
            format!("the baseline is no eval report: {error}"),
            "give another eval's `report`",
        )
        .at("inputs.baseline")
    })
}

fn write(
    output: &Path,
    report: &Report,
    baseline: Option<&Baseline>,
    judged: &[(EvalPrompt, Verdict)],
    answers: &[String],
) -> Result<(), StageError> {
    let mut figures = serde_json::to_string_pretty(report).expect("a report serialises");
    figures.push('\n');
    let mut lines = String::new();
    for ((prompt, verdict), answer) in judged.iter().zip(answers) {
        let line = json!({
            "id": prompt.id, "category": prompt.category, "asked": prompt.asked(),
            "answer": answer, "verdict": verdict,
        });
        lines.push_str(&line.to_string());
        lines.push('\n');
    }
    let page = report.markdown(baseline, judged, answers);
    for (name, text) in [
        ("report.json", figures),
        ("transcripts.jsonl", lines),
        ("report.md", page),
    ] {
        let path = output.join(name);
        std::fs::write(&path, text).map_err(|error| StageError::io(&path, &error))?;
    }
    Ok(())
}
