//! Stage `train`: QLoRA of a base model on encoded rows.
//!
//! Promises: learns assistant tokens only; the same inputs give the same adapter, also when
//! the run was killed and resumed; nothing about the machine enters the outputs. Must not
//! know: how gradients are computed (`qlora`), where rows come from.

mod fields;
#[cfg(feature = "cuda")]
mod gpu;
mod report;
mod rows;
mod settings;
mod telling;

use qlora::train::{Example, TrainConfig, TrainReport, train};
use qlora::{Adapter, Dtype, LoraConfig, Model, Quantization};

use crate::adapter_files;
use crate::base::{Base, TEMPLATE_VERSION, engine, quantization};
use crate::contract::{
    Context, Fault, Field, Outcome, Params, Port, Product, Site, Stage, StageError,
};
use crate::conversation::CONVERSATION_VERSION;
use crate::format::FORMAT_VERSION;
use crate::prompt::PROMPT_VERSION;
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

    fn inputs(&self) -> &'static [Port] {
        fields::INPUTS
    }

    fn whole_pool(&self) -> bool {
        true
    }

    fn products(&self) -> &'static [Product] {
        fields::PRODUCTS
    }

    fn check(&self, params: &Params, _site: &Site) -> Vec<Fault> {
        settings::faults(params)
    }

    fn run(&self, params: &Params, ctx: &Context<'_>) -> Result<Outcome, StageError> {
        let base = Base::open(ctx.input("base")?, ctx.input("tools")?)?;
        let context = params.int("context").unwrap_or(2048) as usize;
        let rows = rows::examples(&base, ctx.input("train")?, context)?;
        let val = match ctx.optional("val") {
            Some(path) => rows::examples(&base, path, context)?,
            None => Vec::new(),
        };
        ctx.log(format!(
            "{} rows to train on, {} held out, longest {} tokens",
            rows.len(),
            val.len(),
            longest(&rows)
        ));
        let config = settings::train_config(params, ctx.seed, &base, rows.len())?;
        let lora = settings::lora(params, ctx.seed)?;
        let job = Job {
            base: &base,
            rows: &rows,
            val: &val,
            config: &config,
            quantization: quantization(params),
        };
        let (adapter, done) = job.run(&lora, ctx)?;
        adapter_files::save(&adapter, &ctx.output.join("adapter"), Dtype::F32)?;
        report::write(&ctx.output, &done, (rows.len(), val.len()), ctx)
    }
}

/// A training run, wherever it is computed.
struct Job<'a> {
    base: &'a Base,
    rows: &'a [Example],
    val: &'a [Example],
    config: &'a TrainConfig,
    quantization: Quantization,
}

impl Job<'_> {
    fn run(
        &self,
        lora: &LoraConfig,
        ctx: &Context<'_>,
    ) -> Result<(Adapter, TrainReport), StageError> {
        #[cfg(feature = "cuda")]
        if qlora::cuda::available() {
            return self.on_gpu(lora, ctx);
        }
        ctx.log("training on the CPU".to_owned());
        let mut model =
            Model::load(&self.base.files, self.quantization).map_err(|error| engine(&error))?;
        let mut adapter = Adapter::new(model.config(), lora).map_err(|error| engine(&error))?;
        let mut telling = Telling::new(ctx, self.base);
        let done = train(
            &mut model,
            &mut adapter,
            self.rows,
            self.val,
            self.config,
            Some(&ctx.checkpoint),
            &mut |event| telling.tell(event),
            ctx.cancel,
        )
        .map_err(|error| engine(&error))?;
        Ok((adapter, done))
    }
}

fn longest(rows: &[Example]) -> usize {
    rows.iter().map(|row| row.ids.len()).max().unwrap_or(0)
}

#[cfg(test)]
#[path = "real_rows_tests.rs"]
mod real_rows_tests;
