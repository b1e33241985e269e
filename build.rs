//! How the command is linked: at a fixed address, where that is known to work.
//!
//! Promises: on Linux on x86-64 with glibc `tunesmith` starts without relocating the 51,000 pointers of its tables,
//! a tenth of a run that does nothing (`docs/performance-orchestrator.md`, with what it gives up); other targets,
//! the worker, the library and tests are linked as ever.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let is = |name: &str, wanted: &str| {
        env::var(format!("CARGO_CFG_TARGET_{name}")).is_ok_and(|found| found == wanted)
    };
    let features = env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    // A static executable is linked in a way of its own.
    let is_static = features.split(',').any(|feature| feature == "crt-static");
    if is("OS", "linux") && is("ENV", "gnu") && is("ARCH", "x86_64") && !is_static {
        println!("cargo:rustc-link-arg-bin=tunesmith=-no-pie");
    }
}
