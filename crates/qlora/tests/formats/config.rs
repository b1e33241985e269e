//! `config.json` in its old and new spellings, and refusals by key.

use qlora::{Architecture, Dtype, Error, ModelConfig, ModelFiles};
use serde_json::{Value, json};

use crate::support::golden;

/// Opens a model folder with this config; its weights are a tiny file.
fn open(config: &Value) -> Result<ModelConfig, Error> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    std::fs::copy(
        golden("peft-refs/tiny_lora/adapter_model.safetensors"),
        folder.path().join("model.safetensors"),
    )
    .unwrap();
    ModelFiles::open(folder.path())?.config()
}

/// SmolLM2-135M-Instruct's own config.
fn smollm2() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 1,
        "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 576, "initializer_range": 0.041666666666666664,
        "intermediate_size": 1536, "is_llama_config": true, "max_position_embeddings": 8192, "mlp_bias": false,
        "model_type": "llama", "num_attention_heads": 9, "num_hidden_layers": 30, "num_key_value_heads": 3,
        "pad_token_id": 2, "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_interleaved": false, "rope_scaling": null,
        "rope_theta": 100000, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
        "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}}, "transformers_version": "4.42.3",
        "use_cache": true, "vocab_size": 49152
    })
}

/// Mistral-7B-Instruct-v0.2's.
fn mistral() -> Value {
    json!({
        "architectures": ["MistralForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2,
        "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336,
        "max_position_embeddings": 32768, "model_type": "mistral", "num_attention_heads": 32, "num_hidden_layers": 32,
        "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_theta": 1000000.0, "sliding_window": null,
        "tie_word_embeddings": false, "torch_dtype": "bfloat16", "transformers_version": "4.36.0", "use_cache": true,
        "vocab_size": 32000
    })
}

#[test]
fn real_configs_are_read() {
    let config = open(&smollm2()).unwrap();
    assert_eq!(config.architecture, Architecture::Llama);
    assert_eq!(
        (
            config.layers,
            config.heads,
            config.kv_heads,
            config.head_dim
        ),
        (30, 9, 3, 64)
    );
    assert_eq!(
        (config.vocab, config.hidden, config.intermediate),
        (49152, 576, 1536)
    );
    assert_eq!(
        (
            config.attention[0].rope.theta,
            config.rms_eps,
            config.tie_embeddings
        ),
        (100_000.0, 1e-5, true)
    );
    assert_eq!(
        (config.bos, config.eos, config.dtype),
        (Some(1), vec![2], Dtype::Bf16)
    );

    let config = open(&mistral()).unwrap();
    assert_eq!(config.architecture, Architecture::Mistral);
    assert_eq!(
        (
            config.attention[0].rope.theta,
            config.attention[0].window,
            config.max_position
        ),
        (1e6, None, 32768)
    );
    assert_eq!(config.linear_shape("k_proj"), Some((1024, 4096)));
    assert_eq!(config.linear_shape("down_proj"), Some((4096, 14336)));

    let mut qwen = smollm2();
    for (key, value) in [
        ("model_type", json!("qwen2")),
        ("use_sliding_window", json!(false)),
        ("sliding_window", json!(32768)),
        ("max_window_layers", json!(21)),
        ("eos_token_id", json!([151645, 151643])),
    ] {
        qwen[key] = value;
    }
    let config = open(&qwen).unwrap();
    assert!(config.qkv_bias);
    assert_eq!(
        (config.attention[0].window, config.eos),
        (None, vec![151645, 151643])
    );
}

#[test]
fn the_spelling_of_transformers_5_is_read() {
    let config = ModelFiles::open(golden("peft-refs/tiny_bnb4_dq_bf16"))
        .unwrap()
        .config()
        .unwrap();
    assert_eq!(
        (
            config.attention[0].rope.theta,
            config.head_dim,
            config.hidden,
            config.dtype
        ),
        (1e6, 16, 64, Dtype::Bf16)
    );
    assert_eq!(config.query_width(), 64);
}

#[test]
fn a_window_is_taken_from_the_file_and_by_default_as_transformers_does() {
    let mut config = mistral();
    config["sliding_window"] = json!(4096);
    assert_eq!(open(&config).unwrap().attention[0].window, Some(4096));
    config.as_object_mut().unwrap().remove("sliding_window");
    assert_eq!(open(&config).unwrap().attention[0].window, Some(4096));
}

#[test]
fn what_changes_the_maths_is_refused_by_name() {
    for (key, value, shown) in [
        ("hidden_act", json!("gelu"), "`hidden_act: gelu`"),
        ("attention_bias", json!(true), "`attention_bias: true`"),
        ("mlp_bias", json!(true), "`mlp_bias: true`"),
        ("pretraining_tp", json!(2), "`pretraining_tp: 2`"),
        ("attention_dropout", json!(0.1), "`attention_dropout: 0.1`"),
        (
            "final_logit_softcapping",
            json!(30.0),
            "`final_logit_softcapping: 30.0`",
        ),
        (
            "rope_scaling",
            json!({"rope_type": "dynamic", "factor": 8.0}),
            "`rope_scaling.rope_type: \"dynamic\"`",
        ),
        (
            "rope_scaling",
            json!({"type": "linear"}),
            "`rope_scaling.factor: null`",
        ),
        (
            "rope_scaling",
            json!({"rope_type": "yarn", "factor": 4.0, "mscale": 1.0}),
            "`rope_scaling.mscale: 1.0`",
        ),
        (
            "query_pre_attn_scalar",
            json!(256),
            "`query_pre_attn_scalar: 256`",
        ),
        ("rope_theta", json!(0), "`rope_theta: 0`"),
        ("model_type", json!("phi3"), "`model_type: phi3`"),
        (
            "quantization_config",
            json!({"quant_method": "gptq"}),
            "`quantization_config.quant_method: gptq`",
        ),
        (
            "layer_types",
            json!(["full_attention", "sliding_attention"]),
            "`layer_types: \"sliding_attention\"`",
        ),
        (
            "num_attention_heads",
            json!("9"),
            "`num_attention_heads: \"9\"`",
        ),
        ("vocab_size", json!(null), "`vocab_size: absent`"),
        ("sliding_window", json!(512), "`sliding_window: 512`"),
        ("torch_dtype", json!("int8"), "`torch_dtype: \"int8\"`"),
    ] {
        let mut config = smollm2();
        config[key] = value;
        let error = open(&config).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("{shown} is not supported"),
            "{key}"
        );
        assert_eq!(error.code(), "qlora::unsupported");
        assert!(error.mend().is_some());
    }
    let mut config = smollm2();
    config["num_key_value_heads"] = json!(2);
    assert_eq!(
        open(&config).unwrap_err().to_string(),
        "`num_attention_heads`: expected a multiple of 2, found 9"
    );
}

