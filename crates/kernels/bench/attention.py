"""Checks the attention kernels against float64 and times them; `--help` lists the parts.

    python3 attention.py --kernels FOLDER_OF_FATBINS --out FOLDER [--doors mma,sm90] [check] [time] [small]

check  forward and backward over lengths, packed sets, prefixes, groups, head sizes and windows: every
       output finite after a NaN fill, equal bytes on a second run, root-mean-square error against float64
       at most twice that of torch's FlashAttention on the same values (separate rows, prefix repeated).
time   CUDA events, median; torch's flash and cuDNN attention in the same run for comparison.
small  a handful of tiny shapes without torch's attention: for compute-sanitizer.
"""
import argparse
import json
import pathlib
import statistics
import time

import torch

from attention_driver import Attention, Kernels

FLOOR = 1e-5  # root mean square below which an error counts as none


def packed(lengths):
    cu = [0]
    for n in lengths:
        cu.append(cu[-1] + n)
    return cu


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


def run_once(a):
    a.poison()
    a.forward()
    a.backward()
    torch.cuda.synchronize()
    return a.results() | {"lse": a.lse.clone()}


def check_case(kernels, label, rows, **shape):
    a = Attention(kernels, packed(rows), seed=sum(rows) + shape["prefix"], **shape)
    got, again = run_once(a), run_once(a)
    faults = [f"{n} not finite" for n, x in got.items() if not torch.isfinite(x).all()]
    faults += [f"{n} differs on a second run" for n, x in got.items() if not torch.equal(x, again[n])]
    ref = reference(a)
    line = {"case": label, "door": a.door if a.dtype == torch.bfloat16 else "f32"}
    lse_error = (got.pop("lse").double() - ref.pop("lse")).abs().max().item()
    if not lse_error < 2e-3:
        faults.append(f"lse off by {lse_error:.1e}")
    if a.dtype == torch.float32 or a.soft_cap:
        limit = 1e-5 if a.dtype == torch.float32 else 1e-2
        for n, x in got.items():
            line[n] = rms(x, ref[n]) / max(ref[n].square().mean().sqrt().item(), 1e-2)
            if not line[n] < limit:
                faults.append(f"{n} relative error {line[n]:.1e}")
    else:
        peer = flash(a)
        for n, x in got.items():
            line[n] = rms(x, ref[n]) / max(rms(peer[n], ref[n]), FLOOR)
            if not line[n] <= 2.0:
                faults.append(f"{n} error {line[n]:.2f} of torch's")
    line["faults"] = faults
    return line


PACKED = [1, 7, 64, 65, 127, 128, 300]


def cases(doors):
    """(label, rows, shape) of every check."""
    for door in doors:
        for hd in (64, 128, 256) if door == "mma" else (128,):
            for kv in (8, 2, 1):
                for prefix in (0, 1, 63, 600):
                    for rows in ([1], [7], [64], [65], [127], [128], [300], [1000], PACKED):
                        for window in (0, 50) if rows in ([300], PACKED) else (0,):
                            yield dict(rows=rows, heads=8, kv_heads=kv, head_dim=hd, prefix=prefix, window=window, door=door)
        for hd in (64, 128, 256) if door == "mma" else (128,):
            yield dict(rows=[40, 160, 97, 101, 64] * 3, heads=32, kv_heads=8, head_dim=hd, prefix=600, window=0, door=door)
            yield dict(rows=[2048, 1023], heads=4, kv_heads=4, head_dim=hd, prefix=0, window=0, door=door)
            yield dict(rows=[900, 500], heads=4, kv_heads=1, head_dim=hd, prefix=300, window=700, door=door)
            if door == "mma":
                yield dict(rows=PACKED, heads=4, kv_heads=2, head_dim=hd, prefix=63, window=0, soft_cap=5.0, door=door)
    for hd in (16, 64, 128, 256):
        for window, cap in ((0, 0.0), (50, 0.0), (0, 5.0)):
            yield dict(rows=PACKED, heads=8, kv_heads=2, head_dim=hd, prefix=63, window=window, soft_cap=cap,
                       dtype=torch.float32)


def label_of(c):
    rows = "+".join(map(str, c["rows"])) if len(c["rows"]) < 3 else f"{len(c['rows'])} rows"
    return f"hd{c['head_dim']} {c['heads']}/{c['kv_heads']} heads, prefix {c['prefix']}, window {c['window']}, rows {rows}"


def check(kernels, doors):
    worst, failed, lines = {}, [], []
    began = time.time()
    for c in cases(doors):
        rows = c.pop("rows")
        try:
            line = check_case(kernels, label_of(c | {"rows": rows}), rows, **c)
        except Exception as e:
            line = {"case": label_of(c | {"rows": rows}), "door": c.get("door"), "faults": [f"{type(e).__name__}: {e}"]}
            failed.append(line)
            lines.append(line)
            if "illegal" in str(e) or "launch" in str(e):
                break
            continue
        lines.append(line)
        if line["faults"]:
            failed.append(line)
        kind = f"{line['door']} hd{c['head_dim']}" + (" soft cap" if c.get("soft_cap") else "")
        for n, v in line.items():
            if isinstance(v, float):
                row = worst.setdefault(kind, {})
                row[n] = max(row.get(n, 0.0), v)
    print(f"\n{len(lines)} cases, {len(failed)} with faults, {time.time() - began:.0f} s")
    for line in failed[:25]:
        print("  FAULT", line["door"], line["case"], "|", "; ".join(line["faults"])[:160])
    print("worst error (bf16: times torch flash; f32 and soft cap: relative)")
    for kind, row in worst.items():
        print(f"  {kind:18}", "  ".join(f"{n} {v:.3g}" for n, v in row.items()))
    return {"lines": lines, "worst": worst}


