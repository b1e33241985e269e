//! File patterns, and the file kinds that are never fetched.

/// Whether `path` fits `pattern`: `?` is one character and `*` any run of them within a
/// folder, `**` also crosses folders.
pub(super) fn fits(pattern: &str, path: &str) -> bool {
    fits_bytes(pattern.as_bytes(), path.as_bytes())
}

fn fits_bytes(pattern: &[u8], path: &[u8]) -> bool {
    match (pattern, path) {
        ([], []) => true,
        // `**/x` also means `x` itself.
        ([b'*', b'*', b'/', rest @ ..], _) if fits_bytes(rest, path) => true,
        ([b'*', b'*', rest @ ..], _) => (0..=path.len()).any(|at| fits_bytes(rest, &path[at..])),
        ([b'*', rest @ ..], _) => {
            let end = path
                .iter()
                .position(|&byte| byte == b'/')
                .unwrap_or(path.len());
            (0..=end).any(|at| fits_bytes(rest, &path[at..]))
        }
        ([b'?', rest @ ..], [byte, tail @ ..]) => *byte != b'/' && fits_bytes(rest, tail),
        ([left, rest @ ..], [right, tail @ ..]) => left == right && fits_bytes(rest, tail),
        _ => false,
    }
}

/// Whether a pattern names exactly one file.
pub(super) fn is_literal(pattern: &str) -> bool {
    !pattern.contains(['*', '?'])
}

/// Whether a file (or all files of a pattern) is in a format whose readers unpickle, that
/// is, run what the file says.
pub(super) fn is_pickle(path: &str) -> bool {
    const ENDINGS: [&str; 8] = [
        ".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill",
    ];
    let lower = path.to_ascii_lowercase();
    ENDINGS.iter().any(|ending| lower.ends_with(ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stay_in_their_folder() {
        for (pattern, path, expected) in [
            ("*.json", "config.json", true),
            ("*.json", "onnx/config.json", false),
            ("**/*.json", "onnx/config.json", true),
            ("**/*.json", "a/b/config.json", true),
            ("**/*.json", "config.json", true),
            ("**", "a/b/c", true),
            (
                "model-0000?-of-00003.safetensors",
                "model-00002-of-00003.safetensors",
                true,
            ),
            ("a?b", "a/b", false),
            ("data/*.parquet", "data/train-0.parquet", true),
            ("config.json", "config.jsonl", false),
            ("", "a", false),
        ] {
            assert_eq!(fits(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn pickles_are_known_by_their_endings() {
        for path in ["pytorch_model.bin", "a/b.PT", "x.pkl", "*.pth"] {
            assert!(is_pickle(path), "{path}");
        }
        for path in ["model.safetensors", "model.gguf", "bin", "tokenizer.model"] {
            assert!(!is_pickle(path), "{path}");
        }
    }
}
