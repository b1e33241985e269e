//! The parameters, inputs and products of `train`, as data.

use super::place;
use crate::contract::{Field, FieldType, Port, Product};

/// What a run on GPUs, or on several, may be told by its environment. None of it changes the maths.
pub(super) const PASSED: &[&str] = &[
    "TUNESMITH_ATTENTION",
    "TUNESMITH_NCCL",
    place::RANK,
    place::WORLD,
    place::RENDEZVOUS,
    place::TOKEN,
    place::SECONDS,
    place::ON_CPU,
    "NCCL_ALGO",
    "NCCL_PROTO",
    "NCCL_MIN_NCHANNELS",
    "NCCL_MAX_NCHANNELS",
    "NCCL_NVLS_ENABLE",
    "NCCL_DEBUG",
    "NCCL_SOCKET_IFNAME",
    "NCCL_P2P_DISABLE",
    "NCCL_SHM_DISABLE",
    "NCCL_IB_DISABLE",
];

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

/// What `all-linear` means.
const TARGETS: &[&str] = &[
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj",
];

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
        FieldType::Names {
            all: "all-linear",
            names: TARGETS,
        },
        Some(r#"["q_proj","k_proj","v_proj","o_proj","gate_proj","up_proj","down_proj"]"#),
        "linear layers that carry an adapter, by name; or all-linear",
    ),
    field(
        "layers",
        FieldType::IntList(0, 1000),
        Some("null"),
        "decoder layers that carry an adapter, counted from 0 (default: all of them)",
    ),
    field(
        "rank_pattern",
        FieldType::Map,
        Some("{}"),
        "other ranks by the end of a layer's path: {q_proj: 8, layers.0.mlp.up_proj: 4}",
    ),
    field(
        "alpha_pattern",
        FieldType::Map,
        Some("{}"),
        "other alphas, likewise",
    ),
    field(
        "rslora",
        FieldType::Bool,
        Some("false"),
        "scale by alpha / sqrt(r) instead of alpha / r (rank-stabilised; not for Workers AI)",
    ),
    field(
        "init",
        FieldType::Choice(&["kaiming", "gaussian"]),
        Some("\"kaiming\""),
        "how A starts: uniform within 1/sqrt(in), or normal with deviation 1/r; B starts at zero",
    ),
    field(
        "lr",
        FieldType::Float(0.0, 1.0),
        Some("2e-4"),
        "peak learning rate",
    ),
    field(
        "lora_plus",
        FieldType::Float(0.01, 1000.0),
        Some("1"),
        "LoRA+: the rate of B is so many times that of A",
    ),
    field(
        "schedule",
        FieldType::Choice(&["cosine", "linear", "constant"]),
        Some("\"cosine\""),
        "how the rate falls after warm-up",
    ),
    field(
        "lr_end",
        FieldType::Float(0.0, 1.0),
        Some("0"),
        "share of the peak rate that is left at the end",
    ),
    field(
        "warmup_ratio",
        FieldType::Float(0.0, 1.0),
        Some("0.05"),
        "share of the steps over which the rate rises",
    ),
    field(
        "warmup_steps",
        FieldType::Int(0, 10_000_000),
        Some("null"),
        "steps over which the rate rises, instead of warmup_ratio",
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
        "batch_tokens",
        FieldType::Int(16, 100_000_000),
        Some("null"),
        "most tokens of a step's rows, each counted whole: a step takes rows while they fit, up to batch of them",
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
        "longest row in tokens; too_long says what happens to a longer one",
    ),
    field(
        "too_long",
        FieldType::Choice(&["refuse", "drop", "truncate"]),
        Some("\"refuse\""),
        "rows longer than context: refuse to train, leave them out, or cut their ends off",
    ),
    field(
        "labels",
        FieldType::Choice(&["all", "last"]),
        Some("\"all\""),
        "which of the assistant's turns are learned: all, or the last of each row",
    ),
    field(
        "weights",
        FieldType::Map,
        Some("{}"),
        "how much rows count in the loss, by their type: {negative: 2}; others count 1",
    ),
    field(
        "row_weights",
        FieldType::Bool,
        Some("false"),
        "let the `weight` that rows carry themselves count too",
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
        Some("null"),
        "steps between checkpoints (default: a minute, or twenty times what one takes)",
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
        "keep",
        FieldType::Int(0, 32),
        Some("0"),
        "adapters of the best looks that are kept beside the returned one, in adapter/kept",
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
        name: "adapter",
        required: false,
        many: false,
        about: "PEFT adapter to go on from; r, alpha, targets and the like must be its own",
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
