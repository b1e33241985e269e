//! Parameters that people know from other tools and that a stage does not have: refused by name, with a
//! reason and a mend, instead of as a word that nobody knows.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Fault;

/// One such parameter, or one value of a parameter that the stage has.
#[derive(Clone, Copy, Debug)]
pub struct Refused {
    /// Name under `with:`.
    pub name: &'static str,
    /// The values that are refused, each also as the start of a longer one (`pissa_niter_4`); empty: all.
    pub values: &'static [&'static str],
    /// Stable code, `train::unsupported`.
    pub code: &'static str,
    /// What it is, and why it is not here.
    pub message: &'static str,
    /// What to write instead.
    pub mend: &'static str,
}

/// The faults of a `with:` block that `table` knows, and the rest of the block.
pub fn refusals(
    table: &[Refused],
    given: &BTreeMap<String, Value>,
) -> (Vec<Fault>, BTreeMap<String, Value>) {
    let mut faults = Vec::new();
    let mut rest = BTreeMap::new();
    for (name, value) in given {
        match table.iter().find(|entry| entry.refuses(name, value)) {
            Some(entry) => faults.push(Fault::new(
                entry.code,
                &format!("with.{name}"),
                entry.message,
                entry.mend,
            )),
            None => drop(rest.insert(name.clone(), value.clone())),
        }
    }
    (faults, rest)
}

impl Refused {
    fn refuses(&self, name: &str, value: &Value) -> bool {
        let text = value.as_str().unwrap_or_default();
        let named = self.values.iter().any(|start| text.starts_with(start));
        self.name == name && (self.values.is_empty() || named)
    }
}
