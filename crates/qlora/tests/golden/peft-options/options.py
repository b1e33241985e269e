"""LoRA options as Hugging Face PEFT trains them: losses, and the adapter after three AdamW steps, in f32.

usage: options.py PEFT_REFS OUTDIR. Runs on a CPU in seconds. PEFT_REFS is the folder of refs.py: its tiny Mistral
(tiny_f32), its batch and its adapter (tiny_lora). Each case leaves the adapter that it started from, as PEFT
saves it, in OUTDIR/CASE, and what became of it in OUTDIR/CASE.safetensors.
"""
import json, os, sys
import peft, torch, transformers
from peft import LoraConfig, PeftModel, get_peft_model
from peft.optimizers import create_loraplus_optimizer
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

REFS, OUT = sys.argv[1], sys.argv[2]
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PATTERNS = dict(
    rank_pattern={"q_proj": 2, "layers.1.mlp.down_proj": 8, "k_proj": 6},
    alpha_pattern={"v_proj": 4, "layers.0.self_attn.o_proj": 16, "model.layers.1.mlp.up_proj": 2},
)
CASES = {
    "subset": dict(target_modules=["v_proj", "q_proj"]),
    "layers": dict(layers_to_transform=[1]),
    "rslora": dict(use_rslora=True),
    "patterns": PATTERNS,
    "patterns_rslora": dict(use_rslora=True, **PATTERNS),
}
ADAMW = dict(lr=1e-2, betas=(0.9, 0.999), eps=1e-8)
DECAY, RATIO, STEPS = 0.01, 8.0, 3


def base():
    return AutoModelForCausalLM.from_pretrained(REFS + "/tiny_f32", dtype=torch.float32, attn_implementation="eager")


def fresh(options):
    lora = dict(r=4, lora_alpha=8, lora_dropout=0.0, target_modules=ALL, bias="none", task_type="CAUSAL_LM")
    model = get_peft_model(base(), LoraConfig(**{**lora, **options}))
    draw = torch.Generator().manual_seed(99)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.requires_grad:
                value.copy_(torch.randn(value.shape, generator=draw) * (0.05 if "lora_A" in name else 0.03))
    return model


def train(model, optimizer):
    batch = load_file(REFS + "/batch.safetensors")
    ids, labels = batch["input_ids"], batch["labels"]
    losses = []
    model.train()
    for _ in range(STEPS):
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        losses.append(loss.detach())
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        losses.append(model(input_ids=ids, labels=labels).loss)
    return torch.stack(losses)


def trained(model):
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def keep(case, model, losses):
    values = {"after3." + name: value.detach().clone() for name, value in trained(model).items()}
    save_file({"losses": losses, **values}, f"{OUT}/{case}.safetensors")


torch.use_deterministic_algorithms(True)
summary = {}
for case, options in CASES.items():
    model = fresh(options)
    model.peft_config["default"].base_model_name_or_path = "tiny_f32"
    model.save_pretrained(f"{OUT}/{case}")
    os.remove(f"{OUT}/{case}/README.md")
    losses = train(model, torch.optim.AdamW(trained(model).values(), weight_decay=DECAY, **ADAMW))
    keep(case, model, losses)
    summary[case] = losses.tolist()

# LoRA+ is an optimizer, not an adapter: it starts from tiny_lora, without its dropout.
model = PeftModel.from_pretrained(base(), REFS + "/tiny_lora", is_trainable=True)
for module in model.modules():
    if isinstance(getattr(module, "lora_dropout", None), torch.nn.ModuleDict):
        module.lora_dropout["default"] = torch.nn.Identity()
optimizer = create_loraplus_optimizer(
    model, torch.optim.AdamW, loraplus_lr_ratio=RATIO, loraplus_weight_decay=DECAY, **ADAMW)
losses = train(model, optimizer)
keep("loraplus", model, losses)
summary["loraplus"] = losses.tolist()

about = dict(losses=summary, adamw={**ADAMW, "weight_decay": DECAY}, loraplus_lr_ratio=RATIO, versions=dict(
    torch=torch.__version__, transformers=transformers.__version__, peft=peft.__version__))
with open(OUT + "/options.json", "w") as file:
    json.dump(about, file, indent=1)
    file.write("\n")
