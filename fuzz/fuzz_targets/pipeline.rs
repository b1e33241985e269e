//! Any text of `pipeline.yaml` is read or refused, each fault with a place inside the text.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use tunesmith::config::Overrides;
use tunesmith::graph;

fuzz_target!(|text: &str| {
    let registry = stages::registry::all();
    let file = Path::new("pipeline.yaml");
    if let Err(faults) = graph::read(file, text.to_owned(), &Overrides::default(), registry) {
        assert!(!faults.items.is_empty());
        for fault in &faults.items {
            let span = fault.span.clone().expect("a fault has a place");
            assert!(faults.text.get(span).is_some());
        }
    }
});
