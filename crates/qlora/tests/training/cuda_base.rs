//! A base on the card: read straight from files, it is the one that is quantized there, bit for bit.

use qlora::cuda::{Base, CudaEngine, Element, Generator, Options, bench};
use qlora::train::{Example, TrainConfig, TrainJob, train_on_gpu};
use qlora::{Adapter, LinearWeight, ModelFiles, Target, quantize_layers};

use crate::cuda::{base, folder, without_gpu};
use crate::cuda_work::{NF4, apart, lora};

fn rows() -> Vec<Example> {
    apart(6, |row| 40 + 3 * row)
}

/// The bits of an adapter after a few steps, and an answer.
fn trained(base: Base) -> (Vec<u32>, Vec<Vec<u32>>) {
    let mut adapter = Adapter::new(base.config(), &lora(0.05)).unwrap();
    let config = TrainConfig {
        batch: 3,
        epochs: 2,
        lr: 1e-2,
        ..TrainConfig::default()
    };
    let mut engine = CudaEngine::new(base, &adapter, Options::default()).unwrap();
    let rows = rows();
    let job = TrainJob::new(&rows, &config);
    train_on_gpu(&mut engine, &mut adapter, job, &mut |_| {}).unwrap();
    let bits = adapter.values().iter().map(|v| v.to_bits()).collect();
    let mut generator = Generator::new(engine.into_base(), Some(&adapter)).unwrap();
    let prompts = vec![rows[0].ids.clone(), rows[5].ids.clone()];
    let answers = generator
        .generate_each(&prompts, 12, &[], &mut |_, _| true)
        .unwrap();
    (bits, answers)
}

#[test]
fn layers_from_a_file_are_those_that_the_card_quantizes() {
    if without_gpu() {
        return;
    }
    let dir = folder(64);
    let file = dir.path().join("layers");
    let plain = || ModelFiles::open(dir.path()).unwrap();
    quantize_layers(&plain(), true, &file, &mut |_, _| true).unwrap();
    let with = || plain().with_layers(&file).unwrap();
    for element in [Element::F32, Element::Bf16] {
        let quantized = base(&plain(), element, NF4);
        let read = base(&with(), element, NF4);
        assert!(read.direct().bytes > quantized.direct().bytes);
        for layer in 0..3 {
            for target in Target::ALL {
                let name = format!("{}.weight", target.module(layer));
                let LinearWeight::Nf4(want) = with().linear(&name).unwrap() else {
                    panic!("{name} is not nf4")
                };
                for held in [&quantized, &read] {
                    assert_eq!(
                        bench::packed(held, layer, target).unwrap(),
                        want.packed(),
                        "{name}"
                    );
                }
            }
        }
        assert_eq!(trained(read), trained(quantized), "{element:?}");
    }
}
