//! The one list of built-in stages. Parser, help, schema and worker read it.

use crate::contract::Stage;
use crate::fetch::Fetch;
use crate::upload::Upload;

/// Every built-in stage, in the order of the pipeline.
pub fn all() -> &'static [&'static dyn Stage] {
    &[&Fetch, &Upload]
}

/// The stage called `kind` in `uses:`.
pub fn find(kind: &str) -> Option<&'static dyn Stage> {
    all().iter().copied().find(|stage| stage.kind() == kind)
}
