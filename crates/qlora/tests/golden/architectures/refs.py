"""Loss, logits and LoRA gradients of small random decoders of each family, by transformers and PEFT in f32.

usage: refs.py OUTDIR. Runs on a CPU in seconds. Weights, adapters and ids are drawn by name with a formula
that tests/training/architectures.rs repeats, so that only configs, shapes and results are stored.
"""
import json, sys
import numpy as np, peft, torch, transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

OUT = sys.argv[1]
M64 = (1 << 64) - 1
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
VOCAB = 64


def noise(count, name):
    seed = 5
    for byte in name.encode():
        seed = (seed * 31 + byte) & M64
    state = ((seed * 0x9E3779B97F4A7C15) & M64) | 1
    out = np.empty(count, np.float32)
    for i in range(count):
        state ^= (state << 13) & M64
        state ^= state >> 7
        state ^= (state << 17) & M64
        out[i] = np.float32(state >> 40) / np.float32(1 << 23) - np.float32(1)
    return out


def fill(tensor, name, centre, scale):
    values = np.float32(centre) + np.float32(scale) * noise(tensor.numel(), name)
    tensor.data.copy_(torch.from_numpy(values).reshape(tensor.shape))


SHAPE = dict(vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
             num_key_value_heads=2, head_dim=16, max_position_embeddings=64, rms_norm_eps=1e-5,
             bos_token_id=1, eos_token_id=2, pad_token_id=0)
QWEN2 = {key: value for key, value in SHAPE.items() if key != "head_dim"}
LLAMA3 = dict(rope_type="llama3", rope_theta=1e4, factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32)
YARN = dict(rope_type="yarn", rope_theta=1e4, factor=4.0, original_max_position_embeddings=16)
CASES = {
    "llama3": ("llama", dict(SHAPE, rope_parameters=LLAMA3)),
    "linear": ("llama", dict(SHAPE, tie_word_embeddings=True,
                             rope_parameters=dict(rope_type="linear", rope_theta=1e4, factor=2.0))),
    "mistral": ("mistral", dict(SHAPE, sliding_window=11)),
    "qwen2": ("qwen2", dict(QWEN2, rope_parameters=YARN, use_sliding_window=True, sliding_window=9,
                            max_window_layers=2)),
    "qwen3": ("qwen3", dict(SHAPE, tie_word_embeddings=True)),
    "gemma": ("gemma", dict(SHAPE)),
    "gemma2": ("gemma2", dict(SHAPE, sliding_window=9, query_pre_attn_scalar=24, attn_logit_softcapping=2.0,
                              final_logit_softcapping=3.0)),
    "gemma3": ("gemma3_text", dict(SHAPE, sliding_window=9, query_pre_attn_scalar=24, sliding_window_pattern=3,
                                   rope_parameters={
                                       "sliding_attention": dict(rope_type="default", rope_theta=1e4),
                                       "full_attention": dict(rope_type="linear", rope_theta=1e6, factor=8.0)})),
}


def rows():
    """Two rows that start alike for 14 ids and are longer than every window."""
    own = [noise(count, f"ids.{count}") for count in (23, 17)]
    ids = [[(i * 11 + 5) % VOCAB for i in range(14)] + [int((v + 1) * 31) for v in values] for values in own]
    return [(row, [i > 16 and i % 4 != 1 for i in range(len(row))]) for row in ids]


summary = {}
for name, (kind, settings) in CASES.items():
    config = AutoConfig.for_model(kind, **settings)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32)
    gemma = kind.startswith("gemma")
    shapes = {}
    for key, tensor in model.named_parameters():
        fill(tensor, key, 1.0 if key.endswith("norm.weight") and not gemma else 0.0, 0.25)
        shapes[key] = list(tensor.shape)
    lora = LoraConfig(r=4, lora_alpha=6, lora_dropout=0.0, target_modules=TARGETS, bias="none", task_type="CAUSAL_LM")
    model = get_peft_model(model, lora).eval()
    pairs = {key: tensor for key, tensor in model.named_parameters() if tensor.requires_grad}
    for key, tensor in pairs.items():
        fill(tensor, key, 0.0, 0.2)
    total, labels, logits = 0.0, 0, []
    for ids, marks in rows():
        out = model(input_ids=torch.tensor([ids])).logits[0]
        logits.append(out[-1].detach())
        at = [i for i in range(1, len(ids)) if marks[i]]
        total = total + torch.nn.functional.cross_entropy(
            out[[i - 1 for i in at]], torch.tensor([ids[i] for i in at]), reduction="sum")
        labels += len(at)
    loss = total / labels
    loss.backward()
    results = {"grad." + key: tensor.grad.contiguous() for key, tensor in pairs.items()}
    results["loss"] = loss.detach().reshape(1)
    results["logits"] = torch.stack(logits)
    save_file(results, f"{OUT}/{name}.safetensors")
    summary[name] = dict(config=dict(config.to_dict(), dtype="float32"), weights=shapes)
    print(name, float(loss))
summary["_versions"] = dict(torch=torch.__version__, transformers=transformers.__version__, peft=peft.__version__,
                            device="cpu")
with open(f"{OUT}/cases.json", "w") as file:
    json.dump(summary, file, indent=1, sort_keys=True)
