//! What people write for other trainers and this one does not take: features that it lacks, each with what
//! does instead, and settings that have another name here.

use crate::contract::Refused;

const fn lacks(name: &'static str, message: &'static str, mend: &'static str) -> Refused {
    Refused {
        name,
        values: &[],
        code: "train::unsupported",
        message,
        mend,
    }
}

const fn lacks_value(
    name: &'static str,
    values: &'static [&'static str],
    message: &'static str,
    mend: &'static str,
) -> Refused {
    Refused {
        values,
        ..lacks(name, message, mend)
    }
}

const fn called(name: &'static str, mend: &'static str) -> Refused {
    Refused {
        code: "train::other-name",
        ..lacks(name, "this setting has another name here", mend)
    }
}

pub(super) const REFUSED: &[Refused] = &[
    // ---- adapters ----
    lacks(
        "use_dora",
        "DoRA is not built, and Workers AI cannot apply it",
        "leave it out; a higher `r` is what comes closest",
    ),
    lacks(
        "dora",
        "DoRA is not built, and Workers AI cannot apply it",
        "leave it out; a higher `r` is what comes closest",
    ),
    lacks_value(
        "init",
        &[
            "pissa",
            "olora",
            "corda",
            "eva",
            "loftq",
            "lora_ga",
            "orthogonal",
        ],
        "this start is not built: it changes the base's weights or needs passes over the data first",
        "use `init: kaiming` or `init: gaussian`; `lora_plus: 16` also speeds up the first steps",
    ),
    lacks(
        "loftq_config",
        "LoftQ is not built: it changes the base's weights",
        "leave it out",
    ),
    lacks("use_qalora", "QA-LoRA is not built", "leave it out"),
    lacks(
        "modules_to_save",
        "modules cannot be trained whole: the adapter would hold them, and Workers AI takes LoRA pairs only",
        "leave it out; name linear layers in `targets`",
    ),
    lacks(
        "trainable_token_indices",
        "embeddings are frozen",
        "leave it out, and write new words with tokens that the model has",
    ),
    lacks(
        "resize_token_embeddings",
        "the vocabulary stays as it is: the deployed base has its own",
        "leave it out, and write new words with tokens that the model has",
    ),
    lacks(
        "target_parameters",
        "adapters go on linear layers only",
        "name them in `targets`",
    ),
    lacks(
        "exclude_modules",
        "layers are named, not excluded",
        "list what carries an adapter in `targets` and `layers`",
    ),
    lacks(
        "layer_replication",
        "layers cannot be repeated",
        "leave it out",
    ),
    lacks("lora_bias", "pairs have no bias", "leave it out"),
    lacks("bias", "biases are frozen", "leave it out"),
    // ---- optimizer ----
    lacks(
        "optim",
        "the optimizer is AdamW with 32-bit moments; 8-bit and paged ones are not built",
        "leave it out; 8-bit moments would save 6 bytes a trained value, 0.23 GiB at r = 16 on 7B",
    ),
    lacks(
        "optimizer",
        "the optimizer is AdamW with 32-bit moments; 8-bit and paged ones are not built",
        "leave it out; 8-bit moments would save 6 bytes a trained value, 0.23 GiB at r = 16 on 7B",
    ),
    lacks(
        "neftune_noise_alpha",
        "noise on embeddings (NEFTune) is not built",
        "leave it out; `dropout: 0.05` is what there is against overfitting",
    ),
    lacks(
        "label_smoothing_factor",
        "label smoothing is not built",
        "leave it out",
    ),
    lacks_value(
        "schedule",
        &[
            "polynomial",
            "cosine_with_restarts",
            "inverse_sqrt",
            "reduce_lr_on_plateau",
            "warmup_stable_decay",
        ],
        "this schedule is not built",
        "use `cosine`, `linear` or `constant`, with `lr_end` for a floor",
    ),
    lacks_value(
        "schedule",
        &["constant_with_warmup", "cosine_with_min_lr"],
        "warm-up and floor are settings of their own",
        "use `constant` with `warmup_steps`, or `cosine` with `lr_end`",
    ),
    // ---- batches ----
    lacks(
        "packing",
        "rows are never padded, so packing them gains nothing; rows do not see each other in any case",
        "leave it out",
    ),
    lacks(
        "sample_packing",
        "rows are never padded, so packing them gains nothing; rows do not see each other in any case",
        "leave it out",
    ),
    lacks(
        "group_by_length",
        "rows are never padded, so grouping them by length saves nothing and changes their order",
        "leave it out; `batch_tokens` bounds a step",
    ),
    lacks(
        "gradient_accumulation_steps",
        "`batch` is the rows of a whole optimizer step; how many are in memory at a time is planned and changes nothing",
        "multiply it into `batch`",
    ),
    lacks(
        "gradient_checkpointing",
        "what is kept and what is computed again is planned from the memory, with the same result",
        "leave it out",
    ),
    lacks(
        "bf16",
        "the precision goes by the device: f32 on a CPU, bf16 on a GPU",
        "leave it out",
    ),
    lacks(
        "fp16",
        "the precision goes by the device: f32 on a CPU, bf16 on a GPU",
        "leave it out",
    ),
    lacks(
        "train_on_inputs",
        "only the assistant's turns are learned",
        "leave it out; `labels: last` learns the last one alone",
    ),
    lacks(
        "assistant_only_loss",
        "only the assistant's turns are learned, always",
        "leave it out; `labels: last` learns the last one alone",
    ),
    lacks(
        "seed",
        "the seed is the stage's",
        "write `seed:` beside `uses`",
    ),
    // ---- other names ----
    called("lora_r", "write `r`"),
    called("rank", "write `r`"),
    called("lora_alpha", "write `alpha`"),
    called("lora_dropout", "write `dropout`"),
    called("target_modules", "write `targets`"),
    called("layers_to_transform", "write `layers`"),
    called("use_rslora", "write `rslora`"),
    called("init_lora_weights", "write `init`"),
    called("loraplus_lr_ratio", "write `lora_plus`"),
    called("learning_rate", "write `lr`"),
    called("lr_scheduler_type", "write `schedule`"),
    called("num_train_epochs", "write `epochs`"),
    called(
        "per_device_train_batch_size",
        "write `batch`: the rows of an optimizer step",
    ),
    called("max_grad_norm", "write `clip`"),
    called("adam_beta1", "write `beta1`"),
    called("adam_beta2", "write `beta2`"),
    called("adam_epsilon", "write `eps`"),
    called(
        "max_seq_length",
        "write `context`, and `too_long` for what happens to longer rows",
    ),
    called(
        "max_length",
        "write `context`, and `too_long` for what happens to longer rows",
    ),
    called("eval_steps", "write `eval_every`"),
    called("save_steps", "write `save_every`"),
    called("early_stopping_patience", "write `early_stop`"),
    called("load_best_model_at_end", "write `keep_best`"),
    called(
        "save_total_limit",
        "write `keep`: how many of the best are kept",
    ),
    called("load_in_4bit", "write `quantization`"),
];
