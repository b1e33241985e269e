//! From a file to a checked pipeline, or every fault in it.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use stages::{Effect, Stage};

use super::fan::{Fans, Hidden};
use super::fault::{Fault, Faults};
use super::input::Surroundings;
use super::limits;
use super::node::{Entry, Node};
use super::params::{self, Chosen, Overrides};
use super::pipeline::{Pipeline, StageSpec};
use super::remembered::Remembered;
use super::resources::{self, Pools};
use super::secret::{self, Secrets};
use super::stage::{self, Draft};
use super::template::Scope;
use super::{checkpoints, overlay, parse, remote, section, store, suggest};

/// Keys of the file.
pub(crate) const KEYS: [&str; 11] = [
    "name",
    "seed",
    "params",
    "profiles",
    "default_profile",
    "default",
    "pools",
    "checkpoints",
    "store",
    "remote",
    "stages",
];

/// The names that [`find`] looks for.
const NAMES: [&str; 2] = ["pipeline.yaml", "pipeline.yml"];

/// The pipeline file in `start` or the nearest folder above it.
pub fn find(start: &Path) -> Result<PathBuf, Faults> {
    let start = std::path::absolute(start).unwrap_or_else(|_| start.to_owned());
    for folder in start.ancestors() {
        for name in NAMES {
            let file = folder.join(name);
            if file.is_file() {
                return Ok(file);
            }
        }
    }
    let message = format!(
        "no `pipeline.yaml` in `{}` or a folder above it",
        start.display()
    );
    let fault = Fault::nowhere("config::not-found", message);
    let fault = fault.mend("go to the project's folder, or begin one with `tunesmith init`");
    Err(Faults::new(&start.join(NAMES[0]), "", vec![fault]))
}

