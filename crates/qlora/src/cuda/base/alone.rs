//! One weight of its own, to the card and back: for checks.

use kernels::Element;

use super::super::device::Device;
use super::super::exec::Exec;
use super::Precision;
use super::loader::Loader;
use crate::config::ModelConfig;
use crate::dtype::Dtype;
use crate::error::Result;
use crate::nf4::Nf4Tensor;
use crate::nn::model::Quantization;
use crate::tensor::Matrix;

/// A loader for one weight.
fn lone(device: Device, element: Element) -> Loader {
    let precision = Precision {
        element,
        quantization: Quantization::Nf4 { double: true },
    };
    Loader::unchecked(device, ModelConfig::default(), precision)
}

pub(in crate::cuda) fn decoded(
    device: Device,
    tensor: &Nf4Tensor,
    element: Element,
) -> Result<Matrix> {
    let (outputs, inputs) = tensor.shape();
    let mut loader = lone(device, element);
    let nf4 = loader.stored(tensor)?;
    let room = 64;
    let stride = inputs + room;
    let block = loader.device.allocate(outputs * stride * 4 + (64 << 20))?;
    let mut exec = Exec::on(&loader.device, element, block);
    let out = exec.rows(outputs, stride);
    nf4.decode(&mut exec, out.columns(0, inputs));
    exec.check()?;
    let mut bytes = vec![0u8; outputs * stride * element.size()];
    loader.device.download(out.region(), &mut bytes)?;
    let dtype = match element {
        Element::Bf16 => Dtype::Bf16,
        Element::F32 => Dtype::F32,
    };
    let values = dtype.decode(&bytes);
    let dense: Vec<f32> = values
        .chunks_exact(stride)
        .flat_map(|r| r[..inputs].to_vec())
        .collect();
    loader.device.free(block);
    Ok(Matrix::new(outputs, inputs, dense))
}

pub(in crate::cuda) fn encoded(device: Device, weight: &Matrix, double: bool) -> Result<Vec<u8>> {
    let mut loader = lone(device, Element::F32);
    let staging = loader.staging(weight.rows() * weight.cols())?;
    loader.device.upload(staging, weight.data())?;
    let nf4 = loader.encode(weight.rows(), weight.cols(), double, Element::F32)?;
    let mut packed = vec![0; weight.rows() * weight.cols() / 2];
    loader.device.download(nf4.packed, &mut packed)?;
    Ok(packed)
}
