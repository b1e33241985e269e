"""What attention must give, on the values of an `attention_driver.Attention`: float64 with the whole score
matrix, and torch's FlashAttention on the same bf16 values as the measure of what an error may be.

It knows nothing of our kernels; packed rows are done row by row, with the prefix repeated before each.
"""
import torch

FLOOR = 1e-5  # root mean square below which an error counts as none


def reference(a):
    """float64 with the whole score matrix, mask by position."""
    hd, h, kv, t, prefix = a.hd, a.heads, a.kv_heads, a.tokens, a.prefix
    x = a.qkv.double()
    widths = [h * hd, kv * hd, kv * hd]
    q, k, v = (s.reshape(t, w // hd, hd).transpose(0, 1) for s, w in zip(x.split(widths, dim=1), widths))
    px = a.prefix_qkv[:prefix].double()
    _, pk, pv = (s.reshape(prefix, w // hd, hd).transpose(0, 1) for s, w in zip(px.split(widths, dim=1), widths))
    leaves = [s.contiguous().requires_grad_() for s in (q, k, v, pk, pv)]
    q, k, v, pk, pv = leaves
    keys = torch.cat([pk, k], 1).repeat_interleave(h // kv, 0)
    values = torch.cat([pv, v], 1).repeat_interleave(h // kv, 0)
    lengths = torch.tensor(a.lengths, device="cuda")
    seq = torch.repeat_interleave(torch.arange(len(a.lengths), device="cuda"), lengths)
    start = torch.repeat_interleave(torch.cumsum(lengths, 0) - lengths, lengths)
    own_pos = prefix + torch.arange(t, device="cuda") - start
    key_pos = torch.cat([torch.arange(prefix, device="cuda"), own_pos])
    key_seq = torch.cat([torch.full((prefix,), -1, device="cuda"), seq])
    gap = own_pos[:, None] - key_pos[None]
    mask = ((key_seq[None] == seq[:, None]) | (key_seq[None] == -1)) & (gap >= 0)
    if a.window:
        mask &= gap < a.window
    s = q @ keys.transpose(1, 2) * a.p.scale
    if a.soft_cap:
        s = a.soft_cap * torch.tanh(s / a.soft_cap)
    s = s.masked_fill(~mask, float("-inf"))
    out = torch.softmax(s, -1) @ values
    grads = torch.autograd.grad(out, leaves, a.d_out.double().reshape(t, h, hd).transpose(0, 1), allow_unused=True)
    names = ["dq", "dk", "dv"] + (["dpk", "dpv"] if prefix else [])
    return {"out": out.detach(), "lse": torch.logsumexp(s, -1).detach()} | dict(zip(names, grads))


def flash(a):
    """torch's FlashAttention-2 on each row with the prefix in front (prefix queries get no gradient)."""
    hd, h, kv, prefix = a.hd, a.heads, a.kv_heads, a.prefix
    parts = {n: [] for n in ("out", "dq", "dk", "dv")}
    dpk = dpv = 0
    at = 0
    for n in a.lengths:
        rows = torch.cat([a.prefix_qkv[:prefix], a.qkv[at:at + n]])
        leaves = [s.reshape(1, prefix + n, -1, hd).contiguous().requires_grad_()
                  for s in rows.split([h * hd, kv * hd, kv * hd], dim=1)]
        q, k, v = leaves
        window = dict(window_size_left=a.window - 1, window_size_right=0) if a.window else {}
        out = torch.ops.aten._flash_attention_forward(
            q, k.repeat_interleave(h // kv, 2), v.repeat_interleave(h // kv, 2), None, None, prefix + n, prefix + n, 0.0,
            True, False, scale=a.p.scale, **window)[0]
        d_out = torch.zeros_like(out)
        d_out[0, prefix:] = a.d_out[at:at + n].reshape(n, h, hd)
        dq, dk, dv = torch.autograd.grad(out, leaves, d_out)
        for name, x in (("out", out), ("dq", dq), ("dk", dk), ("dv", dv)):
            parts[name].append(x[0, prefix:].detach())
        dpk, dpv = dpk + dk[0, :prefix].float(), dpv + dv[0, :prefix].float()
        at += n
    res = {n: torch.cat(x).transpose(0, 1) for n, x in parts.items()}
    return res | ({"dpk": dpk.transpose(0, 1), "dpv": dpv.transpose(0, 1)} if prefix else {})


def rms(x, ref):
    return (x.double() - ref).square().mean().sqrt().item()


def relative(x, ref):
    return rms(x, ref) / max(ref.square().mean().sqrt().item(), 1e-2)
