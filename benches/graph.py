#!/usr/bin/env python3
"""Whole-process times of tunesmith and of other build tools on one graph, beside each other.

The graph of N stages, each a `cp` of one small file: a chain of max(3, N/10) stages that begins
at in/root.txt, a fan from the chain's end, and one stage by itself that reads in/leaf.txt.

    noop   everything is up to date; tunesmith has looked at every output in out/
    leaf   in/leaf.txt was rewritten: one stage runs
    cold   nothing was ever made: every stage runs (the outputs have names of their own, so that
           no stage has another one's key and could take its result); with --distinct the bytes of
           the outputs differ as well (`cp` and a line more), so that each is a blob of its own

Tools that are not found are left out: point NINJA, SNAKEMAKE and DVC at theirs (`ninja`,
`snakemake` and `dvc` from PyPI, each in an environment of its own). Every run's outputs are
compared with what they must be, outside the clock. Tools take turns within a round, so that a
machine whose speed drifts slows all of them. Prints the median wall clock of every cell, the
processor time, and the median of the rounds' ratios to ninja's run of the same round. Of a cold run of
tunesmith it prints how many syncs the run says it made.

What it must not know: how tunesmith works.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
QUIET = {"DVC_NO_ANALYTICS": "1", "DO_NOT_TRACK": "1"}


def shape(n):
    """(stage, input, output) of every stage; outputs are named by their stage."""
    chain = max(3, n // 10)
    stages = [("c0", "in/root.txt")]
    stages += [(f"c{at}", f"c{at - 1}") for at in range(1, chain)]
    stages += [(f"f{at}", f"c{chain - 1}") for at in range(n - chain - 1)]
    return [*stages, ("leaf", "in/leaf.txt")]


def flat(source):
    """An input as tools see it that know files only."""
    return source if "/" in source else f"out/{source}.txt"


def command(stage, source, out, distinct):
    """What a stage does, for a shell."""
    return f"cat {source} > {out}; echo {stage} >> {out}" if distinct else f"cp {source} {out}"


class Tool:
    """How one tool is told of the graph, called, and where its outputs lie."""

    name = ""
    program = ""
    # A cold run of more stages takes minutes or hours: it is made up (`prime`) or left out.
    cold_up_to = 10_000
    most = 10_000
    can_be_distinct = False

    def __init__(self, program, distinct=False):
        self.program = program
        self.distinct = distinct

    def output(self, stage):
        return f"out/{stage}.txt"

    def command(self):
        return [self.program]

    def write(self, folder, n):
        raise NotImplementedError

    def prime(self, _folder, _n):
        raise NotImplementedError

    def told(self, _folder):
        """What the tool itself says of its last run."""
        return ""


class Tunesmith(Tool):
    name = "tunesmith"
    can_be_distinct = True

    def output(self, stage):
        return f"out/default/{stage}/{stage}.txt"

    def told(self, folder):
        last = max((folder / ".tunesmith/runs").iterdir(), key=lambda run: int(run.stem))
        syncs = json.loads(last.read_text().splitlines()[-1]).get("syncs")
        return "" if syncs is None else f"{syncs} syncs"

    def write(self, folder, n):
        lines = ["name: graph", "stages:"]
        for stage, source in shape(n):
            source = f"./{source}" if "/" in source else source
            run = command(stage, "${inputs.it}", "${outputs.it}", self.distinct)
            lines.append(
                f'  {stage}: {{ run: "{run}", '
                f"inputs: {{ it: {source} }}, outputs: {{ it: {stage}.txt }} }}"
            )
        (folder / "pipeline.yaml").write_text("\n".join(lines) + "\n")


class Ninja(Tool):
    name = "ninja"
    can_be_distinct = True

    def command(self):
        return [self.program, "-j2"]

    def write(self, folder, n):
        lines = ["rule cp", f"  command = {command('$stage', '$in', '$out', self.distinct)}"]
        for stage, source in shape(n):
            lines.append(f"build {self.output(stage)}: cp {flat(source)}")
            lines += [f"  stage = {stage}"] if self.distinct else []
        (folder / "build.ninja").write_text("\n".join(lines) + "\n")


class Make(Tool):
    name = "make"
    can_be_distinct = True

    def command(self):
        return [self.program, "-j2"]

    def write(self, folder, n):
        stages = shape(n)
        lines = ["all: " + " ".join(self.output(stage) for stage, _ in stages)]
        for stage, source in stages:
            out, source = self.output(stage), flat(source)
            lines.append(f"{out}: {source}\n\t{command(stage, source, out, self.distinct)}")
        (folder / "Makefile").write_text("\n".join(lines) + "\n")


class Snakemake(Tool):
    name = "snakemake"
    most = 1000

    def command(self):
        return [self.program, "--cores", "2"]

    def write(self, folder, n):
        stages = shape(n)
        every = ", ".join(f'"{self.output(stage)}"' for stage, _ in stages)
        lines = [f"rule all:\n    input: {every}"]
        for stage, source in stages:
            lines.append(
                f'rule {stage}:\n    input: "{flat(source)}"\n    output: "{self.output(stage)}"\n'
                '    shell: "cp {input} {output}"'
            )
        (folder / "Snakefile").write_text("\n".join(lines) + "\n")


class Dvc(Tool):
    name = "dvc"
    most = 1000
    cold_up_to = 100

    def command(self):
        return [self.program, "repro"]

    def write(self, folder, n):
        quiet(["git", "init", "-q"], folder)
        quiet([self.program, "init", "-q"], folder)
        for setting in ("core.analytics", "core.check_update"):
            quiet([self.program, "config", setting, "false"], folder)
        lines = ["stages:"]
        for stage, source in shape(n):
            out, source = self.output(stage), flat(source)
            lines.append(
                f"  {stage}:\n    cmd: cp {source} {out}\n    deps: [{source}]\n    outs: [{out}]"
            )
        (folder / "dvc.yaml").write_text("\n".join(lines) + "\n")

    def prime(self, folder, n):
        """The state after `dvc repro`, written directly: it would take minutes to be made."""
        import hashlib

        def digest(path):
            data = (folder / path).read_bytes()
            found = hashlib.md5(data).hexdigest()
            blob = folder / ".dvc/cache/files/md5" / found[:2] / found[2:]
            if not blob.exists():
                blob.parent.mkdir(parents=True, exist_ok=True)
                blob.write_bytes(data)
                blob.chmod(0o444)
            return found, len(data)

        lines = ["schema: '2.0'", "stages:"]
        for stage, source in shape(n):
            out, source = self.output(stage), flat(source)
            shutil.copyfile(folder / source, folder / out)
            lines += [f"  {stage}:", f"    cmd: cp {source} {out}"]
            for section, path in (("deps", source), ("outs", out)):
                found, size = digest(path)
                lines += [
                    f"    {section}:",
                    f"    - path: {path}\n      hash: md5\n      md5: {found}\n      size: {size}",
                ]
        (folder / "dvc.lock").write_text("\n".join(lines) + "\n")


def quiet(command, folder):
    nothing = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run(command, check=True, cwd=folder, env={**os.environ, **QUIET}, **nothing)


def timed(command, folder):
    """Wall and processor seconds of one whole process and its children."""
    log = folder / ".bench-output"
    env = {**os.environ, **QUIET}
    here = os.getcwd()
    os.chdir(folder)
    try:
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        began = time.perf_counter()
        child = os.posix_spawn(command[0], command, env, file_actions=actions)
        _, status, usage = os.wait4(child, 0)
        wall = time.perf_counter() - began
    finally:
        os.chdir(here)
    if status != 0:
        sys.exit(f"{command} in {folder} ended with {status}:\n{log.read_text()[-3000:]}")
    return wall, usage.ru_utime + usage.ru_stime


def fresh(tool, folder, n):
    """A project in which nothing was made."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "in").mkdir(parents=True)
    (folder / "out").mkdir()
    (folder / "in/root.txt").write_text("root 0\n")
    (folder / "in/leaf.txt").write_text("leaf 0\n")
    tool.write(folder, n)
    os.sync()


