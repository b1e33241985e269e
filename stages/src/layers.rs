//! What training and scoring derive from a base: its linear layers in four bits, as one file.
//!
//! Promises: the file follows from the base's bytes alone, on every machine; it is small beside what is read to make it,
//! and empty for a base that is four bits already. Must not know: who reads it, a GPU.

use std::collections::BTreeMap;

use qlora::{ModelFiles, Quantization, quantize_layers};
use serde_json::json;

use crate::base::{engine, model_path, quantization};
use crate::contract::{
    Context, Derived, Field, FieldType, Outcome, Params, Port, Product, Stage, StageError,
};

/// The maker.
pub(crate) struct Layers;

/// Under which a stage finds them.
pub(crate) const LAYERS: &str = "layers";

/// What a stage with the parameter `quantization` derives from its input `base`.
pub(crate) fn derived(params: &Params) -> Vec<Derived> {
    match quantization(params) {
        Quantization::None => Vec::new(),
        Quantization::Nf4 { double } => vec![Derived {
            name: LAYERS,
            of: "base",
            maker: &Layers,
            params: BTreeMap::from([("double".to_owned(), json!(double))]),
        }],
    }
}

const FIELDS: &[Field] = &[Field {
    name: "double",
    kind: FieldType::Bool,
    default: Some("true"),
    about: "whether scales are quantized, too",
}];

const INPUTS: &[Port] = &[Port {
    name: "base",
    required: true,
    many: false,
    about: "base model",
}];

const PRODUCTS: &[Product] = &[Product {
    name: "layers",
    path: "layers.safetensors",
    about: "linear layers as bitsandbytes keeps NF4 weights",
}];

impl Stage for Layers {
    fn kind(&self) -> &'static str {
        "nf4-layers"
    }

    fn about(&self) -> &'static str {
        "quantizes the linear layers of a base model to NF4"
    }

    fn version(&self) -> u32 {
        1
    }

    fn shared(&self) -> &'static [(&'static str, u32)] {
        &[("layers", qlora::LAYERS_VERSION)]
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

    fn run(&self, params: &Params, ctx: &Context<'_>) -> Result<Outcome, StageError> {
        let path = model_path(ctx.input("base")?)?;
        let files = ModelFiles::open(path).map_err(|error| engine(&error))?;
        let file = ctx.output.join(PRODUCTS[0].path);
        let mut hear = |done: usize, of: usize| {
            ctx.progress("quantizing", done as u64, Some(of as u64), "weights");
            ctx.go_on().is_ok()
        };
        let made = quantize_layers(&files, params.flag("double"), &file, &mut hear)
            .map_err(|error| engine(&error))?;
        Ok(Outcome {
            notes: vec![format!("{} weights, {} bytes", made.weights, made.bytes)],
            ..Outcome::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::Eval;
    use crate::model_tests::{ROWS, bench};
    use crate::testing::Bench;
    use crate::train::Train;

    /// The tiny model, and its layers if they are to be there.
    fn prepared(with_layers: bool) -> (Bench, Option<Bench>) {
        let mut own = bench();
        own.give("train", "train.jsonl", ROWS);
        let prompt = r#"{"id":"p","category":"negative","messages":[{"role":"user","content":"hi"}],"expect":[]}"#;
        own.give("prompts", "prompts.jsonl", prompt);
        let maker = with_layers.then(|| {
            let maker = bench();
            maker.run(&Layers, json!({})).expect("they are made");
            own.derived
                .insert(LAYERS.to_owned(), maker.out().join("layers.safetensors"));
            maker
        });
        (own, maker)
    }

    #[test]
    fn training_and_scoring_give_the_same_bytes_with_them_and_without() {
        let made = |with_layers: bool| {
            let (bench, _maker) = prepared(with_layers);
            let with = json!({ "max_steps": 2, "batch": 2, "lr": 5e-3, "r": 4, "samples": [] });
            bench.run(&Train, with).expect("it trains");
            let adapter = bench.text("adapter/adapter_config.json");
            let weights =
                std::fs::read(bench.out().join("adapter/adapter_model.safetensors")).unwrap();
            let with = json!({ "quantization": "nf4", "max_new_tokens": 8 });
            bench.run(&Eval, with).expect("it answers");
            (adapter, weights, bench.text("transcripts.jsonl"))
        };
        assert_eq!(made(true), made(false));
    }

    #[test]
    fn they_are_what_is_read_and_not_the_base() {
        let (bench, maker) = prepared(true);
        let maker = maker.expect("a maker");
        let file = maker.out().join("layers.safetensors");
        std::fs::write(&file, b"short").unwrap();
        let error = bench.run(&Train, json!({ "max_steps": 1 })).unwrap_err();
        assert_eq!(error.code, "qlora::truncated", "{error:?}");
    }

    #[test]
    fn only_four_bits_are_derived() {
        let of = |quantization: &str| {
            let given = BTreeMap::from([("quantization".to_owned(), json!(quantization))]);
            let params = crate::contract::canonical(Eval.fields(), &given).unwrap();
            Eval.derives(&params).len()
        };
        assert_eq!((of("nf4"), of("none")), (1, 0));
    }
}
