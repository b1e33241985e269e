//! From weights to adapter in forty lines: QLoRA on conversations, saved as a PEFT folder.
//!
//! `cargo run --release -p qlora --example finetune MODEL CHATS.jsonl OUT`, where MODEL is a `.gguf` file or
//! a Hugging Face folder and each line of CHATS is `{"messages": [{"role": "user", "content": "..."}, ...]}`.
#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::error::Error;
use std::path::Path;

use qlora::train::{Example, TrainConfig, TrainEvent, TrainJob, train};
use qlora::weights::ModelFiles;
use qlora::{Adapter, ChatMessage, Dtype, LoraConfig, Model, Quantization, Role, Target};
use serde_json::Value;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, base, chats, out] = &args[..] else {
        return Err("usage: finetune MODEL CHATS.jsonl OUT".into());
    };
    let files = ModelFiles::open(base)?;
    let chat = files.chat()?;
    let mut examples = Vec::new();
    for (number, line) in std::fs::read_to_string(chats)?.lines().enumerate() {
        let row: Value = serde_json::from_str(line)?;
        let messages: Vec<ChatMessage> = row["messages"]
            .as_array()
            .ok_or("a line without messages")?
            .iter()
            .map(message)
            .collect();
        let encoded = chat.encode_chat(&messages, false)?;
        examples.push(Example {
            id: format!("line {}", number + 1),
            ids: encoded.ids,
            labels: encoded.labels,
            weight: 1.0,
        });
    }
    let mut model = Model::load(&files, Quantization::Nf4 { double: true })?;
    let lora = LoraConfig {
        r: 16,
        alpha: 32.0,
        dropout: 0.0,
        targets: Target::ALL.to_vec(),
        seed: 42,
        ..LoraConfig::default()
    };
    let mut adapter = Adapter::new(model.config(), &lora)?;
    let config = TrainConfig {
        epochs: 3,
        lr: 1e-3,
        ..TrainConfig::default()
    };
    let mut tell = |event| {
        if let TrainEvent::Step {
            record,
            of,
            seconds,
        } = event
        {
            println!(
                "step {}/{of}: loss {:.4}, {seconds:.1} s",
                record.step, record.loss
            );
        }
    };
    train(
        &mut model,
        &mut adapter,
        TrainJob::new(&examples, &config),
        &mut tell,
    )?;
    std::fs::create_dir_all(out)?;
    adapter
        .to_peft(Some(base), Some(model.config().architecture.model_type()))
        .save(Path::new(out), Dtype::F16)?;
    Ok(())
}

fn message(value: &Value) -> ChatMessage {
    let role = match value["role"].as_str() {
        Some("system") => Role::System,
        Some("assistant") => Role::Assistant,
        _ => Role::User,
    };
    ChatMessage::new(role, value["content"].as_str().unwrap_or_default())
}
