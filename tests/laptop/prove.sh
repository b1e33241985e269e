#!/usr/bin/env bash
# Proves the promises of the laptop profile on the real model, and prints a line for each.
#
#   tests/laptop/prove.sh cold    one cold run: its wall clock, peak memory, scores; then what reruns
#   tests/laptop/prove.sh kill    kill -9 in the middle of training; other threads, folder, time, locale
#   tests/laptop/prove.sh remote  a second checkout with an empty cache, from S3; then with half of all requests failing
#                                 (STEPS=6 trains that many steps only; needs `moto[server]` in TUNESMITH_PYTHON)
#
# Promises: works on copies of the tree's committed files in a scratch folder, never in the tree; ends with 1 at
# the first promise that does not hold. `cold` takes as long as a laptop run, `kill` a few minutes. Needs a
# release build (`cargo build --release`) and python3. Must not know: how the cache or the engine work.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
bin=${TUNESMITH:-${CARGO_TARGET_DIR:-$root/target}/release/tunesmith}
work=$(mktemp -d "${TMPDIR:-/tmp}/prove.XXXX")
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT

copy() { mkdir -p "$1" && git -C "$root" archive HEAD pipeline.yaml data | tar x -C "$1"; }
say() { printf '%-58s %s\n' "$1" "$2"; }
fail() { say "$1" "DOES NOT HOLD: $2"; exit 1; }
edit() { python3 - "$@" <<'PY'
import re, sys
path, old, new = sys.argv[1:4]
text = open(path, encoding="utf-8").read()
if not re.search(old, text, flags=re.M):
    sys.exit(f"{path} has nothing like {old}")
open(path, "w", encoding="utf-8").write(re.sub(old, new, text, count=1, flags=re.M))
PY
}
# Runs, and prints the stages that were executed, sorted, on one line. A missed gate is no fault here.
executed() {
    local code=0
    "$bin" run --json "$@" > "$work/events.jsonl" || code=$?
    [ "$code" = 0 ] || [ "$code" = 3 ] || { tail -5 "$work/events.jsonl" >&2; exit 1; }
    python3 - "$work/events.jsonl" <<'PY'
import json, sys
events = [json.loads(line) for line in open(sys.argv[1])]
print(*sorted({e["stage"] for e in events if e["type"] == "stage-done"}))
PY
}
expect() { # WHAT WANTED FOUND
    if [ "$2" = "$3" ]; then say "$1" "${3:-nothing runs}"; else fail "$1" "wanted '${2:-nothing}', ran '$3'"; fi
}
quick() { edit pipeline.yaml '^  max_steps: \S+' '  max_steps: 6'; }

# The largest resident set, in KiB, that any process of the command had while PID ran.
watch_memory() { # PID
    local peak=0 now
    while kill -0 "$1" 2>/dev/null; do
        for status in /proc/[0-9]*/status; do
            now=$(awk '/^Name:.*tunesmith/ {ours = 1} ours && /^VmHWM:/ {print $2}' "$status" 2>/dev/null || true)
            [ "${now:-0}" -le $peak ] || peak=$now
        done
        sleep 1
    done
    echo $peak
}

cold() {
    copy "$work/a" && cd "$work/a"
    local code=0 begun=$SECONDS
    "$bin" &
    local run=$!
    watch_memory $run > "$work/peak" &
    wait $run || code=$?
    [ "$code" = 0 ] || [ "$code" = 3 ] || exit "$code"
    say "cold run, downloads included" "$((SECONDS - begun)) s, exit code $code (3: a gate)"
    wait
    say "peak memory of its largest process" "$(($(cat "$work/peak") / 1024)) MiB"
    "$bin" log eval | tail -40
    reruns
}

reruns() {
    expect "second run" "" "$(executed)"
    python3 - "$bin" <<'PY'
import subprocess, sys, time
def once():
    begun = time.perf_counter()
    subprocess.run([sys.argv[1]], stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun
times = sorted(once() for _ in range(11))
print(f"{'second run, median of 11':<58} {times[5] * 1000:.1f} ms ({times[0] * 1000:.1f} to {times[-1] * 1000:.1f})")
PY
    rm -r out/laptop/export
    expect "an output is deleted: shown again, nothing runs" "" "$(executed)"
    test -s out/laptop/export/adapter/adapter_model.safetensors || fail "deleted output" "it did not come back"
    edit pipeline.yaml '^  gate_tools: [\d.]+' '  gate_tools: 0.5'
    expect "a changed gate" "" "$(executed)"
    edit pipeline.yaml '^seed: 7' '# a remark\nseed: 7'
    expect "a changed comment" "" "$(executed)"
    edit pipeline.yaml '^      r: \$\{rank\}\n      alpha: (.*)$' '      alpha: \1\n      r: ${rank}'
    expect "a changed order of keys" "" "$(executed)"
    edit pipeline.yaml '^      dropout: \$\{dropout\}' '      dropout: ${dropout}\n      schedule: cosine'
    expect "a default written out" "" "$(executed)"
    cp pipeline.yaml "$work/before.yaml"
    quick
    edit pipeline.yaml '^  lr: \S+' '  lr: 1e-3'
    expect "a changed learning rate" "eval export train" "$(executed)"
    cp "$work/before.yaml" pipeline.yaml
    expect "changed back" "" "$(executed)"
    quick
    edit data/examples/general.jsonl '"content": "' '"content": "Hm. '
    local ran; ran=$(executed)
    case $ran in
        *hand*validate*) say "a changed hand-written row: its own branch" "$ran" ;;
        *) fail "a changed hand-written row" "ran '$ran'" ;;
    esac
}

