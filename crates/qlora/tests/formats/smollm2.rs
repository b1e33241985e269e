//! The real SmolLM2-135M-Instruct GGUF, where `TUNESMITH_SMOLLM2` names it.

#![expect(
    clippy::print_stdout,
    reason = "a skipped test says so, and opening tells its time"
)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use qlora::chat::TemplateSource;
use qlora::{ChatMessage, ChatTemplate, ModelFiles, Role, Tokenizer};
use rayon::prelude::*;

use crate::support::{golden, json_file};

fn model() -> Option<ModelFiles> {
    let Some(path) = std::env::var_os("TUNESMITH_SMOLLM2").map(PathBuf::from) else {
        println!("skipped: TUNESMITH_SMOLLM2 does not name SmolLM2-135M-Instruct.Q4_1.gguf");
        return None;
    };
    let start = Instant::now();
    let model = ModelFiles::open(&path).unwrap();
    println!("opened in {:?}", start.elapsed());
    Some(model)
}

fn ids(value: &serde_json::Value) -> Vec<u32> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_u64().unwrap() as u32)
        .collect()
}

#[test]
fn its_shape_is_that_of_the_original() {
    let Some(model) = model() else { return };
    let config = model.config().unwrap();
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
        (1e5, 1e-5, true)
    );
    assert_eq!(
        (config.bos, config.eos, config.max_position),
        (Some(1), vec![2], 8192)
    );
    assert_eq!(model.names().len(), 272);
}

#[test]
fn its_tensors_are_those_of_the_gguf_package() {
    let Some(model) = model() else { return };
    for (name, expected) in json_file(&golden("smollm2/tensors.json"))
        .as_object()
        .unwrap()
    {
        let tensor = model.tensor(name).unwrap();
        let side = |at: usize| expected["shape"][at].as_u64().map(|side| side as usize);
        let shape = side(1).map_or((1, side(0).unwrap()), |cols| (side(0).unwrap(), cols));
        assert_eq!((tensor.rows(), tensor.cols()), shape, "{name}");
        for (at, value) in ids(&expected["at"])
            .iter()
            .zip(expected["values"].as_array().unwrap())
        {
            assert_eq!(
                tensor.data()[*at as usize],
                value.as_f64().unwrap() as f32,
                "{name} at {at}"
            );
        }
        let sum: f64 = tensor.data().iter().map(|v| f64::from(*v)).sum();
        let abs: f64 = tensor.data().iter().map(|v| f64::from(v.abs())).sum();
        assert!(
            (sum - expected["sum"].as_f64().unwrap()).abs() <= 1e-9 * abs,
            "{name}: {sum}"
        );
        assert!(
            (abs - expected["abs_sum"].as_f64().unwrap()).abs() <= 1e-9 * abs,
            "{name}: {abs}"
        );
    }
}

#[test]
fn its_tokens_are_llama_cpps_and_hugging_faces() {
    let Some(model) = model() else { return };
    let start = Instant::now();
    let tokenizer = model.tokenizer().unwrap();
    println!("tokenizer built in {:?}", start.elapsed());
    let rows = json_file(&golden("smollm2/tokens.json"));
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 20);
    for row in rows {
        let text = row["text"].as_str().unwrap();
        assert_eq!(
            tokenizer.encode(text).unwrap(),
            ids(&row["ids"]),
            "{text:?}"
        );
        assert_eq!(tokenizer.decode(&ids(&row["ids"])).unwrap(), text);
    }
    assert_eq!(tokenizer.vocab_size(), 49152);
    assert_eq!(
        (tokenizer.bos(), tokenizer.eos()),
        (Some("<|im_start|>"), Some("<|im_end|>"))
    );
    // What is put beside an adapter reads back as the same tokenizer.
    let again = qlora::Tokenizer::from_json(tokenizer.to_json().unwrap().as_bytes()).unwrap();
    for row in rows {
        assert_eq!(
            again.encode(row["text"].as_str().unwrap()).unwrap(),
            ids(&row["ids"])
        );
    }
}

#[test]
fn its_conversations_are_those_of_its_own_template() {
    let Some(model) = model() else { return };
    let chat = model.chat().unwrap();
    assert_eq!(chat.form(), "chatml");
    assert_eq!(chat.stop_ids().unwrap(), [2]);
    for row in json_file(&golden("smollm2/chat.json")).as_array().unwrap() {
        let messages: Vec<ChatMessage> = row["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| {
                let role = match m["role"].as_str().unwrap() {
                    "system" => Role::System,
                    "user" => Role::User,
                    _ => Role::Assistant,
                };
                ChatMessage::new(role, m["content"].as_str().unwrap())
            })
            .collect();
        let prompt = row["prompt"].as_bool().unwrap();
        let encoded = chat.encode_chat(&messages, prompt).unwrap();
        assert_eq!(encoded.ids, ids(&row["ids"]), "{}", row["text"]);
        assert_eq!(
            chat.render(&messages, prompt).unwrap(),
            row["text"].as_str().unwrap()
        );
        let labelled: Vec<u32> = encoded
            .ids
            .iter()
            .zip(&encoded.labels)
            .filter(|(_, label)| **label)
            .map(|(id, _)| *id)
            .collect();
        let answers: String = messages
            .iter()
            .filter(|m| m.role == Role::Assistant)
            .map(|m| m.content.clone() + "<|im_end|>")
            .collect();
        assert_eq!(
            chat.tokenizer().decode_with_specials(&labelled).unwrap(),
            answers
        );
    }
}

#[test]
fn its_side_files_make_the_same_chat_again() {
    let Some(model) = model() else { return };
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in model.tokenizer_files().unwrap() {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    let tokenizer = Arc::new(Tokenizer::from_folder(folder.path()).unwrap());
    let source = TemplateSource::from_folder(folder.path()).unwrap().unwrap();
    let again = ChatTemplate::new(tokenizer, &source).unwrap();
    let messages = [
        ChatMessage::new(Role::User, "remind me at 9:30"),
        ChatMessage::new(Role::Assistant, "Done."),
    ];
    let original = model.chat().unwrap();
    assert_eq!(again.form(), original.form());
    assert_eq!(
        again.encode_chat(&messages, true).unwrap(),
        original.encode_chat(&messages, true).unwrap()
    );
}

#[test]
fn its_weights_are_all_finite_and_a_hundred_and_thirty_five_million() {
    let Some(model) = model() else { return };
    let start = Instant::now();
    let count: usize = model
        .names()
        .par_iter()
        .map(|name| {
            let tensor = model.tensor(name).unwrap();
            assert!(
                tensor.data().iter().all(|value| value.is_finite()),
                "{name}"
            );
            tensor.data().len()
        })
        .sum();
    println!("{count} weights dequantized in {:?}", start.elapsed());
    assert_eq!(count, 134_515_008);
}
