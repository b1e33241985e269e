#!/usr/bin/env bash
# The loop that a user waits for: edit the learning rate, read new scores. The reference job of pipeline.yaml (profile
# mistral-7b: batch 16, dropout 0.05, QLoRA on a GPU) on rows made offline, an adapter of r = 16 on Mistral 7B's shape with random
# weights, one epoch, then 50 prompts of up to 200 ids. Prints every stage's seconds of a first run, of the run
# after an edit, and of a run with nothing to do.
#
#   benches/edit_loop.sh FOLDER TOKENIZER_FOLDER [LAYERS [GPUS]]
#
# BIN is the folder with `tunesmith` and its worker (default target/release, built with CUDA). FOLDER gets 15 GB of
# weights and as much again in the store. Gates fail, of course, and nothing is served.
#
# What it must not know: how a stage does its work.
set -euo pipefail
folder=$1 tokenizer=$(realpath "$2") layers=${3:-32} gpus=${4:-1}
root=$(cd "$(dirname "$0")/.." && pwd)
bin=$(realpath "${BIN:-$root/target/release}")
mkdir -p "$folder"
cd "$folder"
folder=$PWD
[ -d random-mistral ] || python3 "$root/benches/random_mistral.py" random-mistral "$tokenizer" "$layers"
cp -r "$root/data" .
head -50 "$root/data/eval/assistant.jsonl" > data/eval/assistant.jsonl
sed -e 's|^  base-mistral:|  base-random:\n    uses: fetch\n    inputs: { path: ./random-mistral }\n&|' \
    -e "s|^  train:|&\n    resources: { gpu: $gpus }|" "$root/pipeline.yaml" > pipeline.yaml
export TUNESMITH_STORE="$folder/store"
run() {
    echo "## $*"
    local begun=$EPOCHREALTIME
    "$bin/tunesmith" --profile mistral-7b run eval export --set base=base-random --set 'sources=[hand, grammar]' \
        --set grammar_rows=600 --set score_on=nf4 --set review=0 --set decisions=null --set epochs=1 --set target=folder "$@" \
        || echo "exit $?"
    awk -v a="$begun" -v b="$EPOCHREALTIME" 'BEGIN { printf "whole: %.2f s\n", b - a }'
}
run
run --set lr=1e-4
run --set lr=1e-4
"$bin/tunesmith" --profile mistral-7b log train --set base=base-random 2>/dev/null | tail -40 || true
