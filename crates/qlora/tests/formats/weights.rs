//! Model folders: safetensors whole and in shards, bitsandbytes checkpoints, broken files.

use std::path::Path;

use qlora::nf4::Nf4Tensor;
use qlora::{Error, LinearWeight, Matrix, ModelFiles};
use serde_json::json;

use crate::support::{Golden, golden};

const Q: &str = "model.layers.1.self_attn.q_proj.weight";

/// A copy of a golden model folder that a test may break.
fn copy(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(golden(name)).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    folder
}

fn refusal(path: &Path) -> Error {
    ModelFiles::open(path).unwrap_err()
}

#[test]
fn a_plain_model_gives_its_own_values() {
    for (name, file) in [
        ("tiny_f32", "tiny_f32/model.safetensors"),
        ("tiny_bf16", "tiny_bf16/model.safetensors"),
    ] {
        let model = ModelFiles::open(golden("peft-refs").join(name)).unwrap();
        let raw = Golden::open(&format!("peft-refs/{file}"));
        let names = model.names();
        assert_eq!(names.len(), 21);
        for name in &names {
            assert_eq!(
                model.tensor(name).unwrap().data(),
                raw.floats(name),
                "{name}"
            );
        }
        let norm = model.tensor("model.norm.weight").unwrap();
        assert_eq!((norm.rows(), norm.cols()), (1, 64));
        assert!(matches!(model.linear(Q).unwrap(), LinearWeight::Dense(_)));
    }
}

#[test]
fn a_bitsandbytes_checkpoint_keeps_its_four_bits() {
    let plain = ModelFiles::open(golden("peft-refs/tiny_f32")).unwrap();
    for (name, double) in [("tiny_bnb4_dq_f32", true), ("tiny_bnb4_sq_f32", false)] {
        let model = ModelFiles::open(golden("peft-refs").join(name)).unwrap();
        assert_eq!(model.names(), plain.names());
        let LinearWeight::Nf4(theirs) = model.linear(Q).unwrap() else {
            panic!("{Q} is not nf4")
        };
        let ours = Nf4Tensor::quantize(&plain.tensor(Q).unwrap(), double).unwrap();
        assert_eq!(theirs.packed(), ours.packed());
        assert_eq!(model.tensor(Q).unwrap(), theirs.dequantize());
        // Embedding, norms and head stay as they were.
        for name in [
            "model.embed_tokens.weight",
            "lm_head.weight",
            "model.norm.weight",
        ] {
            assert_eq!(model.tensor(name).unwrap(), plain.tensor(name).unwrap());
        }
    }
}

#[test]
fn shards_read_as_one_model() {
    let whole = ModelFiles::open(golden("peft-refs/tiny_f32")).unwrap();
    let folder = copy("peft-refs/tiny_f32");
    std::fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    let raw = Golden::open("peft-refs/tiny_f32/model.safetensors");
    let mut map = serde_json::Map::new();
    for (at, part) in whole.names().chunks(11).enumerate() {
        let file = format!("model-{:05}-of-00002.safetensors", at + 1);
        let tensors = raw.tensors();
        let views = part
            .iter()
            .map(|name| (name.clone(), tensors.tensor(name).unwrap()));
        std::fs::write(
            folder.path().join(&file),
            safetensors::serialize(views, None).unwrap(),
        )
        .unwrap();
        map.extend(part.iter().map(|name| (name.clone(), json!(file))));
    }
    let index = folder.path().join("model.safetensors.index.json");
    std::fs::write(
        &index,
        json!({"metadata": {}, "weight_map": map}).to_string(),
    )
    .unwrap();
    let sharded = ModelFiles::open(folder.path()).unwrap();
    assert_eq!(sharded.names(), whole.names());
    for name in whole.names() {
        assert_eq!(sharded.tensor(&name).unwrap(), whole.tensor(&name).unwrap());
    }
    std::fs::remove_file(folder.path().join("model-00002-of-00002.safetensors")).unwrap();
    let error = refusal(folder.path());
    assert_eq!(
        error.to_string(),
        format!(
            "`{}`: shard `model-00002-of-00002.safetensors` is not in the folder",
            index.display()
        )
    );
}