/// Reads and checks the pipeline at `file` under one profile. `registry` lists the
/// built-in stages, `stages::registry::all()` in the command.
pub fn load(
    file: &Path,
    overrides: &Overrides,
    registry: &[&'static dyn Stage],
) -> Result<Pipeline, Faults> {
    let text = read(file)?;
    let env = |name: &str| std::env::var(name).ok();
    load_text(file, text, overrides, registry, &env)?.finish(Vec::new())
}

/// [`load`] that hands out what could be read beside the faults, so that a later room
/// can add its own (the graph its cycles) before anybody is told. `remembered` spares parsing a
/// text that was parsed before.
pub(crate) fn load_lenient(
    file: &Path,
    text: String,
    overrides: &Overrides,
    registry: &[&'static dyn Stage],
    remembered: Option<&mut Remembered>,
) -> Result<Loaded, Faults> {
    let env = |name: &str| std::env::var(name).ok();
    let parsed = match remembered {
        Some(remembered) => remembered.parse(&text),
        None => parse::parse(&text),
    };
    load_parsed(file, text, parsed, overrides, registry, &env)
}

/// A pipeline as far as it could be read.
pub(crate) struct Loaded {
    /// Stages with a fault of their own are missing.
    pub(crate) pipeline: Pipeline,
    faults: Vec<Fault>,
    secrets: Secrets,
    /// `--set`, to which faults may belong.
    sets: Vec<String>,
}

impl Loaded {
    /// The pipeline, if neither this room nor `more` found a fault.
    pub(crate) fn finish(mut self, more: Vec<Fault>) -> Result<Pipeline, Faults> {
        self.faults.extend(more);
        if self.faults.is_empty() {
            return Ok(self.pipeline);
        }
        overlay::tell(&self.sets, self.pipeline.text.len(), &mut self.faults);
        let mut faults = Faults::new(&self.pipeline.file, &self.pipeline.text, self.faults);
        self.secrets.blank(&mut faults);
        Err(faults)
    }
}

/// The text of a pipeline file.
pub(crate) fn read(file: &Path) -> Result<String, Faults> {
    let bytes = std::fs::read(file).map_err(|error| {
        let message = format!("cannot read `{}`: {error}", file.display());
        let fault = Fault::nowhere("config::unreadable", message);
        Faults::new(
            file,
            "",
            vec![fault.mend("check the path and its permissions")],
        )
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
        let fault = Fault::at(
            &(at..at),
            "config::not-utf8",
            "the file is not UTF-8 from here on",
        );
        Faults::new(file, &text, vec![fault.mend("save it as UTF-8")])
    })
}

/// [`load`] on a text, with the environment as a function.
pub(crate) fn load_text(
    file: &Path,
    text: String,
    overrides: &Overrides,
    registry: &[&'static dyn Stage],
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, Faults> {
    let parsed = parse::parse(&text);
    load_parsed(file, text, parsed, overrides, registry, env)
}

/// The pipeline that the tree of `text` is.
fn load_parsed(
    file: &Path,
    text: String,
    (tree, mut faults): (Option<Node>, Vec<Fault>),
    overrides: &Overrides,
    registry: &[&'static dyn Stage],
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, Faults> {
    let Some(mut tree) = tree else {
        return Err(Faults::new(file, &text, faults));
    };
    overlay::apply(&mut tree, &overrides.sets, text.len(), &mut faults);
    let root = root(&tree, &mut faults);
    let mut secrets = secret::search(root, env, &mut faults);
    let folder = file
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new(".")).to_owned();
    let chosen = params::choose(root, overrides, &mut faults);
    let scope = Scope {
        source: &text,
        params: &chosen.params,
        elsewhere: &chosen.elsewhere,
        hidden: &Hidden::new(),
        profile: &chosen.profile,
    };
    let seed = section::get(root, "seed")
        .and_then(|entry| limits::whole(&entry.value, "seed", (0, u64::MAX), &scope, &mut faults))
        .unwrap_or(0);
    let name = name(root, &tree, &mut faults);
    let pools = resources::pools(root, &scope, &mut faults);
    let checkpoints = checkpoints::checkpoints(root, &scope, &mut faults);
    let user = env("HOME");
    let store = section::get(root, "store");
    let store = store::store(store, &folder, user.as_deref(), &mut faults);
    let far = section::get(root, "remote");
    let remote = remote::remote(far, &folder, user.as_deref(), &mut secrets, &mut faults);
    let (stages, default) = stages(
        root,
        &folder,
        seed,
        registry,
        &chosen,
        &pools,
        &scope,
        &mut faults,
    );
    resources::too_large(&stages, &pools, &mut faults);
    let pipeline = Pipeline {
        name,
        root: folder,
        file: file.to_owned(),
        profile: chosen.profile.clone(),
        profiles: chosen.profiles.clone(),
        params: chosen.params.clone(),
        seed,
        pools,
        checkpoints,
        store,
        remote,
        default,
        stages,
        text,
    };
    Ok(Loaded {
        pipeline,
        faults,
        secrets,
        sets: overrides.sets.clone(),
    })
}

/// The entries of the file. Keys that begin with `x-` are the user's own (anchors).
fn root<'a>(tree: &'a Node, faults: &mut Vec<Fault>) -> &'a [Entry] {
    if tree.is_null() {
        let fault = Fault::at(&tree.span, "config::missing-field", "the file is empty");
        faults.push(fault.mend("begin with `name:` and `stages:`, or run `tunesmith init`"));
        return &[];
    }
    let entries = section::map(tree, "the file", faults);
    for entry in entries {
        match entry.key.as_str() {
            key if key.starts_with("x-") || KEYS.contains(&key) => {}
            _ => faults.push(section::unknown(entry, &KEYS, "the file")),
        }
    }
    entries
}

fn name(root: &[Entry], tree: &Node, faults: &mut Vec<Fault>) -> String {
    match section::get(root, "name") {
        Some(entry) => section::text(&entry.value, "name", faults)
            .unwrap_or_default()
            .to_owned(),
        None if tree.entries().is_none() => String::new(),
        None => {
            let start = tree.span.start..tree.span.start;
            let fault = Fault::at(
                &start,
                "config::missing-field",
                "the pipeline has no `name`",
            );
            faults.push(fault.mend("add `name: my-assistant` as the first line"));
            String::new()
        }
    }
}

/// The stages of the profile, and the targets of a plain run.
fn stages(
    root: &[Entry],
    folder: &Path,
    seed: u64,
    registry: &[&'static dyn Stage],
    chosen: &Chosen,
    pools: &Pools,
    scope: &Scope<'_>,
    faults: &mut Vec<Fault>,
) -> (Vec<StageSpec>, Option<Vec<String>>) {
    let entry = section::get(root, "stages");
    let entries = entry.map_or(&[][..], |entry| {
        section::map(&entry.value, "stages", faults)
    });
    if entries.is_empty()
        && let Some(first) = root.first()
    {
        let place = entry.map_or(&first.key_span, |entry| &entry.key_span);
        let fault = Fault::at(place, "config::missing-field", "the pipeline has no stages");
        faults.push(fault.mend("add `stages:` with a stage below it"));
    }
    let profile = (chosen.profile.as_str(), chosen.profiles.as_slice());
    let drafts: Vec<Draft<'_>> = entries
        .iter()
        .map(|entry| stage::draft(entry, registry, profile, faults))
        .collect();
    let around = Surroundings {
        root: folder,
        known: drafts
            .iter()
            .map(|draft| (draft.id, draft.known()))
            .collect(),
        profile: scope.profile,
        pools,
        present: RefCell::default(),
    };
    let found = match Fans::follow(&drafts, scope.source, chosen, faults) {
        None => {
            // At the right size at once: growing costs more than building.
            let mut found = Vec::with_capacity(drafts.len());
            let drafts = drafts.iter();
            found.extend(drafts.filter_map(|draft| draft.build(seed, &around, scope, faults)));
            found
        }
        Some(fans) => fanned(&fans, &drafts, seed, &around, scope, faults),
    };
    (found, default(root, &around, faults))
}

/// Every cell of every stage.
fn fanned(
    fans: &Fans<'_>,
    drafts: &[Draft<'_>],
    seed: u64,
    around: &Surroundings<'_>,
    scope: &Scope<'_>,
    faults: &mut Vec<Fault>,
) -> Vec<StageSpec> {
    let mut found = Vec::new();
    for (at, draft) in drafts.iter().enumerate() {
        let fan = fans.of(at);
        for cell in &fan.cells {
            let params = fans.params(cell);
            let scope = Scope {
                params: &params,
                hidden: &fan.hidden,
                ..*scope
            };
            let Some(mut spec) = draft.build(seed, around, &scope, faults) else {
                continue;
            };
            spec.id = cell.name(draft.id);
            spec.cell = cell.clone();
            if draft.get("pick").is_some() {
                spec.pick = fans.pick(at, cell, &spec.inputs, faults);
            }
            spec.inputs = match &spec.pick {
                Some(pick) => pick.candidates[0].inputs.clone(),
                None => fans.inputs(&spec.inputs, cell),
            };
            if spec.effect == Effect::External && !cell.is_empty() {
                let count = fan.cells.len();
                let message = format!(
                    "`{}` acts outside, and would do so in each of {count} cells",
                    draft.id
                );
                let fault = Fault::at(draft.span, "config::effect-in-cell", message);
                faults.push(fault.mend("let it, or a stage above it, `pick` one cell"));
            }
            found.push(spec);
        }
    }
    found
}

/// `default:`: stages of other profiles are left out.
fn default(
    root: &[Entry],
    around: &Surroundings<'_>,
    faults: &mut Vec<Fault>,
) -> Option<Vec<String>> {
    let entry = section::get(root, "default")?;
    let mut found = Vec::new();
    for (name, span) in section::texts(&entry.value, "default", faults) {
        match around.known.get(name) {
            Some(known) if known.here => found.push(name.to_owned()),
            Some(_) => {}
            None => {
                let mend = suggest::mend(name, around.known.keys().copied(), "stages");
                let message = format!("there is no stage `{name}`");
                faults.push(Fault::at(span, "config::unknown-stage", message).mend(mend));
            }
        }
    }
    Some(found)
}
