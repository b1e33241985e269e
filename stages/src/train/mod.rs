//! Stage `train`: QLoRA of a base model on encoded rows.
//!
//! Promises: learns assistant tokens only; the same inputs give the same adapter, also when
//! the run was killed and resumed; nothing about the machine enters the outputs. Must not
//! know: how gradients are computed (`qlora`), where rows come from.

mod checks;
mod crew;
mod fields;
mod gpu;
pub mod memory;
mod place;
mod refused;
mod report;
mod rows;
mod settings;
mod telling;

use std::path::Path;

use qlora::train::{Example, TrainJob, TrainReport, train};
use qlora::{Adapter, Dtype, Model, Quantization};

use crate::adapter_files;
use crate::base::{Base, TEMPLATE_VERSION, engine, quantization};
use crate::contract::{
    Context, Derived, Fault, Field, Outcome, Params, Port, Product, Refused, Site, Stage,
    StageError,
};
use crate::conversation::CONVERSATION_VERSION;
use crate::format::FORMAT_VERSION;
use crate::layers;
use crate::prompt::PROMPT_VERSION;
use crew::Crew;
use rows::{Rows, Rules};
use telling::Telling;

/// The stage.
pub struct Train;

impl Stage for Train {
    fn kind(&self) -> &'static str {
        "train"
    }

    fn about(&self) -> &'static str {
        "trains a LoRA adapter on a frozen, optionally 4-bit base model (QLoRA)"
    }

    fn version(&self) -> u32 {
        1
    }

    fn shared(&self) -> &'static [(&'static str, u32)] {
        &[
            ("conversation", CONVERSATION_VERSION),
            ("engine", qlora::ENGINE_VERSION),
            ("format", FORMAT_VERSION),
            ("prompt", PROMPT_VERSION),
            ("template", TEMPLATE_VERSION),
        ]
    }

    fn fields(&self) -> &'static [Field] {
        fields::FIELDS
    }

    fn refused(&self) -> &'static [Refused] {
        refused::REFUSED
    }

    fn inputs(&self) -> &'static [Port] {
        fields::INPUTS
    }

    fn whole_pool(&self) -> bool {
        true
    }

    fn products(&self) -> &'static [Product] {
        fields::PRODUCTS
    }

    fn check(&self, params: &Params, site: &Site) -> Vec<Fault> {
        checks::faults(params, site)
    }

    fn derives(&self, params: &Params) -> Vec<Derived> {
        layers::derived(params)
    }

    fn passes_env(&self) -> &'static [&'static str] {
        fields::PASSED
    }

    fn run(&self, params: &Params, ctx: &Context<'_>) -> Result<Outcome, StageError> {
        let crew = Crew::meet(self, params, ctx)?;
        let outcome = train_on(params, ctx, &crew);
        crew.end(outcome)
    }
}

/// This process's part of the training; the first of several writes the results.
fn train_on(params: &Params, ctx: &Context<'_>, crew: &Crew) -> Result<Outcome, StageError> {
    let base = Base::open(ctx.input("base")?, ctx.input("tools")?)?.with_derived(ctx)?;
    let rules = Rules::of(params);
    let rows = rows::examples(&base, ctx.input("train")?, "train", &rules, ctx)?;
    let val = match ctx.optional("val") {
        Some(path) => rows::examples(&base, path, "val", &rules, ctx)?,
        None => Rows::default(),
    };
    ctx.log(format!(
        "{} rows to train on, {} held out, longest {} tokens",
        rows.examples.len(),
        val.examples.len(),
        longest(&rows.examples)
    ));
    let config = settings::train_config(params, ctx.seed, Some(&base), &rows.examples)?;
    let adapter = start(params, ctx, &base)?;
    let job = Job {
        base: &base,
        quantization: quantization(params),
        training: TrainJob {
            train: &rows.examples,
            val: &val.examples,
            config: &config,
            checkpoints: Some(&ctx.checkpoint),
            cancel: ctx.cancel,
            ranks: crew.ranks(),
        },
    };
    let (adapter, done) = job.run(adapter, ctx)?;
    if !crew.first() {
        return Ok(Outcome::default());
    }
    save(&adapter, &done, &ctx.output.join("adapter"))?;
    report::write(&ctx.output, &done, [&rows, &val], ctx)
}

/// The adapter that training starts from: a fresh one, or the input's.
fn start(params: &Params, ctx: &Context<'_>, base: &Base) -> Result<Adapter, StageError> {
    let lora = settings::lora(params, ctx.seed)?;
    let shape = base.files.config().map_err(|error| engine(&error))?;
    let Some(folder) = ctx.optional("adapter") else {
        return Adapter::new(&shape, &lora).map_err(|error| engine(&error).at("with"));
    };
    let adapter = adapter_files::continued(folder, &shape, &lora)?;
    ctx.log("goes on from the adapter among the inputs, with fresh moments");
    Ok(adapter)
}

/// The trained adapter, and beside it those of the best looks.
fn save(adapter: &Adapter, done: &TrainReport, folder: &Path) -> Result<(), StageError> {
    adapter_files::save(adapter, folder, Dtype::F32)?;
    for kept in &done.kept {
        let mut one = adapter.clone();
        one.values_mut().copy_from_slice(&kept.values);
        let place = folder.join(report::kept_path(kept.validation.step));
        adapter_files::save(&one, &place, Dtype::F32)?;
    }
    Ok(())
}

/// A training run, wherever it is computed.
struct Job<'a> {
    base: &'a Base,
    quantization: Quantization,
    training: TrainJob<'a>,
}

impl Job<'_> {
    fn run(
        &self,
        mut adapter: Adapter,
        ctx: &Context<'_>,
    ) -> Result<(Adapter, TrainReport), StageError> {
        if qlora::cuda::available() {
            return self.on_gpu(adapter, ctx);
        }
        ctx.log("training on the CPU".to_owned());
        let mut model =
            Model::load(&self.base.files, self.quantization).map_err(|error| engine(&error))?;
        let mut telling = Telling::new(ctx, self.base);
        let done = train(&mut model, &mut adapter, self.training, &mut |event| {
            telling.tell(event);
        })
        .map_err(|error| engine(&error))?;
        Ok((adapter, done))
    }
}

fn longest(rows: &[Example]) -> usize {
    rows.iter().map(|row| row.ids.len()).max().unwrap_or(0)
}

#[cfg(test)]
mod tests;

#[cfg(test)]
#[path = "curve_tests.rs"]
mod curve_tests;

#[cfg(test)]
#[path = "real_rows_tests.rs"]
mod real_rows_tests;
