//! A forward through base and adapter against a forward through the weights that peft merged
//! (`golden/peft-refs/tiny_merged_f32.safetensors`).

use qlora::peft::PeftAdapter;
use qlora::weights::ModelFiles;
use qlora::{Adapter, Generator, Matrix, Model, Quantization};
use safetensors::SafeTensors;

use crate::peft_refs::{batch, floats, golden};

/// Relative distance of whole rows of logits.
fn distance(a: &Matrix, b: &Matrix) -> f64 {
    let square =
        |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v).powi(2)).sum::<f64>();
    let difference = square(&mut a.data().iter().zip(b.data()).map(|(a, b)| a - b));
    (difference / square(&mut b.data().iter().copied())).sqrt()
}

#[test]
fn base_and_adapter_give_the_logits_of_the_merged_weights() {
    let files = ModelFiles::open(golden("tiny_f32")).unwrap();
    let mut base = Model::load(&files, Quantization::None).unwrap();
    let peft = PeftAdapter::load(&golden("tiny_lora")).unwrap();
    let adapter = Adapter::from_peft(base.config(), &peft).unwrap();

    let file = std::fs::read(golden("tiny_merged_f32.safetensors")).unwrap();
    let weights = SafeTensors::deserialize(&file).unwrap();
    let linear = |name: &str| {
        let shape = weights.tensor(name).unwrap().shape().to_vec();
        Ok(Matrix::new(shape[0], shape[1], floats(&weights, name)))
    };
    let mut merged = Model::from_tensors(base.config(), linear, |name| files.tensor(name)).unwrap();

    let prompts: Vec<Vec<u32>> = batch().into_iter().map(|row| row.ids).collect();
    let plain = Generator::new(&mut base, None)
        .unwrap()
        .next_logits(&prompts)
        .unwrap();
    let adapted = Generator::new(&mut base, Some(&adapter))
        .unwrap()
        .next_logits(&prompts)
        .unwrap();
    let merged = Generator::new(&mut merged, None)
        .unwrap()
        .next_logits(&prompts)
        .unwrap();
    let far = distance(&adapted, &merged);
    assert!(far < 1e-4, "adapter and merged weights differ by {far}");
    assert!(
        distance(&plain, &merged) > 1e-2,
        "the adapter changes the logits"
    );
}