#[test]
fn a_truncated_file_is_named_with_both_lengths_and_a_mend() {
    let folder = copy("peft-refs/tiny_f32");
    let file = folder.path().join("model.safetensors");
    let whole = std::fs::read(&file).unwrap();
    for cut in [whole.len() - 1, whole.len() / 2, 100, 3, 0] {
        std::fs::write(&file, &whole[..cut]).unwrap();
        let error = refusal(folder.path());
        let Error::Truncated {
            path,
            expected,
            actual,
        } = &error
        else {
            panic!("{cut}: {error:?}")
        };
        assert_eq!((path, *actual), (&file, cut as u64));
        // Where the header is whole, the full length is known.
        assert!(
            *expected == whole.len() as u64 || (cut <= 100 && *expected > cut as u64),
            "{expected}"
        );
        assert_eq!(error.code(), "qlora::truncated");
        assert_eq!(
            error.mend().unwrap(),
            "delete the file and fetch it again: the download was interrupted"
        );
    }
}

#[test]
fn what_is_not_a_model_is_refused_by_name() {
    let folder = copy("peft-refs/tiny_f32");
    let file = folder.path().join("model.safetensors");
    std::fs::write(
        &file,
        "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
    )
    .unwrap();
    assert!(
        refusal(folder.path())
            .to_string()
            .ends_with("it is a git-lfs pointer, not the file itself")
    );
    std::fs::rename(&file, folder.path().join("pytorch_model.bin")).unwrap();
    let error = refusal(folder.path());
    assert!(
        error.to_string().ends_with(
            "pytorch_model.bin`: pickle files can run code when read and are not opened"
        )
    );
    assert_eq!(
        error.mend().unwrap(),
        "use the safetensors files of the model"
    );
    let empty = tempfile::tempdir().unwrap();
    assert!(
        refusal(empty.path())
            .to_string()
            .ends_with("there is no model in this folder")
    );
    assert_eq!(refusal(&empty.path().join("absent")).code(), "qlora::io");
}

#[test]
fn a_missing_tensor_is_named() {
    let model = ModelFiles::open(golden("peft-refs/tiny_f32")).unwrap();
    let error = model
        .tensor("model.layers.2.mlp.up_proj.weight")
        .unwrap_err();
    assert_eq!(error.code(), "qlora::missing-tensor");
    assert!(
        error
            .to_string()
            .ends_with("has no tensor `model.layers.2.mlp.up_proj.weight`")
    );
}

#[test]
fn a_hugging_face_cache_entry_opens_at_its_main_revision() {
    let cache = tempfile::tempdir().unwrap();
    let entry = cache.path().join("models--org--tiny");
    let (old, new) = (entry.join("snapshots/0001"), entry.join("snapshots/0002"));
    std::fs::create_dir_all(&old).unwrap();
    std::fs::create_dir_all(&new).unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(golden("peft-refs/tiny_f32").join(file), new.join(file)).unwrap();
    }
    assert!(
        refusal(&entry)
            .to_string()
            .contains("2 snapshots and no refs/main")
    );
    std::fs::create_dir_all(entry.join("refs")).unwrap();
    std::fs::write(entry.join("refs/main"), "0002\n").unwrap();
    assert_eq!(ModelFiles::open(&entry).unwrap().path(), new);
}

#[test]
fn a_quantized_base_written_by_us_reads_back() {
    let plain = ModelFiles::open(golden("peft-refs/tiny_f32")).unwrap();
    let folder = copy("peft-refs/tiny_f32");
    let weight = plain.tensor(Q).unwrap();
    let tensor = Nf4Tensor::quantize(&weight, true).unwrap();
    qlora::weights::write_safetensors(
        &folder.path().join("model.safetensors"),
        &tensor.to_entries(Q),
    )
    .unwrap();
    let model = ModelFiles::open(folder.path()).unwrap();
    let LinearWeight::Nf4(read) = model.linear(Q).unwrap() else {
        panic!("{Q} is not nf4")
    };
    assert_eq!(read, tensor);
    assert!(tensor.size() < weight.data().len());
    let _: Matrix = model.tensor(Q).unwrap();
}
