//! `qlora`: a QLoRA engine with explicit forward and backward, usable alone.
//!
//! It reads base models (safetensors, bitsandbytes 4-bit, GGUF), trains and samples LoRA adapters,
//! and reads and writes PEFT adapter folders. It must not know of YAML, stages or pipelines.

pub mod chat;
pub mod config;
pub mod dtype;
pub mod error;
pub mod nf4;
pub mod peft;
pub mod tensor;
pub mod tokenizer;
pub mod weights;

pub use chat::{ChatMessage, ChatTemplate, EncodedChat, Role};
pub use config::{Architecture, ModelConfig};
pub use dtype::Dtype;
pub use error::{Error, Result};
pub use nf4::Nf4Tensor;
pub use peft::{AdapterConfig, LoraPair, PeftAdapter};
pub use tensor::Matrix;
pub use tokenizer::Tokenizer;
pub use weights::{LinearWeight, ModelFiles};
