"""Makes the random tiny model of the `smoke` profile: python3 make.py (needs tokenizers, numpy, safetensors).

Llama architecture, 2 layers, hidden 64, weights drawn from N(0, 0.05) with a fixed seed; a byte-level
BPE tokenizer trained on the tool descriptions, with SmolLM2's special tokens and chat template.
It knows nothing: it exists so that every stage runs for real in seconds.
"""
import json, pathlib
import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, decoders, trainers

here = pathlib.Path(__file__).parent
special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
tok = Tokenizer(models.BPE())
tok.pre_tokenizer = pre_tokenizers.Sequence([
    pre_tokenizers.Digits(individual_digits=True),
    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
tok.decoder = decoders.ByteLevel()
text = (here.parent / "tools.yaml").read_text()
tok.train_from_iterator([text], trainers.BpeTrainer(
    vocab_size=768, special_tokens=special, show_progress=False,
    initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
tok.save(str(here / "tokenizer.json"))
vocab = tok.get_vocab_size()

template = ("{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
            "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
            "{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
            "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
dump = lambda name, value: (here / name).write_text(json.dumps(value, indent=2) + "\n")
dump("tokenizer_config.json", dict(
    add_bos_token=False, bos_token="<|im_start|>", eos_token="<|im_end|>", unk_token="<|endoftext|>",
    chat_template=template, model_max_length=4096, tokenizer_class="PreTrainedTokenizerFast"))
H, F, L, NH, NKV, D = 64, 128, 2, 4, 2, 16
dump("config.json", dict(
    architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=H, intermediate_size=F,
    num_hidden_layers=L, num_attention_heads=NH, num_key_value_heads=NKV, head_dim=D, hidden_act="silu",
    max_position_embeddings=4096, rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=True,
    vocab_size=vocab, bos_token_id=1, eos_token_id=2, torch_dtype="float32"))

rng = np.random.default_rng(20260101)
def weight(*shape):
    return (rng.standard_normal(shape) * 0.05).astype(np.float32)
t = {"model.embed_tokens.weight": weight(vocab, H), "model.norm.weight": np.ones(H, np.float32)}
for i in range(L):
    p = f"model.layers.{i}."
    for name, shape in {"self_attn.q_proj": (NH * D, H), "self_attn.k_proj": (NKV * D, H),
                        "self_attn.v_proj": (NKV * D, H), "self_attn.o_proj": (H, NH * D),
                        "mlp.gate_proj": (F, H), "mlp.up_proj": (F, H), "mlp.down_proj": (H, F)}.items():
        t[p + name + ".weight"] = weight(*shape)
    for name in ("input_layernorm", "post_attention_layernorm"):
        t[p + name + ".weight"] = np.ones(H, np.float32)
save_file(t, str(here / "model.safetensors"), metadata={"format": "pt"})
