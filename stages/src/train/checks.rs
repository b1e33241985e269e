//! What is wrong with train's parameters before any run; every fault at once.

use std::collections::BTreeMap;

use qlora::Target;
use serde_json::Value;

use crate::contract::{Fault, Params, Site};
use crate::conversation::Kind;

/// What makes an adapter the one that it is: a run that goes on from another must say the same.
const SHAPE: [&str; 7] = [
    "r",
    "alpha",
    "targets",
    "layers",
    "rank_pattern",
    "alpha_pattern",
    "rslora",
];

/// Faults that parameters, and the stages above, show.
pub(super) fn faults(params: &Params, site: &Site) -> Vec<Fault> {
    let mut faults = targets(params);
    faults.extend(pattern(
        params,
        "rank_pattern",
        "a whole number from 1 to 256",
        |value| {
            value
                .as_f64()
                .is_some_and(|n| n.fract() == 0.0 && (1.0..=256.0).contains(&n))
        },
    ));
    faults.extend(pattern(
        params,
        "alpha_pattern",
        "a number from 0 to 1024",
        |value| value.as_f64().is_some_and(|n| (0.0..=1024.0).contains(&n)),
    ));
    faults.extend(weights(params));
    faults.extend(rates(params));
    faults.extend(held_out(params, site));
    faults.extend(continued(params, site));
    faults
}

fn targets(params: &Params) -> Vec<Fault> {
    let mut faults = Vec::new();
    for name in params.list("targets") {
        if Target::from_suffix(&name).is_none() {
            let code = if name == "lm_head" || name == "embed_tokens" {
                "train::target-not-lora"
            } else {
                "train::unknown-target"
            };
            faults.push(Fault::new(
                code,
                "with.targets",
                format!("`{name}` cannot carry an adapter"),
                format!("targets are: {}; or `all-linear`", known_targets()),
            ));
        }
    }
    if params.list("targets").is_empty() {
        faults.push(Fault::new(
            "train::no-target",
            "with.targets",
            "no layer carries an adapter",
            "leave `targets` out for all linear layers",
        ));
    }
    if params
        .ints("layers")
        .is_some_and(|layers| layers.is_empty())
    {
        faults.push(Fault::new(
            "train::no-target",
            "with.layers",
            "no layer carries an adapter",
            "leave `layers` out for all decoder layers",
        ));
    }
    faults
}

fn known_targets() -> String {
    let known: Vec<_> = Target::ALL.iter().map(|target| target.suffix()).collect();
    known.join(", ")
}

/// A pattern's keys name adapted layers, none of them twice, and its values fit. Whether a layer's number
/// exists is known with the base.
fn pattern(
    params: &Params,
    setting: &str,
    expected: &str,
    fits: impl Fn(&Value) -> bool,
) -> Vec<Fault> {
    let pattern = params.map(setting);
    let targets = params.list("targets");
    let fault = |message: String, mend: String| {
        Fault::new(
            "train::bad-pattern",
            &format!("with.{setting}"),
            message,
            mend,
        )
    };
    let mut faults = Vec::new();
    for (key, value) in &pattern {
        let last = key.rsplit('.').next().unwrap_or_default();
        if !targets.iter().any(|target| target == last) {
            faults.push(fault(
                format!("`{key}` names no layer that carries an adapter"),
                "a key is the end of a layer's path, such as `q_proj` or `layers.3.mlp.up_proj`"
                    .to_owned(),
            ));
        }
        let within = |other: &&String| key.ends_with(&format!(".{other}"));
        if let Some(wider) = pattern.keys().find(within) {
            faults.push(fault(
                format!("`{wider}` and `{key}` name the same layer"),
                "let each key name layers of its own".to_owned(),
            ));
        }
        if !fits(value) {
            faults.push(fault(
                format!("`{key}` is `{value}`"),
                format!("write {expected}"),
            ));
        }
    }
    faults
}

