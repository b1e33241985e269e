"""References for the head sizes that fused attention serves: 64, 128 and 256, four query heads to a key head.

    python refs.py FOLDER [bf16]

Small Mistrals (hidden 512, two layers) on an NF4 base with double quantization, trained by PEFT and bitsandbytes for
three AdamW steps, with dropout off. Weights and ids are drawn from counters (`draw`), so that the tests make them
again and no model is stored. Writes for each head size `headN.safetensors` (f32: losses, the first gradients, the
adapter after three steps).

With `bf16`, made for an NVIDIA GPU: model, ids and adapter are drawn six times, and into `bf16.json` goes how far
PEFT's own bf16 run ends from its f32 run on the same base, |bf16 - f32| / |f32| of every tensor of every draw, beside
the losses of both. One draw would be chance: AdamW's first steps move a value by its gradient's sign, so the distance
after them is a handful of flipped signs. Draw 0 is the one whose f32 tensors are stored.
"""

import json
import re
import sys
import tempfile

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import BitsAndBytesConfig, MistralConfig, MistralForCausalLM

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HEADS = {64: (8, 2), 128: (4, 1), 256: (4, 1)}
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ROWS, LENGTH, VOCAB, R = 2, 200, 256, 4
DRAWS = 6
torch.backends.cuda.matmul.allow_tf32 = False
torch.set_float32_matmul_precision("highest")


def draw(name, count):
    """Uniform in [-1, 1): SplitMix64 of a counter, from a start that FNV-1a makes of the name."""
    start = 0xCBF29CE484222325
    for byte in name.encode():
        start = ((start ^ byte) * 0x100000001B3) % 2**64
    with np.errstate(over="ignore"):
        z = np.uint64(start) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(40)).astype(np.float32) / np.float32(2**23) - np.float32(1)


def prefix(at):
    """What the names of a draw begin with."""
    return f"draw{at}." if at else ""


def tensor(name, shape, centre, scale):
    values = draw(name, int(np.prod(shape))) * np.float32(scale) + np.float32(centre)
    return torch.from_numpy(values).reshape(shape).bfloat16().float()


def config(head):
    heads, keys = HEADS[head]
    return MistralConfig(
        vocab_size=VOCAB, hidden_size=512, intermediate_size=1024, num_hidden_layers=2, num_attention_heads=heads,
        num_key_value_heads=keys, head_dim=head, max_position_embeddings=512, rms_norm_eps=1e-5,
        tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, pad_token_id=0, sliding_window=None,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6})


def model(head, at, dtype):
    start = f"{prefix(at)}{head}."
    plain = MistralForCausalLM(config(head))
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            norm = "norm" in name
            parameter.copy_(tensor(start + name, parameter.shape, 1.0 if norm else 0.0, 0.25 if norm else 0.08))
    with tempfile.TemporaryDirectory() as folder:
        plain.to(dtype).save_pretrained(folder)
        quantized = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                                       bnb_4bit_compute_dtype=dtype)
        base = MistralForCausalLM.from_pretrained(
            folder, quantization_config=quantized, dtype=dtype, device_map={"": 0 if DEVICE == "cuda" else "cpu"},
            attn_implementation="eager" if dtype == torch.float32 else "sdpa")
    tuned = get_peft_model(base, LoraConfig(r=R, lora_alpha=2 * R, lora_dropout=0.0, target_modules=TARGETS))
    adapter = {name: p for name, p in tuned.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for name, p in adapter.items():
            p.data = tensor(start + name, p.shape, 0.0, 0.05 if "lora_A" in name else 0.03).to(DEVICE)
    return tuned.train(), adapter


def rows(at):
    ids = torch.from_numpy((draw(f"{prefix(at)}ids", ROWS * LENGTH) * 0.5 + 0.5) * (VOCAB - 3)).long().reshape(ROWS, LENGTH) + 3
    labels = ids.clone()
    labels[0, :70] = -100
    labels[1, :33] = -100
    labels[1, 150:] = -100
    return ids.to(DEVICE), labels.to(DEVICE)


def run(head, at, dtype):
    tuned, adapter = model(head, at, dtype)
    ids, labels = rows(at)
    # With an epsilon of 1e-8 rounding alone decides where values go whose gradient is near zero.
    optimizer = torch.optim.AdamW(adapter.values(), lr=1e-3, betas=(0.9, 0.999), eps=1e-5, weight_decay=0.01)
    out, losses = {}, []
    for step in range(4):
        loss = tuned(input_ids=ids, labels=labels).loss
        losses.append(loss.detach().float().cpu())
        if step == 3:
            break
        loss.backward()
        if step == 0:
            out.update({f"grad0.{name}": p.grad.float().cpu().clone() for name, p in adapter.items()})
        optimizer.step()
        optimizer.zero_grad()
    out.update({f"after3.{name}": p.detach().float().cpu().clone() for name, p in adapter.items()})
    return out, torch.stack(losses)


def distances(head, at, reference):
    """How far PEFT's bf16 run of a draw ends from `reference`, and its losses."""
    near, losses = run(head, at, torch.bfloat16)
    far = {name: ((near[name] - want).norm() / want.norm()).item() for name, want in reference.items()}
    print(head, "draw", at, "bf16", losses.tolist(), "farthest", max(far.values()), flush=True)
    return far, losses.tolist()


def main(folder, bf16):
    found = {}
    for head in HEADS:
        of = found[head] = {"losses": [], "f32_losses": [], "distances": {}}
        for at in range(DRAWS if bf16 else 1):
            reference, losses = run(head, at, torch.float32)
            print(head, "draw", at, "f32", losses.tolist(), flush=True)
            if at == 0:
                tensors = {name: value.contiguous() for name, value in reference.items()}
                save_file({**tensors, "losses": losses}, f"{folder}/head{head}.safetensors")
            if bf16:
                far, near = distances(head, at, reference)
                of["f32_losses"].append(losses.tolist())
                of["losses"].append(near)
                for name, value in far.items():
                    of["distances"].setdefault(name, []).append(float(f"{value:.5g}"))
    if bf16:
        device = torch.cuda.get_device_name(0) if DEVICE == "cuda" else "cpu"
        with open(f"{folder}/bf16.json", "w") as file:
            file.write(pretty({"device": device, "heads": found}) + "\n")


def pretty(found):
    """JSON with the numbers of all draws on one line."""
    text = json.dumps(found, indent=1)
    return re.sub(r"\[[-+.e\d\s,]*\]", lambda numbers: re.sub(r"\s+", " ", numbers[0]), text)


main(sys.argv[1], "bf16" in sys.argv[2:])
