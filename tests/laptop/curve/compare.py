"""Our loss curve beside PEFT's: a table, a verdict, and if asked for a CSV file and a drawing.

    python3 compare.py FOLDER OURS.json [--csv FILE] [--svg FILE]     ours against PEFT's noise
    python3 compare.py FOLDER OURS.json --exact 1e-4                  ours in f32 against PEFT in f32

FOLDER holds `peft-f32.json` and `peft-bf16.json`, as `train_peft.py` leaves them; OURS is the report of the stage `train`. The
yardstick of noise is PEFT itself: how far its bf16 curve lies from its f32 curve on the same four-bit base. Ours may lie
twice as far from that f32 curve, by root mean square over the steps: rounding is another one, and one run is one draw.
Rates and labels of every step must be equal, or other rows were trained on. Ends with 1 if the curves differ. Needs
nothing but Python.
"""

import argparse
import json
import math
import os
import sys

ALLOWED = 2.0
SHOWN = 10
COLOURS = {"ours": "#c0392b", "PEFT bf16": "#2471a3", "PEFT f32": "#7f8c8d"}


def read(path):
    with open(path) as file:
        return json.load(file)["steps"]


def curves(folder, ours):
    """Name to records, cut to the steps that all have; f32 last."""
    found = {"ours": read(ours)}
    for name in ("bf16", "f32"):
        if os.path.exists(f"{folder}/peft-{name}.json"):
            found[f"PEFT {name}"] = read(f"{folder}/peft-{name}.json")
    steps = min(len(records) for records in found.values())
    return {name: records[:steps] for name, records in found.items()}


def other_rows(found):
    """The first step that did not train on the same labels at the same rate, if there is one."""
    for records in zip(*found.values()):
        first = records[0]
        for record in records[1:]:
            if record["labels"] != first["labels"] or not math.isclose(record["lr"], first["lr"], rel_tol=1e-9):
                return first["step"]
    return None


def apart(found, one, other):
    """Differences of two curves, step by step."""
    return [a["loss"] - b["loss"] for a, b in zip(found[one], found[other])]


def summed(differences):
    """Largest, mean and root mean square."""
    sizes = [abs(d) for d in differences]
    return max(sizes), sum(sizes) / len(sizes), math.sqrt(sum(d * d for d in sizes) / len(sizes))


def table(found):
    names = list(found)
    print("step  " + "".join(f"{name:>12}" for name in names))
    for records in zip(*found.values()):
        step = records[0]["step"]
        if step <= 3 or step % SHOWN == 0 or step == len(found["ours"]):
            print(f"{step:4}  " + "".join(f"{record['loss']:12.5f}" for record in records))
    print(f"\n{'apart':24}{'largest':>10}{'mean':>10}{'rms':>10}")
    for at, one in enumerate(names):
        for other in names[at + 1:]:
            figures = "".join(f"{figure:10.2e}" for figure in summed(apart(found, one, other)))
            print(f"{one + ' - ' + other:24}{figures}")


def csv(found, path):
    with open(path, "w") as file:
        file.write("step," + ",".join(name.replace(" ", "_") for name in found) + "\n")
        for records in zip(*found.values()):
            file.write(f"{records[0]['step']}," + ",".join(f"{record['loss']:.6f}" for record in records) + "\n")


def svg(found, path):
    wide, high, edge = 720, 320, 40
    top = max(record["loss"] for records in found.values() for record in records)
    steps = max(len(found["ours"]) - 1, 1)

    def place(at, loss):
        return f"{edge + at / steps * (wide - 2 * edge):.1f},{high - edge - loss / top * (high - 2 * edge):.1f}"

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" font-family="sans-serif" '
             f'font-size="12"><rect width="{wide}" height="{high}" fill="white"/>']
    for loss in range(int(top) + 1):
        start, end = place(0, loss), place(steps, loss)
        parts.append(f'<polyline points="{start} {end}" stroke="#ddd"/>'
                     f'<text x="{edge - 16}" y="{float(start.split(",")[1]) + 4:.1f}">{loss}</text>')
    # The widest below, so that all three are seen where they coincide.
    for number, (name, records) in enumerate(reversed(found.items())):
        points = " ".join(place(at, record["loss"]) for at, record in enumerate(records))
        thick = 6 - 2 * number
        parts.append(f'<polyline points="{points}" fill="none" stroke="{COLOURS[name]}" stroke-width="{thick}"/>'
                     f'<text x="{wide - 160}" y="{edge + 16 * number}" fill="{COLOURS[name]}">{name}</text>')
    parts.append(f'<text x="{edge}" y="{high - 12}">loss of steps 1 to {len(found["ours"])}</text></svg>')
    with open(path, "w") as file:
        file.write("\n".join(parts) + "\n")


def verdict(found, exact):
    """Whether the curves agree, and in words why."""
    if exact is not None:
        far = max(abs(a["loss"] / b["loss"] - 1) for a, b in zip(found["ours"], found["PEFT f32"]))
        return far <= exact, f"farthest {far:.1e} of the loss, {exact:.0e} is allowed"
    ours = summed(apart(found, "ours", "PEFT f32"))[2]
    noise = summed(apart(found, "PEFT bf16", "PEFT f32"))[2]
    return ours <= ALLOWED * noise, f"{ours / noise:.2f} times PEFT's own noise, {ALLOWED:g} is allowed"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("ours")
    parser.add_argument("--csv")
    parser.add_argument("--svg")
    parser.add_argument("--exact", type=float)
    given = parser.parse_args()
    found = curves(given.folder, given.ours)
    if (step := other_rows(found)) is not None:
        sys.exit(f"step {step} had other labels or another rate: these are not the same run")
    table(found)
    if given.csv:
        csv(found, given.csv)
    if given.svg:
        svg(found, given.svg)
    same, why = verdict(found, given.exact)
    print(f"\n{'the same' if same else 'NOT the same'} over {len(found['ours'])} steps: {why}")
    sys.exit(0 if same else 1)


main()
