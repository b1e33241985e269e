//! What parameters alone show: faults with code and place, all at once; spellings that mean the same.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::{Train, fields::FIELDS, refused::REFUSED};
use crate::contract::{Params, Site, Stage, canonical, refusals};
use crate::export::Export;

fn given(with: Value) -> BTreeMap<String, Value> {
    with.as_object().unwrap().clone().into_iter().collect()
}

fn params(with: Value) -> Params {
    canonical(FIELDS, &given(with)).expect("it is canonical")
}

/// A site with these inputs, made by other stages.
fn site(inputs: &[&str]) -> Site {
    let inputs = inputs.iter().map(|port| ((*port).to_owned(), Vec::new()));
    Site {
        inputs: inputs.collect(),
        ..Site::default()
    }
}

/// Code and field of every fault.
fn faults(with: Value, site: &Site) -> Vec<(String, String)> {
    let found = Train.check(&params(with), site).into_iter();
    found.map(|fault| (fault.code, fault.field)).collect()
}

fn named(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(code, field): &(&str, &str)| (format!("train::{code}"), format!("with.{field}"));
    pairs.iter().map(owned).collect()
}

#[test]
fn every_fault_is_found_at_once_each_at_its_place() {
    let with = json!({
        "targets": ["q_proj", "lm_head", "qkv"],
        "layers": [],
        "rank_pattern": { "k_proj": 4, "q_proj": 8, "layers.1.self_attn.q_proj": 1.5 },
        "alpha_pattern": { "q_proj": "much" },
        "weights": { "negative": 2, "sad": 1, "single": 0 },
        "lr": 1e-2, "lora_plus": 50,
        "warmup_steps": 3, "warmup_ratio": 0.2,
        "early_stop": 2, "keep_best": true, "keep": 2,
    });
    assert_eq!(
        faults(with, &site(&[])),
        named(&[
            ("target-not-lora", "targets"),
            ("unknown-target", "targets"),
            ("no-target", "layers"),
            ("bad-pattern", "rank_pattern"),
            ("bad-pattern", "rank_pattern"),
            ("bad-pattern", "rank_pattern"),
            ("bad-pattern", "alpha_pattern"),
            ("bad-weight", "weights"),
            ("bad-weight", "weights"),
            ("high-lr", "lora_plus"),
            ("two-warm-ups", "warmup_steps"),
            ("no-val", "early_stop"),
            ("no-val", "keep_best"),
            ("no-val", "keep"),
        ])
    );
    let fine = json!({
        "layers": [0, 1], "rank_pattern": { "q_proj": 8, "layers.1.mlp.up_proj": 4 },
        "alpha_pattern": { "self_attn.v_proj": 4 }, "weights": { "negative": 0.5 },
        "lora_plus": 16, "warmup_steps": 3, "early_stop": 2, "keep": 2,
    });
    assert_eq!(faults(fine, &site(&["val"])), []);
}

#[test]
fn an_adapter_to_go_on_from_must_be_of_the_same_shape() {
    let before =
        json!({ "r": 8, "targets": ["v_proj", "q_proj"], "alpha_pattern": { "q_proj": 4 } });
    let mut site = site(&["adapter"]);
    let upstream = vec![("train".to_owned(), params(before))];
    site.upstream.insert("adapter".to_owned(), upstream);
    let other =
        json!({ "targets": ["q_proj"], "rslora": true, "init": "gaussian", "dropout": 0.1 });
    assert_eq!(
        faults(other, &site),
        named(&[
            ("unused-init", "init"),
            ("adapter-mismatch", "r"),
            ("adapter-mismatch", "targets"),
            ("adapter-mismatch", "alpha_pattern"),
            ("adapter-mismatch", "rslora"),
        ])
    );
    let same = json!({
        "r": 8, "targets": ["q_proj", "v_proj"], "alpha_pattern": { "q_proj": 4.0 }, "lr": 1e-3,
    });
    assert_eq!(faults(same, &site), []);
}

