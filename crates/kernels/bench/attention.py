"""Checks the attention kernels against float64 and times them; `--help` lists the parts.

    python3 attention.py --kernels FOLDER_OF_FATBINS --out FOLDER [--doors mma,sm90] [look] [check] [time] [small]

look   a few shapes of one and two tiles, door by door: where an output is wrong, its error by blocks of 16 rows
       and 32 columns.

check  forward and backward over lengths, packed sets, prefixes, groups, head sizes and windows: every
       output finite after a NaN fill, equal bytes on a second run, root-mean-square error against float64
       at most twice that of torch's FlashAttention on the same values (separate rows, prefix repeated).
       Stops after --seconds and says so; ends with one line a kind of kernel: VERDICT kind PASS or FAIL.
time   CUDA events, median; torch's flash and cuDNN attention in the same run for comparison.
small  a handful of tiny shapes without torch's attention: for compute-sanitizer.
"""
import argparse
import json
import pathlib
import statistics
import time

import torch

from attention_driver import Attention, Builds
from attention_reference import FLOOR, flash, reference, relative, rms

def packed(lengths):
    cu = [0]
    for n in lengths:
        cu.append(cu[-1] + n)
    return cu


def run_once(a):
    a.poison()
    a.forward()
    a.backward()
    torch.cuda.synchronize()
    return a.results() | {"lse": a.lse.clone()}


def judge(a, got, again):
    """Errors by output (times torch's, or relative where torch has no such attention) and faults as (kind, text)."""
    faults = [("not finite", n) for n, x in got.items() if not torch.isfinite(x).all()]
    faults += [("second run differs", n) for n, x in got.items() if not torch.equal(x, again[n])]
    ref, errors = reference(a), {}
    off = (got["lse"].double() - ref["lse"]).abs().max().item()
    if not off < 2e-3:
        faults.append(("lse", f"off by {off:.1e}"))
    plain = a.dtype == torch.float32 or a.soft_cap
    peer = None if plain else flash(a)
    for n in (n for n in got if n != "lse"):
        if plain:
            errors[n], limit = relative(got[n], ref[n]), 1e-5 if a.dtype == torch.float32 else 1e-2
        else:
            errors[n], limit = rms(got[n], ref[n]) / max(rms(peer[n], ref[n]), FLOOR), 2.0
        if not errors[n] <= limit:
            faults.append((f"error of {n}", f"{errors[n]:.3g} (relative {relative(got[n], ref[n]):.1e})"))
    return errors, faults


PACKED = [1, 7, 64, 65, 127, 128, 300]


def cases(doors):
    """Rows and shape of every check; the quickest doors first."""
    for hd in (16, 64, 128, 256):
        for window, cap in ((0, 0.0), (50, 0.0), (0, 5.0)):
            yield dict(rows=PACKED, heads=8, kv_heads=2, head_dim=hd, prefix=63, window=window, soft_cap=cap,
                       dtype=torch.float32)
    for door in doors:
        for hd in (128, 64, 256) if door == "mma" else (128,):
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


def label_of(c):
    rows = "+".join(map(str, c["rows"])) if len(c["rows"]) < 3 else f"{len(c['rows'])} rows"
    return f"hd{c['head_dim']} {c['heads']}/{c['kv_heads']} heads, prefix {c['prefix']}, window {c['window']}, rows {rows}"


FATAL = ("illegal", "misaligned", "launch failure", "launch timed out", "unspecified", "hardware stack")


def group_of(c):
    """The row of the verdict that a case counts in."""
    shape = "packed" if len(c["rows"]) > 1 else "one row"
    parts = [shape, "prefix" if c["prefix"] else "no prefix"] + [n for n in ("window", "soft_cap") if c.get(n)]
    kind = "f32" if c.get("dtype") == torch.float32 else c["door"].partition("@")[0]
    return f"{kind} hd{c['head_dim']}", ", ".join(parts), f"{c['heads']}/{c['kv_heads']}"


def check(kernels, doors, seconds, head_dims, log):
    """Runs every case that `seconds` allow; says what each group's worst error is, and names every fault's kind."""
    todo = [c for c in cases(doors) if not head_dims or c["head_dim"] in head_dims]
    began, table, faults, done, stopped = time.time(), {}, [], 0, ""
    for c in todo:
        if time.time() - began > seconds:
            stopped = f"{seconds:.0f} s are over"
            break
        shape = {k: v for k, v in c.items() if k != "rows"}
        print("case", done, c["door"] if "door" in c else "f32", label_of(c), file=log, flush=True)
        try:
            a = Attention(kernels, packed(c["rows"]), seed=sum(c["rows"]) + c["prefix"], **shape)
            errors, found = judge(a, run_once(a), run_once(a))
        except Exception as e:  # a refused launch or a fault of the card: the next cases still count
            errors, found = {}, [("exception", f"{type(e).__name__}: {e}")]
        done += 1
        kind, group, heads = group_of(c)
        row = table.setdefault((kind, group), {"cases": 0, "bad": 0, "heads": set(), "worst": {}})
        row["cases"], row["bad"] = row["cases"] + 1, row["bad"] + bool(found)
        row["heads"].add(heads)
        for n, v in errors.items():
            row["worst"][n] = max(row["worst"].get(n, 0.0), v)
        for fault, text in found:
            print("  FAULT", fault, text, file=log, flush=True)
            faults.append((fault, kind, group, label_of(c), text))
        if any(f == "exception" and any(w in t for w in FATAL) for f, t in found):
            stopped = "the card is lost"
            break
    verdict(table, faults, done, len(todo), stopped, time.time() - began)
    rows = [dict(kind=k, group=g, cases=r["cases"], bad=r["bad"], worst=r["worst"]) for (k, g), r in table.items()]
    return {"rows": rows, "faults": faults, "done": done, "of": len(todo)}


