//! Generation on the card: in f32 token by token what the CPU gives, in bf16 near it, and the same bytes however
//! its steps run. Without a GPU each test says so and passes.

use qlora::cuda::{Element, Generator, How};
use qlora::weights::ModelFiles;
use qlora::{Adapter, Error, LoraConfig, Matrix, Model, Quantization, Target};

use crate::cuda::{base, folder, folder_of, reference, without_gpu};
use crate::cuda_work::{NF4, lora};
use crate::peft_refs::{distance, golden};

fn ids(seed: u32, count: u32) -> Vec<u32> {
    (0..count)
        .map(|i| 3 + (seed * 131 + i * i * 17 + i * 37) % 250)
        .collect()
}

/// Prompts of which all but every fifth start alike.
fn prompts(count: u32) -> Vec<Vec<u32>> {
    (0..count)
        .map(|i| {
            let start = if i % 5 == 4 {
                ids(90 + i, 7)
            } else {
                ids(1, 21)
            };
            [start, ids(20 + i, 1 + i % 6)].concat()
        })
        .collect()
}

/// An adapter that changes what the base says.
fn adapter(model: &qlora::ModelConfig) -> Adapter {
    spread(model, &lora(0.0))
}

/// One on a single layer, on some of the maps that read one input.
fn partial(model: &qlora::ModelConfig) -> Adapter {
    let lora = LoraConfig {
        r: 4,
        targets: vec![Target::Q, Target::V, Target::Up, Target::Down],
        layers: Some(vec![1]),
        ..LoraConfig::default()
    };
    spread(model, &lora)
}

/// Neither half of a pair is zero.
fn spread(model: &qlora::ModelConfig, lora: &LoraConfig) -> Adapter {
    let mut adapter = Adapter::new(model, lora).unwrap();
    for (i, value) in adapter.values_mut().iter_mut().enumerate() {
        *value += ((i * 37 % 101) as f32 / 101.0 - 0.5) * 0.02;
    }
    adapter
}

fn all_ways() -> [How; 4] {
    [(true, true), (true, false), (false, true), (false, false)]
        .map(|(captured, narrow)| How { captured, narrow })
}

/// Largest difference, absolute.
fn apart(a: &Matrix, b: &Matrix) -> f32 {
    let pairs = a.data().iter().zip(b.data());
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// The model in `files`, on the card in f32 and on the CPU: logits and answers.
fn like_the_cpu(files: &ModelFiles, quantization: Quantization, adapter: Option<&Adapter>) {
    let mut model = Model::load(files, quantization).unwrap();
    let cpu = qlora::Generator::new(&mut model, adapter).unwrap();
    let base = base(files, Element::F32, quantization);
    let mut gpu = Generator::new(base, adapter).unwrap();
    let prompts = prompts(12);
    let want = cpu.next_logits(&prompts).unwrap();
    let read = gpu.next_logits(&prompts).unwrap();
    assert!(apart(&read, &want) < 1e-4, "read: {}", apart(&read, &want));
    let longer: Vec<Vec<u32>> = prompts
        .iter()
        .map(|p| [p.clone(), ids(3, 5)].concat())
        .collect();
    let want = cpu.next_logits(&longer).unwrap();
    let stepped = gpu.stepped_logits(&longer, 5).unwrap();
    assert!(
        apart(&stepped, &want) < 1e-4,
        "stepped: {}",
        apart(&stepped, &want)
    );

    let want = cpu.generate(&prompts, 40, &[]).unwrap();
    for how in all_ways() {
        gpu.how = how;
        let got = gpu.generate(&prompts, 40, &[]).unwrap();
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            assert_eq!(got, want, "{how:?}, prompt {i}");
        }
    }
    let alone = gpu.generate(&prompts[3..4], 40, &[]).unwrap();
    assert_eq!(alone[0], want[3], "alone");
}

#[test]
fn f32_answers_are_the_cpu_s() {
    if without_gpu() {
        return;
    }
    for name in ["tiny_f32", "tiny_bnb4_dq_f32", "tiny_bnb4_sq_f32"] {
        let files = ModelFiles::open(golden(name)).unwrap();
        let tuned = reference(&files.config().unwrap(), 0.0);
        like_the_cpu(&files, Quantization::None, None);
        like_the_cpu(&files, Quantization::None, Some(&tuned));
    }
    let files = ModelFiles::open(golden("tiny_f32")).unwrap();
    let some = partial(&files.config().unwrap());
    like_the_cpu(&files, Quantization::None, Some(&some));
}

#[test]
fn f32_answers_are_the_cpu_s_with_wide_heads_and_a_window() {
    if without_gpu() {
        return;
    }
    let dir = folder(64);
    for window in [None, Some(20)] {
        let path = dir.path().join("config.json");
        let text = std::fs::read_to_string(&path).unwrap();
        let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
        config["sliding_window"] = serde_json::json!(window);
        std::fs::write(&path, config.to_string()).unwrap();
        let files = ModelFiles::open(dir.path()).unwrap();
        let tuned = adapter(&files.config().unwrap());
        like_the_cpu(&files, NF4, Some(&tuned));
    }
}

