//! What a training run would take of cards that are not at hand: the run's rows and settings, planned by the code of
//! the step with its operations switched off.
//!
//! Promises: no GPU, no weights: a base's config is read, its tensors are not, nor need they be there. Must not know:
//! how the answer is shown.

use qlora::cuda::{
    Base as CardBase, CARDS, CONTEXT, CardModel, CudaEngine, Device, Element, Options, Precision,
};
use qlora::train::{Example, TrainJob, plan_on_gpu};
pub use qlora::train::{Keeping, StepPlan};
use qlora::{Adapter, ModelConfig, ModelFiles, Quantization};
use serde::{Deserialize, Serialize};

use super::rows::{self, Rules};
use super::{fields, longest, settings};
use crate::base::{Base, engine, quantization};
use crate::contract::{
    Context, Field, FieldType, Outcome, Params, Port, Product, Stage, StageError, canonical,
};

/// The maker of the answer.
pub(crate) struct MemoryPlan;

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// Rows that it was planned with, and the longest of them in tokens.
    pub rows: usize,
    pub longest: usize,
    /// Whether they are assumed, for the real ones are not there yet or cannot be read.
    pub assumed: bool,
    /// Whether the base's config alone is there: without its tokenizer no row can be read.
    pub bare: bool,
    /// Of one optimizer step.
    pub batch: usize,
    pub cards: Vec<OnCard>,
}

/// A run on one card. All sizes are bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OnCard {
    pub card: String,
    /// What the card has.
    pub memory: u64,
    /// Why it does not fit, or is not possible; nothing where it fits.
    pub refused: Option<String>,
    /// What it takes, where it fits.
    pub takes: Option<Takes>,
}

/// What a run takes of a card. All sizes are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Takes {
    /// The frozen base.
    pub weights: u64,
    /// The adapter, its gradient and moments.
    pub adapter: u64,
    /// How steps run, and what the largest takes.
    pub step: StepPlan,
    /// Driver, kernels, cuBLASLt.
    pub context: u64,
}

impl Takes {
    /// Everything on the card.
    pub fn total(&self) -> u64 {
        self.weights + self.adapter + self.step.bytes + self.context
    }
}

const FIELDS: &[Field] = &[
    Field {
        name: "train",
        kind: FieldType::Any,
        default: Some("{}"),
        about: "parameters of the train stage",
    },
    Field {
        name: "cards",
        kind: FieldType::TextList,
        default: Some("[]"),
        about: "names of cards, or their memory in GiB; none: all that are known",
    },
];

const fn port(name: &'static str, required: bool) -> Port {
    Port {
        name,
        required,
        many: false,
        about: "as of train",
    }
}

const INPUTS: &[Port] = &[
    port("base", true),
    port("tools", true),
    port("train", false),
    port("val", false),
];

/// Where the answer lies in the output.
pub const ANSWER: &str = "plan.json";

/// The kind that a worker is asked for.
pub const KIND: &str = "memory-plan";

impl Stage for MemoryPlan {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn about(&self) -> &'static str {
        "plans the memory of a training run"
    }

    fn version(&self) -> u32 {
        1
    }

    fn fields(&self) -> &'static [Field] {
        FIELDS
    }

    fn inputs(&self) -> &'static [Port] {
        INPUTS
    }

    fn products(&self) -> &'static [Product] {
        &[Product {
            name: "plan",
            path: ANSWER,
            about: "the plan",
        }]
    }

    fn run(&self, params: &Params, ctx: &Context<'_>) -> Result<Outcome, StageError> {
        let train = canonical(fields::FIELDS, &params.map("train")).map_err(|faults| {
            let told: Vec<_> = faults.into_iter().map(|fault| fault.message).collect();
            StageError::new("memory::parameters", told.join("; "), "report this")
        })?;
        let cards = cards(&params.list("cards"))?;
        let forecast = forecast(&train, &cards, ctx)?;
        let text = serde_json::to_vec(&forecast).expect("a forecast is plain data");
        let path = ctx.output.join(ANSWER);
        std::fs::write(&path, text).map_err(|error| StageError::io(&path, &error))?;
        Ok(Outcome::default())
    }
}

/// The cards of these names or sizes; all that are known if there are none.
fn cards(asked: &[String]) -> Result<Vec<CardModel>, StageError> {
    if asked.is_empty() {
        return Ok(CARDS.to_vec());
    }
    let find = |text: &String| {
        let size = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        CardModel::named(text)
            .or_else(|| {
                Some(CardModel::of_gib(
                    size.parse().ok().filter(|gib| *gib > 0.0)?,
                ))
            })
            .ok_or_else(|| {
                let known: Vec<_> = CARDS.iter().map(|card| card.name).collect();
                StageError::new(
                    "memory::unknown-card",
                    format!("no card is called `{text}`"),
                    format!("write its memory (24GiB), or one of {}", known.join(", ")),
                )
            })
    };
    asked.iter().map(find).collect()
}