def check(tool, folder, n):
    """Every output holds what it must."""
    texts = {f"in/{name}.txt": (folder / f"in/{name}.txt").read_text() for name in ("root", "leaf")}
    for stage, source in shape(n):
        texts[stage] = texts[source] + (f"{stage}\n" if tool.distinct else "")
        if (folder / tool.output(stage)).read_text() != texts[stage]:
            sys.exit(f"{tool.name}: the output of {stage} is wrong in {folder}")


def tools(wanted, distinct):
    built = os.environ.get("TUNESMITH", str(ROOT / "target/release/tunesmith"))
    named = [
        (Tunesmith, built),
        (Ninja, os.environ.get("NINJA", "ninja")),
        (Make, os.environ.get("MAKE", "make")),
        (Snakemake, os.environ.get("SNAKEMAKE", "snakemake")),
        (Dvc, os.environ.get("DVC", "dvc")),
    ]
    for kind, program in named:
        found = shutil.which(program)
        if found is None:
            print(f"{kind.name} is not here: left out", file=sys.stderr)
        elif kind.name in wanted and (kind.can_be_distinct or not distinct):
            yield kind(os.path.abspath(found), distinct)


def one_round(tool, folder, n, what):
    if what == "cold":
        fresh(tool, folder, n)
    elif what == "leaf":
        # Past any coarse clock that tells an old file from a new one.
        time.sleep(0.02)
        (folder / "in/leaf.txt").write_text(f"leaf {time.time_ns()}\n")
    seconds = timed(tool.command(), folder)
    if what != "noop":
        check(tool, folder, n)
    return seconds