#[test]
fn rows_end_on_their_own_and_the_rest_goes_on_as_a_smaller_batch() {
    if without_gpu() {
        return;
    }
    let files = ModelFiles::open(golden("tiny_f32")).unwrap();
    let mut model = Model::load(&files, Quantization::None).unwrap();
    let cpu = qlora::Generator::new(&mut model, None).unwrap();
    let mut gpu = Generator::new(base(&files, Element::F32, Quantization::None), None).unwrap();
    let prompts = prompts(40);
    let free = cpu.generate(&prompts, 30, &[]).unwrap();
    // Ids that end some rows at once, some later, some never.
    let stop = [free[0][2], free[1][9], free[2][17]];
    let want = cpu.generate(&prompts, 30, &stop).unwrap();
    assert!(want.iter().any(|a| a.len() < 10) && want.iter().any(|a| a.len() > 10));
    for how in all_ways() {
        gpu.how = how;
        let mut heard = vec![0; prompts.len()];
        let got = gpu
            .generate_each(&prompts, 30, &stop, &mut |place, ids| {
                heard[place] += 1;
                assert_eq!(ids, want[place], "{how:?}, prompt {place}");
                true
            })
            .unwrap();
        assert_eq!(got, want, "{how:?}");
        assert!(heard.iter().all(|n| *n == 1), "{how:?}: {heard:?}");
    }
    let mut left = 3;
    let cancelled = gpu.generate_each(&prompts, 30, &stop, &mut |_, _| {
        left -= 1;
        left > 0
    });
    assert!(matches!(cancelled, Err(Error::Cancelled)));
    assert_eq!(
        gpu.generate(&prompts, 0, &[]).unwrap(),
        vec![Vec::<u32>::new(); 40]
    );
    let refused = gpu.generate(&[vec![1], vec![]], 1, &[]).unwrap_err();
    assert_eq!(refused.to_string(), "prompt 1 is empty");
    let refused = gpu
        .generate(&[vec![1; 250]], 10, &[])
        .unwrap_err()
        .to_string();
    assert!(refused.contains("answers reach 260 ids"), "{refused}");
}

#[test]
fn bf16_steps_are_near_and_run_to_the_same_bytes_every_way() {
    if without_gpu() {
        return;
    }
    let dir = folder(64);
    let files = ModelFiles::open(dir.path()).unwrap();
    let tuned = adapter(&files.config().unwrap());
    let mut model = Model::load(&files, NF4).unwrap();
    let cpu = qlora::Generator::new(&mut model, Some(&tuned)).unwrap();
    let mut gpu = Generator::new(base(&files, Element::Bf16, NF4), Some(&tuned)).unwrap();
    // Every kernel for narrow products: one, two, four and eight groups of eight rows.
    for count in [1, 5, 11, 20, 60] {
        let prompts: Vec<Vec<u32>> = prompts(count)
            .into_iter()
            .map(|p| [p, ids(7, 4)].concat())
            .collect();
        let f32 = cpu.next_logits(&prompts).unwrap();
        let read = gpu.next_logits(&prompts).unwrap();
        let [inside, before] = [true, false].map(|narrow| {
            gpu.how.narrow = narrow;
            gpu.stepped_logits(&prompts, 4).unwrap()
        });
        let off = |a: &Matrix, b: &Matrix| distance(a.data(), b.data());
        let far = [
            off(&read, &f32),
            off(&inside, &f32),
            off(&before, &f32),
            off(&inside, &before),
        ];
        eprintln!(
            "{count} rows: off by {:.2e} read, {:.2e} decoded inside, {:.2e} before, {:.2e} apart",
            far[0], far[1], far[2], far[3]
        );
        // What bf16 costs a pass over the whole prompt, it may cost steps; a wrong key or weight costs far more.
        assert!(far[0] < 3e-2, "{count} rows, read: {far:?}");
        assert!(
            far[1] < 1.5 * far[0] + 2e-3,
            "{count} rows, inside: {far:?}"
        );
        assert!(
            far[2] < 1.5 * far[0] + 2e-3,
            "{count} rows, before: {far:?}"
        );
    }
    let prompts = prompts(20);
    for narrow in [true, false] {
        let [first, plain, again] = [true, false, true].map(|captured| {
            gpu.how = How { captured, narrow };
            gpu.generate(&prompts, 40, &[]).unwrap()
        });
        assert_eq!(first, plain, "captured and plain, narrow {narrow}");
        assert_eq!(first, again, "twice, narrow {narrow}");
    }
}

/// SmolLM2's sides: the inner length ends in the middle of a stage of the narrow products.
#[test]
fn bf16_steps_on_an_inner_length_that_ends_inside_of_a_stage() {
    if without_gpu() {
        return;
    }
    let dir = folder_of(576, 1536, (9, 3), 64);
    let files = ModelFiles::open(dir.path()).unwrap();
    let tuned = adapter(&files.config().unwrap());
    let mut gpu = Generator::new(base(&files, Element::Bf16, NF4), Some(&tuned)).unwrap();
    for count in [1, 11, 20, 60] {
        let prompts = prompts(count);
        let read = gpu.next_logits(&prompts).unwrap();
        for narrow in [true, false] {
            gpu.how.narrow = narrow;
            let stepped = gpu.stepped_logits(&prompts, 4).unwrap();
            let far = distance(stepped.data(), read.data());
            assert!(far < 3e-2, "{count} rows, narrow {narrow}: {far}");
        }
    }
}
