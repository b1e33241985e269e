//! Hugging Face tensor names to GGUF's, and llama.cpp's rotary row order undone.

/// The parts of a decoder layer: GGUF's word and Hugging Face's.
const LAYER: &[(&str, &str)] = &[
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

const WHOLE: &[(&str, &str)] = &[
    ("token_embd", "model.embed_tokens"),
    ("output_norm", "model.norm"),
    ("output", "lm_head"),
];

/// `model.layers.3.self_attn.q_proj.weight` -> `blk.3.attn_q.weight`.
pub(crate) fn to_gguf(hf: &str) -> Option<String> {
    let (stem, kind) = hf.rsplit_once('.')?;
    if let Some((gguf, _)) = WHOLE.iter().find(|(_, name)| *name == stem) {
        return Some(format!("{gguf}.{kind}"));
    }
    let (layer, part) = stem.strip_prefix("model.layers.")?.split_once('.')?;
    let (gguf, _) = LAYER.iter().find(|(_, name)| *name == part)?;
    Some(format!("blk.{layer}.{gguf}.{kind}"))
}

/// `blk.3.attn_q.weight` -> `model.layers.3.self_attn.q_proj.weight`.
pub(crate) fn to_hf(gguf: &str) -> Option<String> {
    let (stem, kind) = gguf.rsplit_once('.')?;
    if let Some((_, hf)) = WHOLE.iter().find(|(name, _)| *name == stem) {
        return Some(format!("{hf}.{kind}"));
    }
    let (layer, part) = stem.strip_prefix("blk.")?.split_once('.')?;
    let (_, hf) = LAYER.iter().find(|(name, _)| *name == part)?;
    Some(format!("model.layers.{layer}.{hf}.{kind}"))
}

/// Puts the rows of a llama q or k projection back into Hugging Face's order.
///
/// llama.cpp's converter interleaves the two halves of each head, because its rotary embedding turns
/// neighbouring pairs: GGUF row `2j + s` of a head is row `s * head_dim / 2 + j` of the original.
pub(crate) fn undo_rope_permutation(values: &[f32], cols: usize, head_dim: usize) -> Vec<f32> {
    let mut restored = vec![0.0; values.len()];
    for (from, to) in values
        .chunks(head_dim * cols)
        .zip(restored.chunks_mut(head_dim * cols))
    {
        for (row, source) in from.chunks(cols).enumerate() {
            let target = (row % 2) * (head_dim / 2) + row / 2;
            to[target * cols..(target + 1) * cols].copy_from_slice(source);
        }
    }
    restored
}

#[cfg(test)]
mod tests {
    use super::{to_gguf, to_hf, undo_rope_permutation};

    #[test]
    fn names_go_there_and_back() {
        for name in [
            "model.embed_tokens.weight",
            "model.norm.weight",
            "lm_head.weight",
            "model.layers.11.self_attn.k_proj.bias",
            "model.layers.0.mlp.down_proj.weight",
        ] {
            assert_eq!(to_hf(&to_gguf(name).unwrap()).unwrap(), name);
        }
        assert_eq!(
            to_gguf("model.layers.0.self_attn.rotary_emb.inv_freq"),
            None
        );
    }

    #[test]
    fn the_halves_of_a_head_come_apart_again() {
        // Two heads of width 4, one column; original rows 0..8, as llama.cpp's `permute` stores them.
        let stored = [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0];
        assert_eq!(
            undo_rope_permutation(&stored, 1, 4),
            [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
        );
    }
}
