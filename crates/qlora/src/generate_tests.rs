//! Generation on a tiny random model: cache against full forward, batch against single, shared prefix,
//! stops.

use super::*;
use crate::nn::adapter::Target;
use crate::nn::lora::LoraConfig;
use crate::nn::model::tests::{tiny_config, tiny_model};
use crate::ops::simd::tests::noise;

fn adapted() -> (Model, Adapter) {
    let config = tiny_config();
    let lora = LoraConfig {
        r: 4,
        alpha: 8.0,
        dropout: 0.0,
        targets: Target::ALL.to_vec(),
        seed: 5,
        ..LoraConfig::default()
    };
    let mut adapter = Adapter::new(&config, &lora).unwrap();
    let values = noise(adapter.values().len(), 9);
    adapter.values_mut().copy_from_slice(&values);
    for value in adapter.values_mut() {
        *value *= 0.2;
    }
    (tiny_model(&config), adapter)
}

/// Each answer by a full forward per id.
fn slowly(generator: &Generator<'_>, prompt: &[u32], max_new: usize) -> Vec<u32> {
    let mut ids = prompt.to_vec();
    for _ in 0..max_new {
        let logits = generator.next_logits(std::slice::from_ref(&ids)).unwrap();
        ids.push(most_likely(logits.row(0)).unwrap());
    }
    ids[prompt.len()..].to_vec()
}

fn prompts() -> Vec<Vec<u32>> {
    let shared: Vec<u32> = (0..30).map(|i| (i * 7 + 3) % 61).collect();
    let with = |own: &[u32]| [&shared, own].concat();
    vec![
        with(&[5, 6, 7]),
        with(&[9]),
        vec![4, 4, 4, 60, 2],
        with(&(0..40).map(|i| i % 50).collect::<Vec<u32>>()),
        shared[..20].to_vec(),
    ]
}

#[test]
fn cache_batch_and_prefix_give_what_full_forwards_give() {
    let (mut model, adapter) = adapted();
    let generator = Generator::new(&mut model, Some(&adapter)).unwrap();
    let prompts = prompts();
    let together = generator.generate(&prompts, 12, &[]).unwrap();
    for (prompt, answer) in prompts.iter().zip(&together) {
        assert_eq!(*answer, slowly(&generator, prompt, 12));
        assert_eq!(
            *answer,
            generator
                .generate(std::slice::from_ref(prompt), 12, &[])
                .unwrap()[0],
            "alone"
        );
    }
}

#[test]
fn the_adapter_matters_and_leaves_no_trace() {
    let (mut model, adapter) = adapted();
    let base = Generator::new(&mut model, None)
        .unwrap()
        .next_logits(&prompts())
        .unwrap();
    let tuned = Generator::new(&mut model, Some(&adapter))
        .unwrap()
        .next_logits(&prompts())
        .unwrap();
    assert!(base != tuned);
    let again = Generator::new(&mut model, None)
        .unwrap()
        .next_logits(&prompts())
        .unwrap();
    for (a, b) in base.data().iter().zip(again.data()) {
        assert!((a - b).abs() < 1e-6);
    }
}

#[test]
fn rows_end_before_a_stop_id_each_on_its_own() {
    let (mut model, adapter) = adapted();
    let generator = Generator::new(&mut model, Some(&adapter)).unwrap();
    let prompts = prompts();
    let free = generator.generate(&prompts, 12, &[]).unwrap();
    let stop = free[0][3];
    let mut heard = Vec::new();
    let stopped = generator
        .generate_each(&prompts, 12, &[stop], &mut |place, ids| {
            heard.push((place, ids.len()));
            true
        })
        .unwrap();
    for (free, stopped) in free.iter().zip(&stopped) {
        let end = free.iter().position(|id| *id == stop).unwrap_or(12);
        assert_eq!(stopped[..], free[..end]);
    }
    heard.sort_unstable();
    assert_eq!(
        heard.iter().map(|h| h.0).collect::<Vec<_>>(),
        [0, 1, 2, 3, 4]
    );
    let cancelled = generator.generate_each(&prompts, 12, &[], &mut |_, _| false);
    assert!(matches!(cancelled, Err(Error::Cancelled)));
}

#[test]
fn bad_prompts_are_named() {
    let (mut model, _) = adapted();
    let generator = Generator::new(&mut model, None).unwrap();
    let text = |p: Vec<Vec<u32>>| generator.generate(&p, 1, &[]).unwrap_err().to_string();
    assert_eq!(text(vec![vec![1], vec![]]), "prompt 1 is empty");
    assert_eq!(
        text(vec![vec![61]]),
        "prompt 0 holds id `61`, and the model has 61"
    );
}
