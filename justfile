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
