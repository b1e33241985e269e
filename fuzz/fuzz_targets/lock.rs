//! Any text of `pipeline.lock` is read, and then written and read again, or refused with a place.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use tunesmith::lock::Lock;

fuzz_target!(|text: &str| {
    let file = Path::new("pipeline.lock");
    match Lock::parse(file, text) {
        Ok(lock) => assert_eq!(Lock::parse(file, &lock.text()).expect("its own text"), lock),
        Err(faults) => {
            for fault in &faults.items {
                let span = fault.span.clone().expect("a fault has a place");
                assert!(faults.text.get(span).is_some());
            }
        }
    }
});
