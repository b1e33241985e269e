//! Stage `export`: the adapter as a deployable folder.
//!
//! Promises: adapter only (never merged weights), 16-bit, PEFT names, sorted suffixes,
//! `model_type`; the tokenizer and the generated system prompt beside it; what the target
//! cannot run is refused by name, before training where parameters show it. Must not know:
//! how anything is uploaded.

use std::path::Path;

use qlora::{AdapterConfig, Dtype, PeftAdapter};

use crate::base::{Base, TEMPLATE_VERSION, engine};
use crate::contract::{
    Context, Fault, Field, FieldType, Outcome, Params, Port, Product, Site, Stage, StageError,
};
use crate::prompt::PROMPT_VERSION;

/// The stage.
pub struct Export;

/// Workers AI's limits (docs of autumn 2026): rank and bytes of an adapter.
const WORKERS_AI_RANK: i64 = 32;
const WORKERS_AI_BYTES: u64 = 300_000_000;

const FIELDS: &[Field] = &[
    Field {
        name: "target",
        kind: FieldType::Choice(&["folder", "cloudflare"]),
        default: Some("\"folder\""),
        about: "where it will run: its limits are checked (cloudflare: rank 32, 300 MB)",
    },
    Field {
        name: "model_type",
        kind: FieldType::Choice(&["mistral", "gemma", "llama"]),
        default: None,
        about: "`model_type` of adapter_config.json, which Workers AI asks for",
    },
    Field {
        name: "dtype",
        kind: FieldType::Choice(&["f16", "bf16"]),
        default: Some("\"bf16\""),
        about: "type of the tensors",
    },
    Field {
        name: "base_name",
        kind: FieldType::Text,
        default: Some("null"),
        about: "`base_model_name_or_path`, as other tools should find the base",
    },
];

const INPUTS: &[Port] = &[
    Port {
        name: "adapter",
        required: true,
        many: false,
        about: "PEFT adapter from train",
    },
    Port {
        name: "base",
        required: true,
        many: false,
        about: "the base it was trained on: tokenizer and shape",
    },
    Port {
        name: "tools",
        required: true,
        many: false,
        about: "tools.yaml: the system prompt is made from it",
    },
];

const PRODUCTS: &[Product] = &[
    Product {
        name: "adapter",
        path: "adapter",
        about: "adapter_config.json, adapter_model.safetensors, tokenizer.json",
    },
    Product {
        name: "system",
        path: "system-prompt.txt",
        about: "the system prompt the adapter was trained with",
    },
];

impl Stage for Export {
    fn kind(&self) -> &'static str {
        "export"
    }

    fn about(&self) -> &'static str {
        "writes the adapter as a 16-bit PEFT folder with `model_type` and tokenizer"
    }

    fn version(&self) -> u32 {
        1
    }

    fn shared(&self) -> &'static [(&'static str, u32)] {
        &[("prompt", PROMPT_VERSION), ("template", TEMPLATE_VERSION)]
    }

    fn fields(&self) -> &'static [Field] {
        FIELDS
    }

    fn inputs(&self) -> &'static [Port] {
        INPUTS
    }

    fn products(&self) -> &'static [Product] {
        PRODUCTS
    }

    fn check(&self, params: &Params, site: &Site) -> Vec<Fault> {
        if params.text("target").as_deref() != Some("cloudflare") {
            return Vec::new();
        }
        let above = site.upstream.get("adapter").into_iter().flatten();
        let trains = above.filter(|(kind, _)| kind == "train");
        trains.flat_map(|(_, train)| unserved(train)).collect()
    }

    fn run(&self, params: &Params, ctx: &Context<'_>) -> Result<Outcome, StageError> {
        let base = Base::open(ctx.input("base")?, ctx.input("tools")?)?;
        let mut adapter =
            PeftAdapter::load(ctx.input("adapter")?).map_err(|error| engine(&error))?;
        let shape = base.files.config().map_err(|error| engine(&error))?;
        let wanted = params.text("model_type").unwrap_or_default();
        check_model_type(&wanted, shape.architecture.model_type())?;
        adapter.config.model_type = Some(wanted);
        adapter.config.base_model = params.text("base_name");
        let dtype = if params.text("dtype").as_deref() == Some("f16") {
            Dtype::F16
        } else {
            Dtype::Bf16
        };

        let folder = ctx.output.join("adapter");
        std::fs::create_dir_all(&folder).map_err(|error| StageError::io(&folder, &error))?;
        adapter
            .save(&folder, dtype)
            .map_err(|error| engine(&error))?;
        for (name, bytes) in base
            .files
            .tokenizer_files()
            .map_err(|error| engine(&error))?
        {
            write(&folder.join(name), &bytes)?;
        }
        write(
            &ctx.output.join("system-prompt.txt"),
            base.system().as_bytes(),
        )?;
        let bytes = size(&folder.join("adapter_model.safetensors"))?
            + size(&folder.join("adapter_config.json"))?;
        if params.text("target").as_deref() == Some("cloudflare") {
            check_features(&adapter.config)?;
            check_limits(i64::try_from(adapter.config.r).unwrap_or(i64::MAX), bytes)?;
        }
        Ok(Outcome {
            metrics: [("adapter_mb".to_owned(), bytes as f64 / 1e6)].into(),
            notes: vec![format!(
                "adapter of {:.1} MB, rank {}, {} pairs",
                bytes as f64 / 1e6,
                adapter.config.r,
                adapter.pairs.len()
            )],
            pin: None,
        })
    }
}

