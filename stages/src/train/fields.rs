//! The parameters, inputs and products of `train`, as data.

use crate::contract::{Field, FieldType, Port, Product};

const fn field(
    name: &'static str,
    kind: FieldType,
    default: Option<&'static str>,
    about: &'static str,
) -> Field {
    Field {
        name,
        kind,
        default,
        about,
    }
}

pub(super) const FIELDS: &[Field] = &[
    field(
        "quantization",
        FieldType::Choice(&["nf4", "none"]),
        Some("\"nf4\""),
        "how the frozen base is held: nf4 (4 bits, double quantization: QLoRA) or none",
    ),
    field(
        "r",
        FieldType::Int(1, 256),
        Some("16"),
        "rank of the adapter (Workers AI takes up to 32)",
    ),
    field(
        "alpha",
        FieldType::Float(0.0, 1024.0),
        Some("32"),
        "the adapter's output is scaled by alpha / r; usually 2 x r",
    ),
    field(
        "dropout",
        FieldType::Float(0.0, 0.9),
        Some("0"),
        "share of the adapter's inputs dropped while training",
    ),
    field(
        "targets",
        FieldType::TextList,
        Some(r#"["q_proj","k_proj","v_proj","o_proj","gate_proj","up_proj","down_proj"]"#),
        "linear layers that carry an adapter",
    ),
    field(
        "lr",
        FieldType::Float(0.0, 1.0),
        Some("2e-4"),
        "peak learning rate",
    ),
    field(
        "schedule",
        FieldType::Choice(&["cosine", "linear", "constant"]),
        Some("\"cosine\""),
        "how the rate falls after warm-up",
    ),
    field(
        "warmup_ratio",
        FieldType::Float(0.0, 1.0),
        Some("0.05"),
        "share of the steps over which the rate rises",
    ),
    field(
        "weight_decay",
        FieldType::Float(0.0, 1.0),
        Some("0.01"),
        "AdamW's decoupled weight decay",
    ),
    field(
        "beta1",
        FieldType::Float(0.0, 0.999_999),
        Some("0.9"),
        "AdamW's decay of the first moment",
    ),
    field(
        "beta2",
        FieldType::Float(0.0, 0.999_999),
        Some("0.999"),
        "AdamW's decay of the second moment",
    ),
    field(
        "eps",
        FieldType::Float(1e-12, 1e-2),
        Some("1e-8"),
        "AdamW's epsilon",
    ),
    field(
        "clip",
        FieldType::Float(1e-6, 1e6),
        Some("1.0"),
        "largest norm of the whole gradient",
    ),
    field(
        "loss",
        FieldType::Choice(&["token", "row"]),
        Some("\"token\""),
        "what the loss is the mean of: every token alike, or every row alike (short answers then weigh as much as long ones)",
    ),
    field(
        "batch",
        FieldType::Int(1, 4096),
        Some("16"),
        "rows per optimizer step",
    ),
    field(
        "epochs",
        FieldType::Int(1, 1000),
        Some("2"),
        "times each row is seen",
    ),
    field(
        "max_steps",
        FieldType::Int(1, 10_000_000),
        Some("null"),
        "steps after which training ends even if epochs are left",
    ),
    field(
        "context",
        FieldType::Int(16, 1_000_000),
        Some("2048"),
        "longest row in tokens; a longer one is an error, never cut",
    ),
    field(
        "eval_every",
        FieldType::Int(1, 10_000_000),
        Some("null"),
        "steps between looks at the held-out loss (default: twice an epoch)",
    ),
    field(
        "save_every",
        FieldType::Int(1, 10_000_000),
        Some("10"),
        "steps between checkpoints",
    ),
    field(
        "early_stop",
        FieldType::Int(1, 1000),
        Some("null"),
        "looks without a better held-out loss after which training stops",
    ),
    field(
        "keep_best",
        FieldType::Bool,
        Some("false"),
        "return the adapter of the best held-out loss instead of the last",
    ),
    field(
        "shared_prefix",
        FieldType::Bool,
        Some("true"),
        "compute the system prompt once a step for all rows",
    ),
    field(
        "samples",
        FieldType::TextList,
        Some(r#"["remind me to water the plants on saturday","what can you do?"]"#),
        "requests answered at each look, to watch it learn",
    ),
];

pub(super) const INPUTS: &[Port] = &[
    Port {
        name: "base",
        required: true,
        many: false,
        about: "base model: GGUF or a folder of safetensors",
    },
    Port {
        name: "train",
        required: true,
        many: false,
        about: "rows to learn",
    },
    Port {
        name: "val",
        required: false,
        many: false,
        about: "held-out rows",
    },
    Port {
        name: "tools",
        required: true,
        many: false,
        about: "tools.yaml: the system prompt is made from it",
    },
];

pub(super) const PRODUCTS: &[Product] = &[
    Product {
        name: "adapter",
        path: "adapter",
        about: "PEFT adapter, 32-bit",
    },
    Product {
        name: "report",
        path: "report.json",
        about: "loss curves and counts",
    },
];
