//! `tunesmith schema` (hidden): what editors complete and check `pipeline.yaml` with.

use super::exit::Exit;
use crate::config::schema_text;
use crate::report::screen;

pub(super) fn schema() -> Exit {
    screen::say(&schema_text(stages::registry::all()));
    Exit::Ok
}
