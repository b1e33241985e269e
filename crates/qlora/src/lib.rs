//! `qlora`: a QLoRA engine with explicit forward and backward, usable alone.
//!
//! It reads base models (safetensors, bitsandbytes 4-bit, GGUF), trains and samples LoRA adapters,
//! and reads and writes PEFT adapter folders. It must not know of YAML, stages or pipelines.

/// Raised whenever equal inputs would train or answer differently.
pub const ENGINE_VERSION: u32 = 2;

pub mod chat;
pub mod config;
pub mod cuda;
pub mod dtype;
pub mod error;
pub mod generate;
pub mod nf4;
pub mod nn;
mod ops;
pub mod peft;
pub mod ranks;
pub mod tensor;
pub mod tokenizer;
pub mod train;
pub mod weights;

pub use chat::{ChatMessage, ChatTemplate, EncodedChat, Role};
pub use config::{Activation, Architecture, LayerAttention, ModelConfig, Rope, RopeScaling};
pub use dtype::Dtype;
pub use error::{Error, Result};
pub use generate::Generator;
pub use nf4::Nf4Tensor;
pub use nn::adapter::{Adapter, Slot, Target};
pub use nn::lora::{Init, LoraConfig};
pub use nn::model::{Model, Quantization};
pub use nn::quantize::{LAYERS_VERSION, Quantized, quantize_layers};
pub use peft::{AdapterConfig, LoraPair, PeftAdapter};
pub use tensor::Matrix;
pub use tokenizer::Tokenizer;
pub use weights::{LinearWeight, ModelFiles};
