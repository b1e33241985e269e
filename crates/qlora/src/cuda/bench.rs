//! Measurements of the card and of single ops, for the benchmark and for checks.

use kernels::Element;

use super::base::{Base, Weight, noise};
use super::blas::{Product, WORKSPACE};
use super::device::Device;
use super::exec::Exec;
use super::memory::Rows;
use crate::error::Result;
use crate::nf4::Nf4Tensor;
use crate::nn::adapter::{Site, Target};
use crate::nn::model::Quantization;
use crate::tensor::Matrix;

/// TFLOP/s of `n x n x n` products in bf16 over about `seconds`: what the card holds, not what it bursts.
///
/// # Errors
/// [`crate::Error::Device`].
pub fn sustained_products(device: &Device, n: usize, seconds: f64) -> Result<f64> {
    device.bind()?;
    let bytes = 3 * 2 * n * n + WORKSPACE + (1 << 20);
    let block = device.allocate(bytes)?;
    let mut exec = Exec::on(device, Element::Bf16, block);
    let [a, b, out] = [exec.rows(n, n), exec.rows(n, n), exec.rows(n, n)];
    noise(device, a.region(), n * n, Element::Bf16, 1, 1.0)?;
    noise(device, b.region(), n * n, Element::Bf16, 2, 1.0)?;
    let product = Product {
        a,
        a_t: false,
        b,
        b_t: true,
        out,
        alpha: 1.0,
        add: None,
    };
    let (from, to) = (device.event()?, device.event()?);
    let flops = 2.0 * (n as f64).powi(3);
    let count = ((seconds * 700e12 / flops) as usize).max(10);
    for _ in 0..count / 4 {
        exec.product(&product);
    }
    device.record(from, false)?;
    for _ in 0..count {
        exec.product(&product);
    }
    device.record(to, false)?;
    exec.check()?;
    let ms = f64::from(device.elapsed(from, to)?);
    device.free(block);
    Ok(count as f64 * flops / ms / 1e9)
}

/// Microseconds and TB/s (bytes in and out) of decoding the first layers' gate weights to bf16, each once a
/// round so that no cache holds them.
///
/// # Errors
/// [`crate::Error::Device`].
pub fn decoding(base: &Base) -> Result<(f64, f64)> {
    let device = &base.device;
    device.bind()?;
    let (outputs, inputs) = (base.config.intermediate, base.config.hidden);
    let bytes = outputs * inputs * 2;
    let block = device.allocate(4 * (bytes + 256) + WORKSPACE + 4096)?;
    let mut exec = Exec::on(device, Element::Bf16, block);
    let outs: Vec<Rows> = (0..4).map(|_| exec.rows(outputs, inputs)).collect();
    let (from, to) = (device.event()?, device.event()?);
    let rounds = 200;
    for i in 0..rounds + 20 {
        if i == 20 {
            device.record(from, false)?;
        }
        let Weight::Nf4(parts) = base.weight(i % base.config.layers.min(16), Site::GateUp) else {
            break;
        };
        parts[0].decode(&mut exec, outs[i % 4]);
    }
    device.record(to, false)?;
    exec.check()?;
    let us = f64::from(device.elapsed(from, to)?) * 1e3 / f64::from(rounds as u32);
    device.free(block);
    let moved = (outputs * inputs) as f64 * (0.5 + 2.0 + 1.0 / 64.0);
    Ok((us, moved / us / 1e6))
}

/// Decodes a stored weight on the card, to f32 or (rounded) bf16 values.
///
/// # Errors
/// [`crate::Error::Device`].
pub fn decoded(tensor: &Nf4Tensor, element: Element) -> Result<Matrix> {
    let device = Device::open()?;
    super::base::decoded(device, tensor, element)
}

/// Encodes values on the card; gives what [`Nf4Tensor::quantize`] gives.
///
/// # Errors
/// [`crate::Error::Device`].
pub fn encoded(weight: &Matrix, double: bool) -> Result<Vec<u8>> {
    let device = Device::open()?;
    super::base::encoded(device, weight, double)
}

/// The precision that a benchmark uses.
pub fn qlora_precision() -> super::Precision {
    super::Precision {
        element: Element::Bf16,
        quantization: Quantization::Nf4 { double: true },
    }
}

/// Times every op from here on; each is waited for.
pub fn start_profile(device: &Device) {
    device.profile.start();
}

/// Op, milliseconds and calls since the start, slowest first.
pub fn stop_profile(device: &Device) -> Vec<(String, f64, usize)> {
    device.profile.stop()
}

/// The codes of a stored weight, as they lie on the card.
///
/// # Errors
/// [`crate::Error::Device`].
///
/// # Panics
/// Where the weight is not in four bits.
pub fn packed(base: &Base, layer: usize, target: Target) -> Result<Vec<u8>> {
    base.device.bind()?;
    let site = Site::ALL
        .into_iter()
        .find(|s| s.targets().contains(&target));
    let site = site.expect("every target has a site");
    let at = site.targets().iter().position(|t| *t == target);
    let Weight::Nf4(stacked) = base.weight(layer, site) else {
        panic!("a dense weight has no codes");
    };
    let region = stacked[at.expect("found above")].packed;
    let mut bytes = vec![0; region.bytes];
    base.device.download(region, &mut bytes)?;
    Ok(bytes)
}