def verdict(table, faults, done, of, stopped, seconds):
    print(f"\n{done} of {of} cases in {seconds:.0f} s{'; STOPPED: ' + stopped if stopped else ''}; {len(faults)} faults")
    print("worst error by group (bf16: times torch flash's, at most 2; f32 and soft cap: relative)")
    for (kind, group), r in sorted(table.items()):
        worst = " ".join(f"{n} {v:.2g}" for n, v in r["worst"].items())
        print(f"  {'BAD ' if r['bad'] else 'ok  '} {kind:10} {group:28} {r['cases'] - r['bad']}/{r['cases']}  {worst}")
    kinds = {}
    for fault, kind, *_ in faults:
        kinds[fault, kind] = kinds.get((fault, kind), 0) + 1
    for (fault, kind), n in sorted(kinds.items()):
        first = next(f for f in faults if f[:2] == (fault, kind))
        print(f"  FAULT {n:4} x {fault} ({kind}); first: {first[3]}: {first[4]}"[:230])
    for door in sorted({k for k, _ in table}):
        bad = any(k == door and r["bad"] for (k, _), r in table.items())
        print(f"VERDICT {door} {'FAIL' if bad or stopped == 'the card is lost' else 'PASS'}")


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
    print(f"\n{'shape, hd 128':20} {'door':16} {'fwd ms':>8} {'delta':>7} {'dq':>8} {'dkv':>8} | TFLOP/s: {'fwd':>5} {'bwd':>5} {'both':>5}")
    for name, shape in SHAPES.items():
        for door in doors:
            a = Attention(kernels, packed(shape["rows"]), head_dim=128, door=door, **{k: v for k, v in shape.items() if k != "rows"})
            try:
                fwd, delta, dq, dkv = (median_ms(f) for f in (a.forward, a.delta_pass, a.dq_pass, a.dkv_pass))
            except KeyError as e:
                print(f"{name:20} {door:16} no kernel {e}")
                continue
            both = median_ms(lambda: (a.forward(), a.backward()))
            g = a.flops() / 1e9
            row = dict(shape=name, door=door, fwd_ms=fwd, delta_ms=delta, dq_ms=dq, dkv_ms=dkv, both_ms=both, fwd=g / fwd,
                       bwd=2.5 * g / (delta + dq + dkv), both=3.5 * g / both, splits=a.splits)
            lines.append(row)
            print(f"{name:20} {door.rpartition('/')[2]:16} {fwd:8.3f} {delta:7.3f} {dq:8.3f} {dkv:8.3f} |          {row['fwd']:5.0f} {row['bwd']:5.0f} {row['both']:5.0f}")
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


LOOKS = [([64], 1, 1, 0), ([65], 1, 1, 0), ([128], 2, 1, 0), ([129], 1, 1, 0), ([300], 2, 2, 0), ([64], 1, 1, 64), ([200, 50], 2, 1, 130)]


def look(kernels, doors):
    """One line a shape and output; where it is wrong, a map of relative errors by block."""
    for door in doors:
        for rows, heads, kv, prefix in LOOKS:
            a = Attention(kernels, packed(rows), heads, kv, 128, prefix=prefix, door=door, seed=3)
            print(f"look {door} rows {rows} heads {heads}/{kv} prefix {prefix}:", end="", flush=True)
            got, ref = run_once(a), reference(a)
            print("", *(f"{n} {relative(x, ref[n]):.1e}" for n, x in got.items()), flush=True)
            for n, x in got.items():
                if n != "lse" and not relative(x, ref[n]) < 1e-2:
                    print_blocks(n, x[0].double(), ref[n][0])


def print_blocks(name, x, ref):
    size = ref.square().mean().sqrt()
    print(f"    {name}, head 0: rows by 16, columns by 32; wrong blocks show their first values, got and wanted")
    for r in range(0, min(x.shape[0], 320), 16):
        errors = [((x[r:r + 16, c:c + 32] - ref[r:r + 16, c:c + 32]).square().mean().sqrt() / size).item() for c in range(0, 128, 32)]
        print(f"    {r:5}", *(f"{e:8.1e}" for e in errors))
    bad = ((x - ref).abs() > 0.05 * size) | ~torch.isfinite(x)
    for r, c in bad.nonzero()[:4].tolist():
        print(f"      [{r},{c}] got", [round(v, 4) for v in x[r, c:c + 6].tolist()], "want", [round(v, 4) for v in ref[r, c:c + 6].tolist()])


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
    args.add_argument("--seconds", type=float, default=1e9, help="of the check")
    args.add_argument("--head-dims", default="", help="of the check, such as 64,128; default all")
    args.add_argument("parts", nargs="*", default=["check", "time"])
    args = args.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    kernels = Builds(args.kernels)
    doors = args.doors.split(",")
    result = {"card": torch.cuda.get_device_name(), "torch": torch.__version__}
    print(result["card"], result["torch"], flush=True)
    out = pathlib.Path(args.out)
    if "small" in args.parts:
        small(kernels, doors)
    if "look" in args.parts:
        look(kernels, doors)
    if "check" in args.parts:
        head_dims = {int(n) for n in args.head_dims.split(",") if n}
        with open(out / "attention_cases.log", "a") as log:
            result["check"] = check(kernels, doors, args.seconds, head_dims, log)
    if "time" in args.parts:
        result["time"] = time_ours(kernels, doors)
        result["torch_time"] = time_torch()
    (out / "attention.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
