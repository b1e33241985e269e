//! File formats against what the real tools wrote: bitsandbytes, transformers, peft, llama.cpp, mistral-common.
//!
//! Golden files lie in `tests/golden`, with the scripts that made them. Tests of the real SmolLM2 file run
//! where `TUNESMITH_SMOLLM2` names it.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on says so by a panic"
)]

mod chat;
mod config;
mod gguf;
mod layers;
mod nf4;
mod peft;
mod smollm2;
mod support;
mod tokenizer;
mod weights;
