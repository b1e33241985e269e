//! Compiles the CUDA kernels, one fat binary a family, when the feature `cuda` is on; else all are empty.
//!
//! nvcc is looked for in `NVCC`, then under `CUDA_HOME`, then on the path; `toolkit.sh` makes a toolkit where
//! there is none. `TUNESMITH_CUDA_ARCHS` (such as `90a`) compiles for fewer cards while developing.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// The families, in the order of `src/module.rs`.
const FAMILIES: [&str; 14] = [
    "nf4",
    "norm",
    "elementwise",
    "lora",
    "loss",
    "adamw",
    "decode_rows",
    "decode",
    "decode_attention",
    "attention_forward",
    "attention_backward",
    "attention_f32",
    "attention_forward_sm90",
    "attention_backward_sm90",
];

/// What the last two are compiled for, and nothing else: they use what no other architecture has.
const HOPPER: &str = "90a";

/// Ampere, Ada, Hopper and Blackwell; the last one also as PTX for cards still to come.
const ARCHITECTURES: &str = "80,86,89,90a,100,120";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=cuda");
    for name in ["NVCC", "CUDA_HOME", "TUNESMITH_CUDA_ARCHS"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets OUT_DIR"));
    if env::var_os("CARGO_FEATURE_CUDA").is_some() {
        compile(&out);
    } else {
        for family in FAMILIES {
            fs::write(out.join(format!("{family}.fatbin")), []).expect("OUT_DIR is writable");
        }
    }
    list(&out);
}

fn compile(out: &Path) {
    let nvcc = nvcc();
    let mut running = Vec::new();
    for family in FAMILIES {
        let fatbin = out.join(format!("{family}.fatbin"));
        let targets = targets(family.ends_with("_sm90"));
        if targets.is_empty() {
            fs::write(fatbin, []).expect("OUT_DIR is writable");
            continue;
        }
        let mut command = Command::new(&nvcc);
        command
            .args(["-std=c++17", "-O3", "--fatbin", "-o"])
            .arg(fatbin)
            .args(&targets)
            .arg(Path::new("cuda").join(format!("{family}.cu")));
        let child = command.spawn().unwrap_or_else(|e| {
            panic!(
                "nvcc did not start ({}: {e}): set CUDA_HOME, or run crates/kernels/toolkit.sh",
                nvcc.display()
            )
        });
        running.push((family, child));
        // Two at a time: each keeps about one core and 300 MB busy.
        if running.len() == 2 {
            finish(running.remove(0));
        }
    }
    running.into_iter().for_each(finish);
}

/// The fat binaries as a Rust array; one that no target asked for is empty.
fn list(out: &Path) {
    let mut list = String::new();
    for family in FAMILIES {
        list += "include_bytes!(concat!(env!(\"OUT_DIR\"), \"/";
        list += family;
        list += ".fatbin\")),\n";
    }
    fs::write(out.join("fatbins.rs"), format!("[\n{list}]\n")).expect("OUT_DIR is writable");
}

fn finish((family, mut child): (&str, std::process::Child)) {
    let status = child.wait().expect("nvcc was started");
    assert!(status.success(), "nvcc failed on cuda/{family}.cu");
}

fn nvcc() -> PathBuf {
    if let Some(nvcc) = env::var_os("NVCC") {
        return nvcc.into();
    }
    match env::var_os("CUDA_HOME") {
        Some(home) => Path::new(&home).join("bin/nvcc"),
        None => "nvcc".into(),
    }
}

/// Targets of a family, as arguments; of those asked for, the ones that can hold it.
fn targets(hopper_alone: bool) -> Vec<String> {
    let asked = env::var("TUNESMITH_CUDA_ARCHS").ok();
    let mut targets: Vec<String> = asked
        .as_deref()
        .unwrap_or(ARCHITECTURES)
        .split(',')
        .filter(|a| !hopper_alone || *a == HOPPER)
        .map(|a| format!("-gencode=arch=compute_{a},code=sm_{a}"))
        .collect();
    if asked.is_none() && !hopper_alone {
        targets.push("-gencode=arch=compute_80,code=compute_80".to_owned());
    }
    targets
}