/// What Workers AI cannot do, as far as the parameters of training show it.
fn unserved(train: &Params) -> Vec<Fault> {
    let mut faults = Vec::new();
    if let Some(rank) = train.int("r").filter(|rank| *rank > WORKERS_AI_RANK) {
        faults.push(Fault::new(
            "export::rank-too-high",
            "inputs.adapter",
            format!("the adapter has rank {rank}; Workers AI takes up to {WORKERS_AI_RANK}"),
            format!("train with `r: {WORKERS_AI_RANK}` or less"),
        ));
    }
    let (rank, alpha) = (train.int("r"), train.float("alpha"));
    let used = features(
        train.flag("rslora"),
        !train.map("rank_pattern").is_empty(),
        !train.map("alpha_pattern").is_empty(),
        rank.unwrap_or(16) as f64,
        alpha.unwrap_or(32.0),
    );
    faults.extend(used.into_iter().map(|(message, mend)| {
        Fault::new(
            "export::unsupported-feature",
            "inputs.adapter",
            message,
            mend,
        )
    }));
    faults
}

/// What an adapter uses that Workers AI does not apply, and what to train instead.
fn features(rslora: bool, ranks: bool, alphas: bool, r: f64, alpha: f64) -> Vec<(String, String)> {
    let mut used = Vec::new();
    let message = |what: &str| format!("the adapter uses {what}, which Workers AI does not apply");
    if rslora {
        let same = (alpha * r.sqrt() * 100.0).round() / 100.0;
        used.push((
            message("rank-stabilised scaling (`rslora`)"),
            format!("train with `alpha: {same}` and no `rslora`: the same scale"),
        ));
    }
    for (pattern, on) in [("rank_pattern", ranks), ("alpha_pattern", alphas)] {
        if on {
            used.push((
                message(&format!("`{pattern}`")),
                format!("train without `{pattern}`"),
            ));
        }
    }
    used
}

fn check_features(config: &AdapterConfig) -> Result<(), StageError> {
    let used = features(
        config.rslora,
        !config.rank_pattern.is_empty(),
        !config.alpha_pattern.is_empty(),
        config.r as f64,
        config.alpha,
    );
    if used.is_empty() {
        return Ok(());
    }
    let (messages, mends): (Vec<_>, Vec<_>) = used.into_iter().unzip();
    let (message, mend) = (messages.join("; "), mends.join("; "));
    Err(StageError::new("export::unsupported-feature", message, mend).at("inputs.adapter"))
}

fn check_model_type(wanted: &str, base: &str) -> Result<(), StageError> {
    // A GGUF of Mistral says `llama`: without a sliding window the two are one architecture.
    if wanted == base || (wanted == "mistral" && base == "llama") {
        return Ok(());
    }
    Err(StageError::new(
        "export::base-mismatch",
        format!("`model_type: {wanted}` does not fit a base of type `{base}`"),
        "an adapter runs only on the base it was trained on: choose the deployment model that matches",
    )
    .at("with.model_type"))
}

fn check_limits(rank: i64, bytes: u64) -> Result<(), StageError> {
    if rank > WORKERS_AI_RANK {
        let message = format!("rank {rank} is over Workers AI's limit of {WORKERS_AI_RANK}");
        return Err(
            StageError::new("export::rank-too-high", message, "train with a lower `r`")
                .at("inputs.adapter"),
        );
    }
    if bytes > WORKERS_AI_BYTES {
        let message =
            format!("the adapter takes {bytes} bytes; Workers AI takes {WORKERS_AI_BYTES}");
        return Err(StageError::new(
            "export::too-large",
            message,
            "train with a lower `r` or fewer `targets`",
        )
        .at("inputs.adapter"));
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), StageError> {
    std::fs::write(path, bytes).map_err(|error| StageError::io(path, &error))
}

fn size(path: &Path) -> Result<u64, StageError> {
    Ok(std::fs::metadata(path)
        .map_err(|error| StageError::io(path, &error))?
        .len())
}
