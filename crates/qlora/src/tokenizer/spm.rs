//! SentencePiece BPE as GGUF keeps it (pieces and scores), turned into merges.
//!
//! As in transformers' `SentencePieceExtractor`: every way to cut a piece in two known ones is a merge,
//! ordered by the piece's score; text gets U+2581 for spaces and one in front.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::vocab::Vocab;
use crate::error::{Error, Result};
use crate::weights::gguf::{self, Gguf};

const UNKNOWN: i64 = 2;
const NORMAL: i64 = 1;

pub(super) fn sentence_piece(gguf: &Gguf, vocab: &Vocab) -> Result<Value> {
    let scores: Vec<f64> = gguf
        .get("tokenizer.ggml.scores")
        .and_then(gguf::Value::as_array)
        .ok_or_else(|| {
            Error::unsupported(
                "tokenizer.ggml.scores",
                "absent",
                "use a GGUF that has its tokenizer inside",
            )
        })?
        .iter()
        .map(|score| score.as_f64().unwrap_or(f64::NEG_INFINITY))
        .collect();
    if scores.len() != vocab.tokens.len() {
        return Err(Error::shape(
            "`tokenizer.ggml.scores`",
            vocab.tokens.len(),
            scores.len(),
        ));
    }
    let unknown = vocab
        .types
        .iter()
        .position(|kind| *kind == UNKNOWN)
        .map_or("<unk>", |at| vocab.tokens[at]);
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let prefix = gguf
        .get("tokenizer.ggml.add_space_prefix")
        .and_then(gguf::Value::as_bool)
        .unwrap_or(true);
    let normalizers = if prefix {
        vec![json!({"type": "Prepend", "prepend": "▁"}), replace]
    } else {
        vec![replace]
    };
    Ok(json!({
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": null,
        "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": usize::from(prefix), "stop": 0},
        ]},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": vocab.ids(), "merges": merges(vocab, &scores),
        },
    }))
}

/// All two-part cuts of all pieces, best piece first.
fn merges(vocab: &Vocab, scores: &[f64]) -> Vec<[String; 2]> {
    let ids: BTreeMap<&str, usize> = vocab
        .tokens
        .iter()
        .enumerate()
        .map(|(id, token)| (*token, id))
        .collect();
    let mut found = Vec::new();
    for (id, piece) in vocab
        .tokens
        .iter()
        .enumerate()
        .filter(|(id, _)| vocab.types[*id] == NORMAL)
    {
        let mut cuts: Vec<(usize, usize)> = piece
            .char_indices()
            .skip(1)
            .filter_map(|(at, _)| Some((*ids.get(&piece[..at])?, *ids.get(&piece[at..])?)))
            .collect();
        cuts.sort_unstable();
        found.extend(
            cuts.into_iter()
                .map(|(left, right)| (scores[id], left, right)),
        );
    }
    // Stable: equal scores stay in the order of their pieces.
    found.sort_by(|a, b| b.0.total_cmp(&a.0));
    found
        .into_iter()
        .map(|(_, left, right)| {
            [
                vocab.tokens[left].to_string(),
                vocab.tokens[right].to_string(),
            ]
        })
        .collect()
}
