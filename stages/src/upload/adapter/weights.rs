//! The tensors of an adapter: names, pairs, ranks, types, and whether they fit the base.

use std::sync::LazyLock;

use regex::Regex;

use crate::contract::Fault;

use super::super::models::Base;
use super::config::Config;
use super::fault;
use super::header::{Header, Tensor};

static NAME: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"^base_model\.model\.model\.layers\.(\d+)\.(?:self_attn\.([qkvo]_proj)|mlp\.((?:gate|up|down)_proj))\.lora_([AB])\.weight$",
    )
    .expect("a pattern")
});

/// A tensor's place.
struct Place {
    layer: u64,
    suffix: String,
    is_a: bool,
}

fn place(name: &str) -> Option<Place> {
    let parts = NAME.captures(name)?;
    Some(Place {
        layer: parts[1].parse().ok()?,
        suffix: parts.get(2).or_else(|| parts.get(3))?.as_str().to_owned(),
        is_a: &parts[4] == "A",
    })
}

/// Judges the tensors. `served`: as the service will; `base`: against that base's shape.
/// Of each kind of fault one is told, with a count: 448 equal lines help nobody.
pub(super) fn check(
    config: &Config,
    header: &Header,
    served: bool,
    base: Option<&Base>,
    faults: &mut Vec<Fault>,
) {
    if header.tensors.is_empty() {
        faults.push(fault(
            "no-tensors",
            "the adapter holds no tensors",
            "export it again",
        ));
    }
    let mut foreign = Tally::default();
    let mut wide = Tally::default();
    let mut unpaired = Tally::default();
    let mut ranks = Tally::default();
    let mut untargeted = Tally::default();
    let mut misfits = Tally::default();
    for (name, tensor) in &header.tensors {
        if !["F16", "BF16"].contains(&tensor.dtype.as_str()) {
            wide.add(|| format!("`{name}` is {}", tensor.dtype));
        }
        let Some(place) = place(name) else {
            foreign.add(|| format!("`{name}`"));
            continue;
        };
        let (from, to) = if place.is_a {
            ("lora_A", "lora_B")
        } else {
            ("lora_B", "lora_A")
        };
        if !header.tensors.contains_key(&name.replace(from, to)) {
            unpaired.add(|| format!("`{name}`"));
        }
        let rank_at = usize::from(!place.is_a);
        if tensor.shape.len() != 2 || tensor.shape[rank_at] != config.rank {
            ranks.add(|| format!("`{name}` has shape {:?}", tensor.shape));
        }
        if !config.targets.is_empty()
            && !config
                .targets
                .iter()
                .any(|one| one.ends_with(&place.suffix))
        {
            untargeted.add(|| format!("`{name}`"));
        }
        if let Some(base) = base {
            misfit(base, &place, tensor, name, &mut misfits);
        }
    }
    let rank = config.rank;
    faults.extend(unpaired.fault("unpaired", " has no partner", "export the adapter again"));
    faults.extend(ranks.fault(
        "rank-mismatch",
        &format!(", and `r` is {rank}"),
        "export the adapter again",
    ));
    faults.extend(untargeted.fault(
        "target-mismatch",
        " is not of a layer in `target_modules`",
        "export the adapter again",
    ));
    if served {
        faults.extend(foreign.fault(
            "foreign-tensor",
            " is not a LoRA weight of a linear layer of the decoder",
            "upload an adapter of linear layers alone: no embeddings, no head, no merged weights",
        ));
        faults.extend(wide.fault(
            "dtype",
            ", and the service takes 16-bit weights",
            "export with `dtype: f16` or `bf16`",
        ));
    }
    if let Some(base) = base {
        let mend = format!(
            "upload to the model the adapter was trained on, or train on the base of `{}`",
            base.model
        );
        faults.extend(misfits.fault(
            "base-mismatch",
            &format!(", so it was not trained on the base of `{}`", base.model),
            &mend,
        ));
    }
}

/// Notes a tensor that cannot belong to `base`.
fn misfit(base: &Base, place: &Place, tensor: &Tensor, name: &str, misfits: &mut Tally) {
    if place.layer >= base.layers {
        misfits.add(|| {
            format!(
                "`{name}` is of layer {}, the base has {}",
                place.layer, base.layers
            )
        });
        return;
    }
    let Some((input, output)) = base.widths(&place.suffix) else {
        return;
    };
    let (found, expected) = if place.is_a {
        (tensor.shape.get(1), input)
    } else {
        (tensor.shape.first(), output)
    };
    if found != Some(&expected) {
        misfits.add(|| {
            format!(
                "`{name}` has shape {:?}, the base's layer is {expected} wide",
                tensor.shape
            )
        });
    }
}

/// The first of many equal faults, and how many more.
#[derive(Default)]
struct Tally {
    first: Option<String>,
    more: usize,
}

impl Tally {
    fn add(&mut self, what: impl FnOnce() -> String) {
        if self.first.is_none() {
            self.first = Some(what());
        } else {
            self.more += 1;
        }
    }

    /// `why` follows the first directly and brings its own space or comma.
    fn fault(self, code: &str, why: &str, mend: &str) -> Option<Fault> {
        let first = self.first?;
        let more = match self.more {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        Some(fault(code, format!("{first}{why}{more}"), mend))
    }
}
