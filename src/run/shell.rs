//! A `run:` command with its `${inputs.x}` and `${outputs.x}` filled in.
//!
//! Promises: everything is named relative to the scratch folder, so no path of this machine
//! gets into a result.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use stages::StageError;

/// The normal form of a relative path that stays below its folder.
fn below(path: &Path) -> Option<String> {
    let mut steps = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(step) => steps.push(step.to_str()?),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    (!steps.is_empty()).then(|| steps.join("/"))
}

/// An output path without `./` and trailing slashes.
pub(crate) fn output(path: &str) -> Result<String, StageError> {
    below(Path::new(path)).ok_or_else(|| {
        StageError::new(
            "run::output-path",
            format!("the output path `{path}` leaves the stage's folder"),
            "name a path below it, such as `adapter/`",
        )
        .at("outputs")
    })
}

/// Refuses an output that would lie over or under an input.
pub(crate) fn disjoint(inputs: &[String], outputs: &[String]) -> Result<(), StageError> {
    let covers = |a: &str, b: &str| {
        b.strip_prefix(a)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    for output in outputs {
        for input in inputs {
            if covers(output, input) || covers(input, output) {
                return Err(StageError::new(
                    "run::output-over-input",
                    format!("the output `{output}` and the input `{input}` share a place"),
                    "give the output a folder of its own",
                )
                .at("outputs"));
            }
        }
    }
    Ok(())
}

/// The command with every `${inputs.x}` and `${outputs.x}` filled in, quoted for the shell.
pub(crate) fn fill(
    command: &str,
    inputs: &BTreeMap<String, Vec<String>>,
    outputs: &BTreeMap<String, String>,
) -> Result<String, StageError> {
    let mut filled = String::new();
    let mut rest = command;
    while let Some(start) = rest.find("${") {
        let (before, from) = rest.split_at(start);
        filled.push_str(before);
        let Some(end) = from.find('}') else {
            rest = from;
            break;
        };
        let name = &from[2..end];
        let value = if let Some(port) = name.strip_prefix("inputs.") {
            let paths = inputs.get(port).ok_or_else(|| unknown("input", port))?;
            Some(
                paths
                    .iter()
                    .map(|path| quoted(path))
                    .collect::<Vec<_>>()
                    .join(" "),
            )
        } else if let Some(product) = name.strip_prefix("outputs.") {
            let path = outputs
                .get(product)
                .ok_or_else(|| unknown("output", product))?;
            Some(quoted(path))
        } else {
            None
        };
        // Anything else is the shell's own.
        filled.push_str(value.as_deref().unwrap_or(&from[..=end]));
        rest = &from[end + 1..];
    }
    filled.push_str(rest);
    Ok(filled)
}

fn unknown(what: &str, name: &str) -> StageError {
    StageError::new(
        "run::unknown-name",
        format!("the command uses `${{{what}s.{name}}}`, but the stage has no {what} `{name}`"),
        format!("declare it under `{what}s`"),
    )
    .at("run")
}

fn quoted(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./+,:@%=".contains(&byte);
    if !path.is_empty() && path.bytes().all(plain) {
        path.to_owned()
    } else {
        format!("'{}'", path.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{disjoint, fill, output};

    #[test]
    fn commands_are_filled_and_quoted() {
        let inputs = BTreeMap::from([("rows".to_owned(), vec!["a b".to_owned(), "c".to_owned()])]);
        let outputs = BTreeMap::from([("out".to_owned(), "adapter".to_owned())]);
        let filled = fill(
            "cat ${inputs.rows} > ${outputs.out} ${HOME} $x ${",
            &inputs,
            &outputs,
        );
        assert_eq!(
            filled.expect("all names are known"),
            "cat 'a b' c > adapter ${HOME} $x ${"
        );
        let error = fill("cat ${inputs.no}", &inputs, &outputs).expect_err("unknown");
        assert_eq!(error.code, "run::unknown-name");
    }

    #[test]
    fn outputs_stay_below_and_apart() {
        assert_eq!(output("./adapter/").expect("below"), "adapter");
        assert!(output("../x").is_err());
        assert!(output("/x").is_err());
        let names = |all: &[&str]| {
            all.iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        assert!(disjoint(&names(&["data/x.csv"]), &names(&["data"])).is_err());
        assert!(disjoint(&names(&["data"]), &names(&["data/y"])).is_err());
        assert!(disjoint(&names(&["data"]), &names(&["database"])).is_ok());
    }
}
