# Recipes; `just` lists them. Everything here is also a plain command.

# what CI runs
ci:
    bash .ci/run

# build the command and its worker
build:
    cargo build --release

# all tests
test:
    cargo test --release --workspace

# format, lint, doc
lint:
    cargo fmt --all --check
    cargo clippy --release --workspace --all-targets -- -D warnings
    cargo doc --release --workspace --no-deps

# every stage on a random tiny model
smoke: build
    target/release/tunesmith --profile smoke run
    target/release/tunesmith --profile smoke run upload

# the real small model, about fifteen minutes on two cores
laptop: build
    target/release/tunesmith

# the laptop profile's promises on the real model: `just prove cold` (a whole run), `just prove kill` (a few minutes), `just prove remote` (S3)
prove kind: build
    tests/laptop/prove.sh {{kind}}

# what PEFT needs to train as the laptop profile does, into a folder (tests/laptop/curve/README.md)
curve folder: build
    #!/usr/bin/env bash
    set -euo pipefail
    target/release/tunesmith run split
    mkdir -p "{{folder}}" && cp out/laptop/split/train.jsonl "{{folder}}"
    export TUNESMITH_SMOLLM2=$(ls "$PWD"/out/laptop/base-smollm2/data/*.gguf) TUNESMITH_CURVE=$(realpath "{{folder}}")
    cargo test --release --workspace --lib -- laptop_s_first

# kill -9 at random moments of runs, 500 times (a few minutes); `just crash 50 7` for 50 with seed 7
crash points="500" seed="1":
    CRASH_POINTS={{points}} CRASH_SEED={{seed}} cargo test --release --workspace --test cli -- campaign --nocapture

# every state that a power cut can leave, and a full disk at every change, with their figures
power:
    cargo test --release --workspace --test power --test full -- --nocapture

# a 10 GiB blob and 20,000 small files: make, verify, du, gc (needs 11 GiB of disk for a minute or two)
big-blobs gib="10": build
    #!/usr/bin/env bash
    set -euo pipefail
    dir=$(mktemp -d "${TMPDIR:-/tmp}/big-blobs.XXXX"); trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT
    bin=$PWD/target/release/tunesmith; cd "$dir"
    printf '%s\n' 'name: big' 'stages:' \
      '  big: { run: "truncate -s {{gib}}G ${outputs.it}; echo end >> ${outputs.it}", outputs: { it: big.bin } }' \
      '  many: { run: "seq 20000 | (cd many; split -l 1 -a 4 -)", outputs: { it: many/ } }' \
      '  end: { run: "tail -c 4 ${inputs.b} > ${outputs.it}; ls ${inputs.m} | wc -l >> ${outputs.it}", inputs: { b: big, m: many }, outputs: { it: end.txt } }' > pipeline.yaml
    time "$bin"
    time "$bin"
    time "$bin" cache verify
    "$bin" cache du
    time "$bin" cache gc --days 0 --dry-run

# whole-process times beside ninja, make, Snakemake and DVC: `NINJA=… just bench --n 100,1000`
bench *args: build
    python3 benches/graph.py {{args}}

# hashing beside b3sum and DVC: one big file, 10,000 small ones
bench-hash *args: build
    python3 benches/hashing.py {{args}}

# the same readers under libFuzzer, which sees coverage, so many seconds each (needs `cargo install cargo-fuzz`)
fuzz-covered seconds="300":
    #!/usr/bin/env bash
    set -euo pipefail
    cp Cargo.lock fuzz/Cargo.lock # the versions that the command has
    for target in pipeline lock; do
        mkdir -p "fuzz/target/grown/$target"
        cargo fuzz run -s none "$target" "fuzz/target/grown/$target" "fuzz/corpus/$target" -- \
            -max_total_time={{seconds}} -timeout=10 -rss_limit_mb=4096
    done

# mutated pipelines and locks, so many seconds each: `just fuzz 600 7` with seed 7
fuzz seconds="60" seed="1":
    FUZZ_SECONDS={{seconds}} FUZZ_SEED={{seed}} cargo test --release --workspace --test cli -- fuzz::mutated --nocapture
