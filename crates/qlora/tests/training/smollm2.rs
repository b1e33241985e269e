//! The real SmolLM2-135M-Instruct, where `TUNESMITH_SMOLLM2` names its GGUF file.

use std::path::PathBuf;

use qlora::weights::ModelFiles;
use qlora::{ChatMessage, Generator, Model, Quantization, Role};

#[test]
fn the_capital_of_france_is_paris() {
    let Some(path) = std::env::var_os("TUNESMITH_SMOLLM2").map(PathBuf::from) else {
        return;
    };
    let files = ModelFiles::open(path).unwrap();
    let chat = files.chat().unwrap();
    let question = [ChatMessage::new(
        Role::User,
        "What is the capital of France?",
    )];
    let encoded = chat.encode_chat(&question, true).unwrap();
    let mut model = Model::load(&files, Quantization::None).unwrap();
    let stop = chat.stop_ids().unwrap();
    let generator = Generator::new(&mut model, None).unwrap();
    let answers = generator
        .generate(&[encoded.ids.clone(), encoded.ids], 24, &stop)
        .unwrap();
    let tokenizer = files.tokenizer().unwrap();
    for answer in answers {
        assert_eq!(
            tokenizer.decode(&answer).unwrap(),
            "The capital of France is Paris."
        );
    }
}