#[test]
fn what_other_trainers_have_is_refused_by_name_with_a_mend() {
    let with = json!({
        "use_dora": true, "modules_to_save": ["embed_tokens"], "init": "pissa_niter_4",
        "optim": "paged_adamw_8bit", "neftune_noise_alpha": 5, "packing": true, "group_by_length": true,
        "schedule": "cosine_with_restarts", "lora_alpha": 32, "learning_rate": 1e-4, "r": 8, "qqq": 1,
    });
    let (faults, rest) = refusals(REFUSED, &given(with));
    let codes: Vec<_> = faults.iter().map(|f| (&*f.code, &*f.field)).collect();
    assert_eq!(
        codes,
        [
            ("train::unsupported", "with.group_by_length"),
            ("train::unsupported", "with.init"),
            ("train::other-name", "with.learning_rate"),
            ("train::other-name", "with.lora_alpha"),
            ("train::unsupported", "with.modules_to_save"),
            ("train::unsupported", "with.neftune_noise_alpha"),
            ("train::unsupported", "with.optim"),
            ("train::unsupported", "with.packing"),
            ("train::unsupported", "with.schedule"),
            ("train::unsupported", "with.use_dora"),
        ]
    );
    assert_eq!(
        rest.keys().collect::<Vec<_>>(),
        ["qqq", "r"],
        "the rest is judged as ever"
    );
    let known = json!({ "init": "gaussian", "schedule": "cosine" });
    assert!(refusals(REFUSED, &given(known)).0.is_empty());
}

/// A name in that table that the stage has would never get through; a mend that names no parameter misleads.
#[test]
fn the_refused_names_are_none_of_ours_and_their_mends_name_ours() {
    let ours = |name: &str| FIELDS.iter().any(|field| field.name == name);
    for entry in REFUSED {
        assert_eq!(ours(entry.name), !entry.values.is_empty(), "{}", entry.name);
        if entry.code == "train::other-name" {
            let name = entry.mend.split('`').nth(1).unwrap();
            assert!(ours(name), "{}: {}", entry.name, entry.mend);
        }
    }
}

#[test]
fn defaults_written_out_and_other_spellings_change_no_key() {
    let written: BTreeMap<String, Value> = FIELDS
        .iter()
        .filter_map(|field| {
            Some((
                field.name.to_owned(),
                serde_json::from_str(field.default?).unwrap(),
            ))
        })
        .collect();
    assert_eq!(written.len(), FIELDS.len());
    assert!(canonical(FIELDS, &written).unwrap().given().is_empty());
    for all in [json!("all-linear"), json!(["all-linear"])] {
        assert!(params(json!({ "targets": all })).given().is_empty());
    }
    let layers = |list: Value| params(json!({ "layers": list })).given().clone();
    assert_eq!(layers(json!([3, 1.0, 1])), layers(json!([1, 3])));
    assert_ne!(layers(json!([1])), layers(json!([1, 3])));
    for wrong in [json!("all"), json!([1, "q_proj"])] {
        assert!(canonical(FIELDS, &given(json!({ "targets": wrong }))).is_err());
    }
    for wrong in [json!(1), json!([-1]), json!([1.5]), json!(["1"])] {
        assert!(canonical(FIELDS, &given(json!({ "layers": wrong }))).is_err());
    }
}

#[test]
fn workers_ai_gets_no_adapter_that_it_cannot_apply_known_before_the_training() {
    let faults = |train: Value, target: &str| {
        let upstream = vec![("train".to_owned(), params(train))];
        let site = Site {
            upstream: [("adapter".to_owned(), upstream)].into(),
            ..Site::default()
        };
        let with = given(json!({ "model_type": "mistral", "target": target }));
        Export.check(&canonical(Export.fields(), &with).unwrap(), &site)
    };
    let odd = json!({
        "r": 64, "alpha": 16, "rslora": true, "rank_pattern": { "q_proj": 4 }, "alpha_pattern": { "q_proj": 4 },
    });
    let found = faults(odd.clone(), "cloudflare");
    let codes: Vec<_> = found.iter().map(|f| &*f.code).collect();
    let feature = "export::unsupported-feature";
    assert_eq!(codes, ["export::rank-too-high", feature, feature, feature]);
    assert_eq!(
        found[1].mend,
        "train with `alpha: 128` and no `rslora`: the same scale"
    );
    assert!(faults(odd, "folder").is_empty());
    assert!(faults(json!({ "layers": [1], "lora_plus": 4 }), "cloudflare").is_empty());
}