/// The config of Gemma 3 4B as the hub has it: sizes that the class assumes are left out.
#[test]
fn the_text_part_of_a_gemma_3_that_also_sees_is_read() {
    let config = open(&json!({
        "architectures": ["Gemma3ForConditionalGeneration"], "boi_token_index": 255_999, "eos_token_id": [1, 106],
        "image_token_index": 262_144, "mm_tokens_per_image": 256, "model_type": "gemma3", "torch_dtype": "bfloat16",
        "text_config": {
            "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text",
            "num_hidden_layers": 34, "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024
        },
        "vision_config": {"hidden_size": 1152}
    }))
    .unwrap();
    assert_eq!(
        (config.heads, config.kv_heads, config.head_dim, config.vocab),
        (8, 4, 256, 262_208)
    );
    let local: Vec<bool> = config
        .attention
        .iter()
        .map(|l| l.window == Some(1024))
        .collect();
    let wanted: Vec<bool> = (1..=34).map(|layer| layer % 6 != 0).collect();
    assert_eq!(local, wanted);
    assert_eq!(config.attention[0].rope, qlora::Rope::plain(1e4));
    assert_eq!(config.attention[5].rope.theta, 1e6);
    assert!(config.qk_norm && config.post_norms && config.tie_embeddings);
    assert_eq!((config.attention_scale, config.norm_offset), (0.0625, 1.0));
    assert_eq!(config.embedding_scale, 50.5, "sqrt(2560) in bfloat16");
    assert_eq!((config.eos, config.dtype), (vec![1, 106], Dtype::Bf16));
}

#[test]
fn an_early_gemma_says_gelu_and_means_its_tanh_form() {
    let config = open(&json!({
        "architectures": ["GemmaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
        "bos_token_id": 2, "eos_token_id": 1, "head_dim": 256, "hidden_act": "gelu", "hidden_size": 3072,
        "initializer_range": 0.02, "intermediate_size": 24576, "max_position_embeddings": 8192,
        "model_type": "gemma", "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 16,
        "pad_token_id": 0, "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 10000.0,
        "torch_dtype": "bfloat16", "use_cache": true, "vocab_size": 256_000
    }))
    .unwrap();
    assert_eq!(config.activation, qlora::Activation::GeluTanh);
    assert_eq!(config.embedding_scale, 55.5, "sqrt(3072) in bfloat16");
    assert!(config.tie_embeddings && !config.post_norms);
}