def median_ms(f, reps=15):
    for _ in range(3):
        f()
    times = []
    for _ in range(reps):
        a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        a.record()
        f()
        b.record()
        torch.cuda.synchronize()
        times.append(a.elapsed_time(b))
    return statistics.median(times)


def job_rows():
    g = torch.Generator().manual_seed(1)
    return torch.randint(40, 161, (16,), generator=g).tolist()


SHAPES = {
    "4x4096 32/32": dict(rows=[4096] * 4, heads=32, kv_heads=32, prefix=0),
    "4x4096 32/8": dict(rows=[4096] * 4, heads=32, kv_heads=8, prefix=0),
    "4x2048 32/8": dict(rows=[2048] * 4, heads=32, kv_heads=8, prefix=0),
    "job: 600 + 16 rows": dict(rows=job_rows(), heads=32, kv_heads=8, prefix=600),
}


def time_ours(kernels, doors):
    lines = []
    print(f"\n{'shape, hd 128':20} {'door':5} {'fwd ms':>8} {'delta':>7} {'dq':>8} {'dkv':>8} | TFLOP/s: {'fwd':>5} {'bwd':>5} {'both':>5}")
    for name, shape in SHAPES.items():
        for door in doors:
            a = Attention(kernels, packed(shape["rows"]), head_dim=128, door=door, **{k: v for k, v in shape.items() if k != "rows"})
            try:
                fwd, delta, dq, dkv = (median_ms(f) for f in (a.forward, a.delta_pass, a.dq_pass, a.dkv_pass))
            except KeyError as e:
                print(f"{name:20} {door:5} no kernel {e}")
                continue
            both = median_ms(lambda: (a.forward(), a.backward()))
            g = a.flops() / 1e9
            row = dict(shape=name, door=door, fwd_ms=fwd, delta_ms=delta, dq_ms=dq, dkv_ms=dkv, both_ms=both, fwd=g / fwd,
                       bwd=2.5 * g / (delta + dq + dkv), both=3.5 * g / both, splits=a.splits)
            lines.append(row)
            print(f"{name:20} {door:5} {fwd:8.3f} {delta:7.3f} {dq:8.3f} {dkv:8.3f} |          {row['fwd']:5.0f} {row['bwd']:5.0f} {row['both']:5.0f}")
    return lines


def time_torch():
    from torch.nn.attention import SDPBackend, sdpa_kernel
    lines = []
    q, k, v, d = (torch.randn(4, 32, 4096, 128, device="cuda", dtype=torch.bfloat16, requires_grad=i < 3) for i in range(4))
    g = 4 * 4 * 32 * 4096 * 4097 / 2 * 128 / 1e9
    for name, backend in (("flash-2", SDPBackend.FLASH_ATTENTION), ("cudnn", SDPBackend.CUDNN_ATTENTION)):
        with sdpa_kernel(backend):
            def both():
                o = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
                torch.autograd.grad(o, (q, k, v), d)
            with torch.no_grad():
                fwd = median_ms(lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True))
            ms = median_ms(both)
        lines.append(dict(peer=name, fwd=g / fwd, bwd=2.5 * g / (ms - fwd), both=3.5 * g / ms))
        print(f"{'4x4096 32/32':20} torch {name:8} TFLOP/s: fwd {g / fwd:.0f} bwd {2.5 * g / (ms - fwd):.0f} both {3.5 * g / ms:.0f}")
    return lines


def small(kernels, doors):
    for door in doors:
        for hd in (64, 128, 256) if door == "mma" else (128,):
            for rows, prefix, window in (([65, 7], 63, 0), ([130], 0, 50), ([40, 1], 130, 100)):
                a = Attention(kernels, packed(rows), heads=4, kv_heads=2, head_dim=hd, prefix=prefix, window=window, door=door)
                run_once(a)
    a = Attention(kernels, packed([9, 5]), heads=4, kv_heads=2, head_dim=16, prefix=3, dtype=torch.float32)
    run_once(a)
    print("small: done")


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--kernels", required=True)
    args.add_argument("--out", required=True)
    args.add_argument("--doors", default="mma")
    args.add_argument("parts", nargs="*", default=["check", "time"])
    args = args.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    kernels, doors = Kernels(args.kernels), args.doors.split(",")
    result = {"card": torch.cuda.get_device_name(), "torch": torch.__version__}
    print(result["card"], result["torch"])
    if "small" in args.parts:
        small(kernels, doors)
    if "check" in args.parts:
        result["check"] = check(kernels, doors)
    if "time" in args.parts:
        result["time"] = time_ours(kernels, doors)
        result["torch_time"] = time_torch()
    pathlib.Path(args.out, "attention.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
