#!/usr/bin/env python3
"""Whole-process times of hashing inputs, beside b3sum and DVC.

    big     one file, read for the first time (in the page cache, unknown to the tool)
    small   a folder of many 1 KiB files, nothing changed since the last run
    one     the same after one of them was rewritten

tunesmith is asked with `plan`, which hashes what it does not know and runs nothing; how many files
it opened in the folder is counted with strace, where that is installed. Programs: TUNESMITH,
B3SUM, DVC.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from graph import ROOT, quiet, timed

PIPELINE = """name: hashing
stages:
  big: { run: "wc -c < ${inputs.x} > ${outputs.it}", inputs: { x: ./big.bin }, outputs: { it: it.txt } }
  small: { run: "ls ${inputs.x} > ${outputs.it}", inputs: { x: ./small/ }, outputs: { it: it.txt } }
"""


def fill(folder, mebibytes, files):
    (folder / "pipeline.yaml").write_text(PIPELINE)
    block = os.urandom(1 << 20)
    with open(folder / "big.bin", "wb") as out:
        for at in range(mebibytes):
            out.write(at.to_bytes(8, "little") + block[8:])
    (folder / "small").mkdir()
    for at in range(files):
        (folder / f"small/{at:06}.txt").write_bytes(b"%08d" % at * 128)
    os.sync()


def show(what, walls, against=None):
    walls, against = list(walls), list(against or [])
    ratio = ""
    if against:
        ratio = f"{statistics.median(a / b for a, b in zip(walls, against)):.2f}"
    low, middle, high = min(walls), statistics.median(walls), max(walls)
    print(f"| {what:<42} | {1e3 * middle:9.1f} | {1e3 * low:9.1f} | {1e3 * high:9.1f} | {ratio:>5} |", flush=True)


def opened(command, folder):
    """How many files below small/ a run opens."""
    if shutil.which("strace") is None:
        return None
    log = folder / ".strace"
    quiet(["strace", "-f", "-e", "trace=openat,open", "-o", str(log), *command], folder)
    return sum("small/0" in line for line in log.read_text().splitlines())


def big(folder, ours, b3sum, runs):
    mine, theirs = [], []
    for _ in range(runs):
        for left in (".tunesmith/index",):
            (folder / left).unlink(missing_ok=True)
        mine.append(timed([ours, "plan", "big"], folder)[0])
        if b3sum:
            theirs.append(timed([b3sum, "big.bin"], folder)[0])
    if b3sum:
        show("b3sum, big", theirs)
    show("tunesmith plan, big (x b3sum)", mine, theirs)


def small(folder, ours, runs):
    plan = [ours, "plan", "small"]
    timed(plan, folder)
    time.sleep(0.3)
    timed(plan, folder)
    show("tunesmith plan, small, nothing changed", [timed(plan, folder)[0] for _ in range(runs)])
    walls = []
    for _ in range(runs):
        (folder / "small/000007.txt").write_text(f"{time.time_ns()}\n")
        time.sleep(0.3)
        walls.append(timed(plan, folder)[0])
    show("tunesmith plan, small, one changed", walls)
    print(f"files of small/ opened when nothing changed: {opened(plan, folder)}")
    (folder / "small/000008.txt").write_text(f"{time.time_ns()}\n")
    time.sleep(0.3)
    print(f"files of small/ opened when one changed: {opened(plan, folder)}")


def dvc(folder, program, runs):
    quiet(["git", "init", "-q"], folder)
    quiet([program, "init", "-q"], folder)
    quiet([program, "config", "core.analytics", "false"], folder)
    quiet([program, "add", "-q", "small"], folder)
    status = [program, "status", "-q"]
    show("dvc status, small, nothing changed", [timed(status, folder)[0] for _ in range(runs)])
    show("dvc add, big", [timed([program, "add", "-q", "big.bin"], folder)[0]])


def main():
    asked = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    asked.add_argument("--mebibytes", type=int, default=2048)
    asked.add_argument("--files", type=int, default=10_000)
    asked.add_argument("--runs", type=int, default=5)
    asked.add_argument("--folder", help="where the files are made; removed afterwards")
    args = asked.parse_args()
    ours = os.path.abspath(os.environ.get("TUNESMITH", str(ROOT / "target/release/tunesmith")))
    b3sum = shutil.which(os.environ.get("B3SUM", "b3sum"))
    other = shutil.which(os.environ.get("DVC", "dvc"))
    folder = Path(tempfile.mkdtemp(prefix="hash-bench-", dir=args.folder))
    try:
        fill(folder, args.mebibytes, args.files)
        print("| case                                       | median ms |       min |       max | ratio |")
        print("|---|---|---|---|---|")
        big(folder, ours, b3sum, args.runs)
        small(folder, ours, args.runs)
        if other:
            dvc(folder, os.path.abspath(other), min(3, args.runs))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
