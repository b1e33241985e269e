//! The one list of built-in stages. Parser, help, schema and worker read it.

use crate::contract::Stage;
use crate::convert::Convert;
use crate::eval::Eval;
use crate::export::Export;
use crate::fetch::Fetch;
use crate::split::Split;
use crate::synthesize::Synthesize;
use crate::train::Train;
use crate::upload::Upload;
use crate::validate::Validate;

/// Every built-in stage, in the order of the pipeline.
pub fn all() -> &'static [&'static dyn Stage] {
    &[
        &Fetch,
        &Convert,
        &Synthesize,
        &Validate,
        &Split,
        &Train,
        &Eval,
        &Export,
        &Upload,
    ]
}

/// The stage called `kind` in `uses:`.
pub fn find(kind: &str) -> Option<&'static dyn Stage> {
    all().iter().copied().find(|stage| stage.kind() == kind)
}