adapter() { sha256sum < out/laptop/train/adapter/adapter_model.safetensors | cut -c1-16; }
same() { if [ "$2" = "$3" ]; then say "$1" "byte-equal ($2)"; else fail "$1" "$2 and $3"; fi; }

kill_and_compare() {
    copy "$work/a" && cd "$work/a" && quick
    "$bin" run train > /dev/null
    local whole; whole=$(adapter)
    say "six steps, uninterrupted" "$whole"

    copy "$work/another folder" && cd "$work/another folder" && quick
    edit pipeline.yaml '^      eval_every: (.*)$' '      eval_every: \1\n      save_every: 1'
    "$bin" run train > "$work/killed.log" 2>&1 &
    local pid=$!
    for _ in $(seq 600); do
        grep -qs 'step 3/6' .tunesmith/logs/laptop/train.log && break
        sleep 0.5
    done
    grep -q 'step 3/6' .tunesmith/logs/laptop/train.log || fail "kill -9" "training never came to step 3"
    kill -9 $pid $(pgrep -g "$(ps -o pgid= -p $pid | tr -d ' ')" tunesmith 2>/dev/null) 2>/dev/null || true
    wait $pid 2>/dev/null || true
    test ! -e out/laptop/train || fail "kill -9" "there is a result already"
    LC_ALL=de_DE.UTF-8 TZ=Asia/Tokyo "$bin" run train > "$work/resumed.log" 2>&1
    grep -iE 'resum|goes on' .tunesmith/logs/laptop/train.log | head -1 || true
    same "killed in step 4, resumed, other folder, time zone, locale" "$whole" "$(adapter)"
    "$bin" cache verify > /dev/null || fail "cache verify" "the store is damaged"
    say "cache verify after the kill" "clean"

    copy "$work/one thread" && cd "$work/one thread" && quick
    taskset -c 0 "$bin" run --pool cpu=1 train > /dev/null
    same "one thread" "$whole" "$(adapter)"
}

remote_of() { # PORT
    printf 'remote: { url: s3://bucket/cache, push: true, endpoint: "http://127.0.0.1:%s" }\n' "$1" >> pipeline.yaml
    [ -z "${STEPS:-}" ] || edit pipeline.yaml '^  max_steps: \S+' "  max_steps: $STEPS"
}
remote() {
    export AWS_ACCESS_KEY_ID=testing AWS_SECRET_ACCESS_KEY=testing AWS_REGION=us-east-1
    local sound failing all
    mkfifo "$work/stop"
    "${TUNESMITH_PYTHON:-python3}" "$root/tests/laptop/s3.py" < "$work/stop" > "$work/ports" &
    local server=$!
    exec 9> "$work/stop"
    until read -r sound failing 2>/dev/null < "$work/ports"; do sleep 0.2; kill -0 $server || fail "moto" "it ended"; done
    curl -fsS -X PUT "http://127.0.0.1:$sound/bucket" > /dev/null

    copy "$work/a" && cd "$work/a" && remote_of "$sound"
    all=$(executed)
    say "first checkout, pushed" "$all"
    second "$sound" "second checkout, empty cache"
    second "$failing" "third checkout, half of all requests fail"
    exec 9>&-
    wait $server
}
second() { # PORT WHAT
    copy "$work/of $1" && cd "$work/of $1" && remote_of "$1"
    local begun=$SECONDS
    expect "$2" "" "$(executed)"
    cmp "$work/a/out/laptop/export/adapter/adapter_model.safetensors" out/laptop/export/adapter/adapter_model.safetensors \
        || fail "$2" "another adapter"
    "$bin" cache verify > /dev/null || fail "$2" "the store is damaged"
    say "  its seconds, its store" "$((SECONDS - begun)) s, $(du -sm .tunesmith | cut -f1) MiB"
}

case ${1:-} in
    cold) cold ;;
    kill) kill_and_compare ;;
    remote) remote ;;
    *) sed -n '2,12p' "$0"; exit 2 ;;
esac
