//! Layers that stay decoded where the card has room: other memory, the same bytes. Without a GPU each test says so and
//! passes.

use qlora::cuda::{CudaEngine, Element, Options};
use qlora::train::{TrainConfig, TrainEvent, TrainJob, plan_on_gpu, train_on_gpu};
use qlora::weights::ModelFiles;
use qlora::{Adapter, LoraConfig, Quantization, Target};

use crate::cuda::{base, folder, rows, without_gpu};

const NF4: Quantization = Quantization::Nf4 { double: true };

fn start(shape: &qlora::ModelConfig) -> Adapter {
    let lora = LoraConfig {
        r: 8,
        alpha: 16.0,
        dropout: 0.05,
        targets: Target::ALL.to_vec(),
        seed: 1,
        ..LoraConfig::default()
    };
    Adapter::new(shape, &lora).unwrap()
}

fn settings() -> TrainConfig {
    TrainConfig {
        batch: 4,
        epochs: 3,
        lr: 1e-2,
        ..TrainConfig::default()
    }
}

/// The adapter's bits after some steps, the layers that stayed decoded by the plan, and their bytes at the end.
fn run(files: &ModelFiles, element: Element, options: Options) -> (Vec<u32>, usize, usize) {
    let card = base(files, element, NF4);
    let mut adapter = start(card.config());
    let mut engine = CudaEngine::new(card, &adapter, options).unwrap();
    let (rows, config) = (rows(7), settings());
    let job = TrainJob {
        val: &rows[6..],
        ..TrainJob::new(&rows, &config)
    };
    let mut layers = 0;
    let mut sink = |event: TrainEvent| {
        if let TrainEvent::Started { plan, .. } = event {
            layers = plan.decoded_layers;
        }
    };
    train_on_gpu(&mut engine, &mut adapter, job, &mut sink).unwrap();
    let bits = adapter.values().iter().map(|v| v.to_bits()).collect();
    (bits, layers, engine.decoded_bytes())
}

#[test]
fn layers_that_stay_decoded_give_the_same_bytes() {
    if without_gpu() {
        return;
    }
    let made = folder(128);
    let files = ModelFiles::open(made.path()).unwrap();
    let all = files.config().unwrap().layers;
    for element in [Element::Bf16, Element::F32] {
        let again = Options {
            decode_again: true,
            ..Options::default()
        };
        let (want, none, zero) = run(&files, element, again);
        assert_eq!((none, zero), (0, 0));
        let (got, layers, bytes) = run(&files, element, Options::default());
        assert_eq!(layers, all);
        assert!(bytes > 0);
        assert!(got == want, "{element:?}: other bytes");
        // Room for some of the layers alone.
        let card = base(&files, element, NF4);
        let adapter = start(card.config());
        let engine = CudaEngine::new(card, &adapter, Options::default()).unwrap();
        let (rows, config) = (rows(7), settings());
        let job = TrainJob {
            val: &rows[6..],
            ..TrainJob::new(&rows, &config)
        };
        let plan = plan_on_gpu(&engine, &adapter, job).unwrap();
        let memory = engine.bytes().0 as u64 + plan.bytes + plan.decoded_bytes - 1;
        drop(engine);
        let tight = Options {
            memory: Some(memory as usize),
            ..Options::default()
        };
        let (got, layers, fewer) = run(&files, element, tight);
        assert_eq!(layers, all - 1);
        assert!(fewer < bytes && got == want, "{element:?}: other bytes");
    }
}
