//! The one list of built-in stages. Parser, help, schema and worker read it.

use crate::contract::Stage;
use crate::convert::Convert;
use crate::eval::Eval;
use crate::export::Export;
use crate::fetch::Fetch;
use crate::layers::Layers;
use crate::split::Split;
use crate::synthesize::Synthesize;
use crate::train::Train;
use crate::train::memory::MemoryPlan;
use crate::upload::Upload;
use crate::validate::Validate;

/// Every built-in stage, in the order of the pipeline.
pub fn all() -> &'static [&'static dyn Stage] {
    &[
        &Fetch,
        &Convert,
        &Synthesize,
        &Validate,
        &Split,
        &Train,
        &Eval,
        &Export,
        &Upload,
    ]
}

/// Those that nobody names in `uses:`: other stages derive their inputs by them, or the command asks them.
fn makers() -> &'static [&'static dyn Stage] {
    &[&Layers, &MemoryPlan]
}

/// The stage of this kind, as a worker is asked for it.
pub fn find(kind: &str) -> Option<&'static dyn Stage> {
    let mut known = all().iter().chain(makers()).copied();
    known.find(|stage| stage.kind() == kind)
}

#[cfg(test)]
mod tests {
    use super::{all, makers};

    /// Everything that a key takes from the code. A default that changes changes results without
    /// changing keys: raise the version of its kind in the same commit.
    #[test]
    #[expect(clippy::too_many_lines, reason = "the lines are the snapshot")]
    fn what_keys_rest_on_is_pinned() {
        let mut text = String::new();
        for stage in all().iter().chain(makers()) {
            text.push_str(&format!("{} {}\n", stage.kind(), stage.version()));
            for (part, version) in stage.shared() {
                text.push_str(&format!("  with {part} {version}\n"));
            }
            for field in stage.fields() {
                let default = field.default.unwrap_or("(required)");
                text.push_str(&format!("  {} = {default}\n", field.name));
            }
        }
        insta::assert_snapshot!(text, @r#"
        fetch 1
          path = null
          url = null
          pypi = null
          file = null
          model = null
          dataset = null
          revision = null
          files = null
          sha256 = null
          file_sha256 = null
          name = null
          licenses = null
        convert 2
          with conversation 1
          with format 1
          with similarity 1
          format = (required)
          take = null
          keep_tools = false
          source = null
          longest = 6000
          near = 0.8
        synthesize 1
          with conversation 1
          with similarity 1
          provider = "grammar"
          count = 400
          mix = {}
          model = null
          base_url = null
          budget_usd = null
          price_in = null
          price_out = null
          per_request = 10
          max_tokens = 8192
        validate 1
          with conversation 1
          with format 1
          with prompt 1
          with similarity 1
          min_examples = 300
          negatives_min = 0.10
          negatives_max = 0.15
          context = 15000
          on_fault = "fail"
          review = 0.0
          review_of = ["model"]
        split 1
          with conversation 1
          with similarity 1
          fraction = 0.15
          near = 0.8
        train 1
          with conversation 1
          with engine 2
          with format 1
          with prompt 1
          with template 1
          quantization = "nf4"
          r = 16
          alpha = 32
          dropout = 0
          targets = ["q_proj","k_proj","v_proj","o_proj","gate_proj","up_proj","down_proj"]
          layers = null
          rank_pattern = {}
          alpha_pattern = {}
          rslora = false
          init = "kaiming"
          lr = 2e-4
          lora_plus = 1
          schedule = "cosine"
          lr_end = 0
          warmup_ratio = 0.05
          warmup_steps = null
          weight_decay = 0.01
          beta1 = 0.9
          beta2 = 0.999
          eps = 1e-8
          clip = 1.0
          loss = "token"
          batch = 16
          batch_tokens = null
          epochs = 2
          max_steps = null
          context = 2048
          too_long = "refuse"
          labels = "all"
          weights = {}
          row_weights = false
          eval_every = null
          save_every = null
          early_stop = null
          keep_best = false
          keep = 0
          shared_prefix = true
          samples = ["remind me to water the plants on saturday","what can you do?"]
        eval 1
          with engine 2
          with format 1
          with prompt 1
          with template 1
          quantization = "none"
          max_new_tokens = 200
        export 1
          with prompt 1
          with template 1
          target = "folder"
          model_type = (required)
          dtype = "bf16"
          base_name = null
        upload 1
          target = (required)
          name = null
          model = null
          account = null
          api_base = null
          description = ""
          folder = null
          verify = true
          prompts = null
          max_tokens = 512
          wait_seconds = 900
          limit = 100
        nf4-layers 1
          with layers 1
          double = true
        memory-plan 1
          train = {}
          cards = []
        "#);
    }
}