fn forecast(
    train: &Params,
    cards: &[CardModel],
    ctx: &Context<'_>,
) -> Result<Forecast, StageError> {
    let (shape, base) = shape(ctx)?;
    let rules = Rules::of(train);
    let read = |port: &str| {
        let (Some(base), Some(path)) = (&base, ctx.optional(port)) else {
            return Ok(None);
        };
        rows::examples(base, path, port, &rules, ctx).map(|rows| Some(rows.examples))
    };
    let real = read("train")?;
    let val = read("val")?.unwrap_or_default();
    let assumed = real.is_none();
    let batch = train.int("batch").unwrap_or(16) as usize;
    let rows = real.unwrap_or_else(|| longest_rows(batch, rules.context));
    let config = settings::train_config(train, ctx.seed, base.as_ref(), &rows)?;
    let lora = settings::lora(train, ctx.seed)?;
    let adapter = Adapter::zeros(&shape, &lora).map_err(|error| engine(&error))?;
    let run = Run {
        shape: &shape,
        quantization: quantization(train),
        adapter: &adapter,
        job: TrainJob {
            val: &val,
            ..TrainJob::new(&rows, &config)
        },
        positions: longest(&rows).max(longest(&val)).max(1),
    };
    Ok(Forecast {
        rows: rows.len(),
        longest: longest(&rows),
        assumed,
        bare: base.is_none(),
        batch,
        cards: cards.iter().map(|card| run.on(card)).collect(),
    })
}

/// The base's shape, and the base unless its config alone is there.
fn shape(ctx: &Context<'_>) -> Result<(ModelConfig, Option<Base>), StageError> {
    let path = ctx.input("base")?;
    if let Some(bare) = ModelFiles::bare(path).map_err(|error| engine(&error))? {
        return Ok((bare, None));
    }
    let base = Base::open(path, ctx.input("tools")?)?;
    let shape = base.files.config().map_err(|error| engine(&error))?;
    Ok((shape, Some(base)))
}

/// A batch of rows as long as they may be, which share nothing and are learned whole.
fn longest_rows(batch: usize, context: usize) -> Vec<Example> {
    (0..batch)
        .map(|row| Example {
            id: row.to_string(),
            ids: vec![row as u32; context],
            labels: (0..context).map(|at| at > 0).collect(),
            weight: 1.0,
        })
        .collect()
}

/// A run that is only planned.
struct Run<'a> {
    shape: &'a ModelConfig,
    quantization: Quantization,
    adapter: &'a Adapter,
    job: TrainJob<'a>,
    positions: usize,
}

impl Run<'_> {
    fn on(&self, card: &CardModel) -> OnCard {
        let outcome = match card.refusal() {
            Some(why) => Err(why),
            None => self.takes(card).map_err(|error| error.to_string()),
        };
        OnCard {
            card: card.name.to_owned(),
            memory: (card.mebibytes as u64) << 20,
            takes: outcome.as_ref().ok().copied(),
            refused: outcome.err(),
        }
    }

    fn takes(&self, card: &CardModel) -> qlora::Result<Takes> {
        let precision = Precision {
            element: Element::Bf16,
            quantization: self.quantization,
        };
        let device = Device::on_paper(card.info());
        let base = CardBase::sketch(device, self.shape, precision, self.positions)?;
        let weights = base.bytes() as u64;
        let running = CudaEngine::new(base, self.adapter, Options::default())?;
        let adapter = running.bytes().0 as u64 - weights;
        Ok(Takes {
            weights,
            adapter,
            step: plan_on_gpu(&running, self.adapter, self.job)?,
            context: CONTEXT,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model_tests::{ROWS, bench};

    fn plan(with_rows: bool, with: Value) -> Forecast {
        let mut bench = bench();
        if with_rows {
            bench.give("train", "train.jsonl", ROWS);
        }
        bench.run(&MemoryPlan, with).expect("it plans");
        serde_json::from_value(bench.json(ANSWER)).unwrap()
    }

    /// The tiny model's vocabulary is no multiple of what a card's products want.
    #[test]
    fn what_no_card_runs_is_refused_by_name_on_every_card() {
        let forecast = plan(
            true,
            json!({ "train": { "r": 4 }, "cards": ["H100", "T4"] }),
        );
        assert_eq!((forecast.rows, forecast.assumed), (3, false));
        let refused: Vec<_> = forecast
            .cards
            .iter()
            .map(|card| card.refused.clone().unwrap())
            .collect();
        assert!(refused[0].contains("vocab_size"), "{refused:?}");
        assert!(refused[1].contains("bf16"), "{refused:?}");
    }

    #[test]
    fn without_rows_a_batch_of_the_longest_is_assumed() {
        let train = json!({ "batch": 3, "context": 40 });
        let forecast = plan(false, json!({ "train": train, "cards": ["24GiB"] }));
        assert_eq!((forecast.rows, forecast.longest), (3, 40));
        assert!(forecast.assumed);
        assert_eq!(forecast.cards[0].memory, 24 << 30);
    }

    #[test]
    fn a_config_alone_is_planned_with_assumed_rows() {
        let mut bench = bench();
        bench.give("train", "train.jsonl", ROWS);
        let folder = bench.folder.path().join("bare");
        std::fs::create_dir(&folder).unwrap();
        let whole = &bench.inputs["base"][0];
        std::fs::copy(whole.join("config.json"), folder.join("config.json")).unwrap();
        bench.inputs.insert("base".to_owned(), vec![folder]);
        let train = json!({ "batch": 3, "context": 40, "samples": ["hi"] });
        let with = json!({ "train": train, "cards": ["24GiB"] });
        bench.run(&MemoryPlan, with.clone()).expect("it plans");
        let bare: Forecast = serde_json::from_value(bench.json(ANSWER)).unwrap();
        assert!(bare.bare && bare.assumed);
        // But for that it is the plan of the whole base.
        let whole = plan(false, with);
        assert_eq!(
            Forecast {
                bare: false,
                ..bare
            },
            whole
        );
    }

    #[test]
    fn an_unknown_card_is_told_the_known_ones() {
        let error = bench()
            .run(&MemoryPlan, json!({ "cards": ["GTX 970"] }))
            .unwrap_err();
        assert_eq!(error.code, "memory::unknown-card");
        assert!(error.mend.contains("RTX 4090"), "{}", error.mend);
    }
}
