"""Trains SmolLM2 with PEFT and bitsandbytes on the batches that `stages` wrote, and writes the losses.

    python train_peft.py FOLDER MODEL.gguf [f32|bf16] [STEPS]

FOLDER holds `batches.json` and `adapter/` (`stages/src/train/curve_tests.rs` says how they are made). The base is the
GGUF file's values in f32, its linear layers quantized by bitsandbytes to NF4 with double quantization; both precisions
train on the same four bits. `bf16` then holds all else of the base in bf16, as is usual; `f32` computes in f32 with
TF32 off. The loss, the schedule and the clipping are those of docs/engine.md, written here a second time. Writes
`peft-f32.json` or `peft-bf16.json`: one record a step, as a report of the stage `train` has them. Needs torch,
transformers, peft, bitsandbytes and gguf; no network.
"""

import copy
import json
import math
import os
import sys
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import bitsandbytes
import torch
import torch.nn.functional as F
from peft import PeftModel
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Rows in memory at a time: a row takes 2 GB of activations in f32.
TOGETHER = 8 if DEVICE == "cuda" else 4
torch.backends.cuda.matmul.allow_tf32 = False
torch.set_float32_matmul_precision("highest")


def load(gguf, adapter, dtype):
    """The quantized base with the adapter that training starts from."""
    where, name = os.path.split(os.path.abspath(gguf))
    read = AutoModelForCausalLM.from_pretrained(where, gguf_file=name, dtype=torch.float32)
    # A model that came from GGUF counts as quantized and cannot be saved; its values in a new one can.
    config = copy.deepcopy(read.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(read.state_dict())
    four_bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                                   bnb_4bit_compute_dtype=dtype)
    with tempfile.TemporaryDirectory() as folder:
        plain.save_pretrained(folder)
        base = AutoModelForCausalLM.from_pretrained(
            folder, quantization_config=four_bits, dtype=torch.float32, device_map={"": 0 if DEVICE == "cuda" else "cpu"},
            attn_implementation="sdpa")
    check_scales(base, plain)
    for value in base.parameters():
        if value.is_floating_point():
            value.data = value.data.to(dtype)
    return PeftModel.from_pretrained(base, adapter, is_trainable=True).train()


def check_scales(base, plain):
    """Counts the scales whose 8-bit code is not the nearest one. bitsandbytes has some on a CPU, 2 in 1,000, where its GPU
    code and the engine look for the nearest: on a CPU they get that, so that both sides train on the same base."""
    weights = dict(plain.named_parameters())
    other = count = 0
    for name, module in base.named_modules():
        if not isinstance(module, bitsandbytes.nn.Linear4bit):
            continue
        state = module.weight.quant_state
        scales = weights[f"{name}.weight"].detach().view(-1, state.blocksize).abs().amax(1).to(DEVICE) - state.offset
        nested = state.state2
        padded = F.pad(scales, (0, -len(scales) % nested.blocksize)).view(-1, nested.blocksize)
        ratios = (padded / nested.absmax[:, None]).flatten()[:len(scales)]
        nearest = torch.bucketize(ratios, (nested.code[1:] + nested.code[:-1]) / 2).to(torch.uint8)
        other, count = other + (nearest != state.absmax).sum().item(), count + len(scales)
        if DEVICE == "cpu":
            state.absmax = nearest
    print(f"{other} of {count} scales have a code that is not the nearest", flush=True)


def padded(rows):
    """Ids and their mask, padded to the longest row; row, place and share of every id that is to be predicted."""
    longest = max(len(row["ids"]) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    at, places = [], []
    for number, row in enumerate(rows):
        ids[number, :len(row["ids"])] = torch.tensor(row["ids"])
        mask[number, :len(row["ids"])] = 1
        labelled = [i for start, end in row["labels"] for i in range(start, end) if i > 0]
        at += [number] * len(labelled)
        places += labelled
    return ids.to(DEVICE), mask.to(DEVICE), torch.tensor(at, device=DEVICE), torch.tensor(places, device=DEVICE)


def shares(rows, mean):
    """What each label of a row counts: the loss is the mean over tokens, or over each row's tokens and then over rows."""
    labels = [sum(end - max(start, 1) for start, end in row["labels"]) for row in rows]
    each = [row["weight"] / (count if mean == "row" else 1) for row, count in zip(rows, labels)]
    whole = sum(share * count for share, count in zip(each, labels))
    return [share / whole for share in each], sum(labels)


def loss_of(tuned, rows, share):
    """The part of the batch's loss that these rows have."""
    ids, mask, at, places = padded(rows)
    inner = tuned.get_base_model()
    # The head only where there is a label: the same logits as everywhere, in less memory.
    states = inner.model(input_ids=ids, attention_mask=mask).last_hidden_state
    logits = inner.lm_head(states[at, places - 1]).float()
    losses = F.cross_entropy(logits, ids[at, places], reduction="none")
    return (losses * torch.tensor(share, device=DEVICE)[at]).sum()


def rate(settings, step):
    """The learning rate of a step, counted from zero."""
    total = settings["total"]
    warmup = settings["warmup_steps"]
    if warmup is None:
        warmup = math.ceil(settings["warmup_ratio"] * total)
    if step < warmup:
        return settings["lr"] * (step + 1) / warmup
    done = (step - warmup) / max(total - warmup, 1)
    left = {"cosine": 0.5 * (1 + math.cos(math.pi * done)), "linear": 1 - done, "constant": 1.0}[settings["schedule"]]
    return settings["lr"] * (settings["lr_end"] + (1 - settings["lr_end"]) * left)


def train(tuned, batches, steps):
    settings = batches["settings"]
    # One mask serves several layers here and one each in PEFT; one rate for A and B is what this optimizer has.
    assert settings["dropout"] == 0 and settings["lora_plus"] == 1, "curves are compared without dropout and LoRA+"
    trained = [value for value in tuned.parameters() if value.requires_grad]
    assert all(value.dtype == torch.float32 for value in trained)
    optimizer = torch.optim.AdamW(trained, lr=0.0, betas=settings["betas"], eps=settings["eps"],
                                  weight_decay=settings["weight_decay"])
    clip = settings["clip"] or math.inf
    records = []
    for step, rows in enumerate(batches["steps"][:steps]):
        for group in optimizer.param_groups:
            group["lr"] = rate(settings, step)
        share, labels = shares(rows, settings["loss"])
        loss = 0.0
        for first in range(0, len(rows), TOGETHER):
            part = loss_of(tuned, rows[first:first + TOGETHER], share[first:first + TOGETHER])
            part.backward()
            loss += part.item()
        norm = torch.nn.utils.clip_grad_norm_(trained, clip)
        optimizer.step()
        optimizer.zero_grad()
        records.append({"step": step + 1, "loss": loss, "lr": group["lr"], "grad_norm": norm.item(),
                        "labels": labels})
        print(step + 1, records[-1]["loss"], flush=True)
    return records


def main(folder, gguf, precision="bf16", steps=None):
    with open(f"{folder}/batches.json") as file:
        batches = json.load(file)
    tuned = load(gguf, f"{folder}/adapter", {"f32": torch.float32, "bf16": torch.bfloat16}[precision])
    records = train(tuned, batches, int(steps) if steps else None)
    device = torch.cuda.get_device_name(0) if DEVICE == "cuda" else "cpu"
    with open(f"{folder}/peft-{precision}.json", "w") as file:
        json.dump({"device": device, "steps": records}, file, indent=1)


main(*sys.argv[1:])