fn weights(params: &Params) -> Vec<Fault> {
    let known = Kind::ALL.map(Kind::name);
    let fault = |message: String, mend: String| {
        Fault::new("train::bad-weight", "with.weights", message, mend)
    };
    let mut faults = Vec::new();
    for (kind, value) in params.map("weights") {
        if !known.contains(&kind.as_str()) {
            faults.push(fault(
                format!("rows have no type `{kind}`"),
                format!("types are: {}", known.join(", ")),
            ));
        }
        if !value.as_f64().is_some_and(|n| n > 0.0 && n <= 1e6) {
            faults.push(fault(
                format!("`{kind}` weighs `{value}`"),
                "write a positive number; leave rows out that shall not count".to_owned(),
            ));
        }
    }
    faults
}

fn rates(params: &Params) -> Vec<Fault> {
    let mut faults = Vec::new();
    let (lr, up) = (params.float("lr"), params.float("lora_plus"));
    if lr.is_some_and(|lr| lr > 0.02) {
        faults.push(Fault::new(
            "train::high-lr",
            "with.lr",
            "this learning rate makes LoRA diverge",
            "use 1e-5 to 5e-3; start with 2e-4",
        ));
    }
    if let (Some(lr), Some(up)) = (lr, up)
        && lr <= 0.02
        && lr * up > 0.2
    {
        faults.push(Fault::new(
            "train::high-lr",
            "with.lora_plus",
            format!("B would learn at {:.2}, and LoRA diverges", lr * up),
            "lower `lr`, or use 2 to 16 here",
        ));
    }
    let given = |name: &str| params.given().contains_key(name);
    if given("warmup_steps") && given("warmup_ratio") {
        faults.push(Fault::new(
            "train::two-warm-ups",
            "with.warmup_steps",
            "the warm-up is given twice, in steps and as a share",
            "leave one of `warmup_steps` and `warmup_ratio` out",
        ));
    }
    faults
}

/// What goes by the held-out loss needs held-out rows.
fn held_out(params: &Params, site: &Site) -> Vec<Fault> {
    let by_loss = ["early_stop", "keep_best", "keep"];
    let asked = by_loss
        .iter()
        .filter(|name| params.given().contains_key(**name));
    if site.inputs.contains_key("val") {
        return Vec::new();
    }
    asked
        .map(|name| {
            Fault::new(
                "train::no-val",
                &format!("with.{name}"),
                format!("`{name}` goes by the held-out loss, and there are no held-out rows"),
                "give rows as `val` under `inputs`",
            )
        })
        .collect()
}

/// Where another train stage made the adapter to go on from, its shape is known.
fn continued(params: &Params, site: &Site) -> Vec<Fault> {
    if !site.inputs.contains_key("adapter") {
        return Vec::new();
    }
    let mut faults = Vec::new();
    if params.given().contains_key("init") {
        faults.push(Fault::new(
            "train::unused-init",
            "with.init",
            "the adapter starts from `inputs.adapter`",
            "leave `init` out",
        ));
    }
    let above = site.upstream.get("adapter").and_then(|above| above.first());
    let Some((_, before)) = above.filter(|(kind, _)| kind == "train") else {
        return faults;
    };
    for name in SHAPE {
        let (here, there) = (shape(params, name), shape(before, name));
        if here != there {
            faults.push(Fault::new(
                "train::adapter-mismatch",
                &format!("with.{name}"),
                format!("`{name}` is {here}, and the adapter to go on from has {there}"),
                format!("write `{name}: {there}`"),
            ));
        }
    }
    faults
}

/// A value such that order and spelling do not count.
fn shape(params: &Params, name: &str) -> Value {
    match params.value(name) {
        Value::Array(mut items) if name == "targets" => {
            items.sort_by_key(ToString::to_string);
            items.dedup();
            Value::Array(items)
        }
        Value::Object(map) => {
            let floats: BTreeMap<_, _> = map.into_iter().map(|(k, v)| (k, v.as_f64())).collect();
            serde_json::json!(floats)
        }
        value => value,
    }
}
