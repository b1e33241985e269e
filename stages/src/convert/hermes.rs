//! hermes-function-calling-v1: ShareGPT turns with `<tools>`, `<tool_call>` and
//! `<tool_response>` (docs: the dataset's card; kinds of dirt counted in its files).
//!
//! Promises: json-mode rows and rows whose tool list cannot be read are named drops; all
//! other dirt is that of the ShareGPT dialect: Python literals, literal `\n` around a body,
//! a name inside the arguments. Must not know: our tools.

use serde_json::Value;

use super::foreign::{Dropped, Foreign, drop_for};
use super::sharegpt;

/// Reads one row.
pub(super) fn read(row: &Value) -> Result<Foreign, Dropped> {
    let system = sharegpt::system(row).unwrap_or("");
    let lists = sharegpt::between(system, "<tools>", "</tools>");
    let lists: Vec<&str> = lists.filter(|list| list.contains('{')).collect();
    if lists.is_empty() && (system.contains("<schema>") || row["schema"].is_string()) {
        return drop_for("json-mode", system);
    }
    let foreign = sharegpt::read(row)?;
    if let Some(list) = lists.first()
        && foreign.tools.is_empty()
    {
        return drop_for("broken-tools", list.trim());
    }
    foreign.all_declared()
}
