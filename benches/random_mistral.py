#!/usr/bin/env python3
"""Writes a model folder in Mistral 7B Instruct v0.2's shape with random bf16 weights: for times, not for answers.

    random_mistral.py FOLDER TOKENIZER_FOLDER [LAYERS]

Needs torch and safetensors, and a folder with Mistral's tokenizer.json and tokenizer_config.json. Matrices are normal
with deviation 0.02, norms are one; the seed is fixed, so equal versions of torch on equal cards write equal bytes.
Shards hold eight layers each; names and config.json are those of the hub's model.

What it must not know: who reads the folder.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

HIDDEN, INNER, HEADS, KV_HEADS, VOCAB = 4096, 14336, 32, 8, 32000
SHARD = 8


def main():
    folder, tokenizer = Path(sys.argv[1]), Path(sys.argv[2])
    layers = int(sys.argv[3]) if len(sys.argv) > 3 else 32
    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / name, folder / name)
    (folder / "config.json").write_text(json.dumps(config(layers), indent=1))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device).manual_seed(1)

    def matrix(rows, columns):
        values = torch.empty(rows, columns, dtype=torch.bfloat16, device=device)
        return values.normal_(0, 0.02, generator=generator).cpu()

    def ones():
        return torch.ones(HIDDEN, dtype=torch.bfloat16)

    names, total, shards = {}, 0, -(-layers // SHARD) + 1
    for shard in range(shards):
        tensors = {}
        if shard == shards - 1:
            tensors["model.embed_tokens.weight"] = matrix(VOCAB, HIDDEN)
            tensors["model.norm.weight"] = ones()
            tensors["lm_head.weight"] = matrix(VOCAB, HIDDEN)
        else:
            for layer in range(shard * SHARD, min(layers, (shard + 1) * SHARD)):
                at = f"model.layers.{layer}."
                width = HIDDEN // HEADS
                tensors[at + "self_attn.q_proj.weight"] = matrix(HIDDEN, HIDDEN)
                tensors[at + "self_attn.k_proj.weight"] = matrix(KV_HEADS * width, HIDDEN)
                tensors[at + "self_attn.v_proj.weight"] = matrix(KV_HEADS * width, HIDDEN)
                tensors[at + "self_attn.o_proj.weight"] = matrix(HIDDEN, HIDDEN)
                tensors[at + "mlp.gate_proj.weight"] = matrix(INNER, HIDDEN)
                tensors[at + "mlp.up_proj.weight"] = matrix(INNER, HIDDEN)
                tensors[at + "mlp.down_proj.weight"] = matrix(HIDDEN, INNER)
                tensors[at + "input_layernorm.weight"] = ones()
                tensors[at + "post_attention_layernorm.weight"] = ones()
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        save_file(tensors, folder / file, metadata={"format": "pt"})
        total += sum(t.numel() * 2 for t in tensors.values())
        names.update(dict.fromkeys(tensors, file))
    index = {"metadata": {"total_size": total}, "weight_map": names}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def config(layers):
    return {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "hidden_act": "silu",
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-05,
        "rope_theta": 1000000.0,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "vocab_size": VOCAB,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "bfloat16",
    }


main()