def place(base, tool, n, what, at):
    """Cold runs have a folder each, which stays until all are over: ext4 uses no inode again that went
    within the last minute and looks at each of them, so that removing the last project would be
    paid for by whoever makes files next."""
    return base / (f"{tool.name}-{n}-cold-{at}" if what == "cold" else f"{tool.name}-{n}")


def measure(every, base, n, what, runs, slow):
    """[(tool, [(wall, cpu)])], the tools in turn; and what tools say of their last runs."""
    taken = {tool.name: [] for tool in every}
    said = {}
    for at in range(runs):
        for tool in every:
            limit = tool.cold_up_to if what == "cold" else tool.most
            if n > limit or (isinstance(tool, (Snakemake, Dvc)) and at >= slow):
                continue
            folder = place(base, tool, n, what, at)
            taken[tool.name].append(one_round(tool, folder, n, what))
            said[tool.name] = tool.told(folder) if what == "cold" else ""
    for folder in base.glob(f"*-{n}-cold-*"):
        shutil.rmtree(folder)
    return taken, said


def prepared(every, base, n):
    """Every project brought up to date, and looked at once more."""
    for tool in every:
        if n > tool.most:
            continue
        folder = base / f"{tool.name}-{n}"
        fresh(tool, folder, n)
        if n > tool.cold_up_to:
            tool.prime(folder, n)
        timed(tool.command(), folder)
        check(tool, folder, n)
        time.sleep(0.2)
        timed(tool.command(), folder)


def machine():
    """How many cores, and how busy: processors' share of the last second that others used."""
    def ticks():
        fields = [int(word) for word in Path("/proc/stat").read_text().split("\n")[0].split()[1:8]]
        return sum(fields), fields[3] + fields[4]
    whole, idle = ticks()
    time.sleep(1)
    later, free = ticks()
    busy = 1 - (free - idle) / max(1, later - whole)
    return f"{os.cpu_count()} cores, {100 * busy:.0f} % busy before the first run"


def rows(taken, n, what):
    floor = [wall for wall, _ in taken.get("ninja", [])]
    own = [wall for wall, _ in taken.get("tunesmith", [])]
    for name, found in taken.items():
        if not found:
            continue
        walls = [wall for wall, _ in found]
        cpu = statistics.median(cpu for _, cpu in found)
        against = [wall / low for wall, low in zip(walls, floor)]
        times = [wall / mine for wall, mine in zip(walls, own)]
        yield (
            f"{n:>6}", what, f"{name:<10}", f"{1e3 * statistics.median(walls):>9.1f}",
            f"{1e3 * min(walls):>9.1f}", f"{1e3 * max(walls):>9.1f}", f"{1e3 * cpu:>9.1f}",
            f"{statistics.median(against):>7.2f}" if against else "",
            f"{statistics.median(times):>7.2f}" if times else "",
        )


def main():
    asked = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    asked.add_argument("--n", default="100,1000,10000", help="stages, comma-separated")
    asked.add_argument("--what", default="noop,leaf,cold")
    asked.add_argument("--tools", default="tunesmith,ninja,make,snakemake,dvc")
    asked.add_argument("--runs", type=int, default=9)
    asked.add_argument("--slow", type=int, default=3, help="runs of Snakemake and DVC")
    asked.add_argument("--cold-up-to", type=int, default=1000, help="stages of cold runs, at most")
    asked.add_argument("--distinct", action="store_true", help="no two outputs of the same bytes")
    asked.add_argument("--folder", help="where the projects are made; kept afterwards")
    args = asked.parse_args()
    every = list(tools(args.tools.split(","), args.distinct))
    made = Path(args.folder or tempfile.mkdtemp(prefix="graph-bench-")).absolute()
    print(machine(), end="\n\n")
    print("| stages | case | tool | median ms | min | max | cpu ms | x ninja | x tunesmith |")
    print("|---|---|---|---|---|---|---|---|---|")
    try:
        for n in map(int, args.n.split(",")):
            prepared(every, made, n)
            for what in args.what.split(","):
                if what == "cold" and n > args.cold_up_to:
                    continue
                taken, said = measure(every, made, n, what, args.runs, args.slow)
                for row in rows(taken, n, what):
                    print("| " + " | ".join(row) + " |", flush=True)
                for name, words in said.items():
                    if words:
                        print(f"{name}, {n} stages cold: {words}", flush=True)
    finally:
        if not args.folder:
            shutil.rmtree(made, ignore_errors=True)


if __name__ == "__main__":
    main()
