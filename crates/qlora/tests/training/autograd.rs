//! The whole decoder's loss and LoRA gradients against candle's autograd on plain ops (no fused op: those
//! lose gradients silently), with grouped heads, biases and a window, through the public door.

use std::collections::BTreeMap;

use candle_core::{D, Device, Result, Tensor, Var};
use qlora::train::{Example, Schedule, TrainConfig, TrainEvent, TrainJob, train};
use qlora::{
    Adapter, Architecture, LayerAttention, LoraConfig, Matrix, Model, ModelConfig, Slot, Target,
};

fn noise(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut draw = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..len).map(|_| draw()).collect()
}

fn config(qkv_bias: bool, sliding_window: Option<usize>) -> ModelConfig {
    ModelConfig {
        architecture: if qkv_bias {
            Architecture::Qwen2
        } else {
            Architecture::Mistral
        },
        vocab: 67,
        hidden: 48,
        intermediate: 80,
        layers: 3,
        heads: 6,
        kv_heads: 2,
        head_dim: 8,
        attention: vec![
            LayerAttention {
                window: sliding_window,
                ..LayerAttention::default()
            };
            3
        ],
        attention_scale: ModelConfig::plain_scale(8),
        tie_embeddings: qkv_bias,
        qkv_bias,
        max_position: 256,
        eos: vec![2],
        ..ModelConfig::default()
    }
}

/// Random weights by name, the same for both engines.
fn weight(config: &ModelConfig, name: &str) -> Matrix {
    let seed = name
        .bytes()
        .fold(5u64, |h, b| h.wrapping_mul(31).wrapping_add(u64::from(b)));
    let (rows, cols) = match Target::ALL.into_iter().find(|t| name.contains(t.path())) {
        Some(t) if name.ends_with("bias") => (1, t.shape(config).0),
        Some(t) => t.shape(config),
        None if name.ends_with("norm.weight") => (1, config.hidden),
        None => (config.vocab, config.hidden),
    };
    let centre = if name.ends_with("norm.weight") {
        1.0
    } else {
        0.0
    };
    Matrix::new(
        rows,
        cols,
        noise(rows * cols, seed)
            .iter()
            .map(|v| centre + 0.25 * v)
            .collect(),
    )
}

struct Oracle<'a> {
    config: &'a ModelConfig,
    scale: f64,
    /// Per layer and target: A, B.
    pairs: BTreeMap<(usize, Target), (Var, Var)>,
}

impl Oracle<'_> {
    fn tensor(&self, name: &str) -> Result<Tensor> {
        let m = weight(self.config, name);
        Tensor::from_slice(m.data(), (m.rows(), m.cols()), &Device::Cpu)
    }

    fn norm(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        let mean = x.sqr()?.mean_keepdim(D::Minus1)?;
        let eps = f64::from(self.config.rms_eps);
        x.broadcast_div(&(mean + eps)?.sqrt()?)?
            .broadcast_mul(&self.tensor(name)?)
    }

    fn linear(&self, x: &Tensor, layer: usize, target: Target) -> Result<Tensor> {
        let name = format!("model.layers.{layer}.{}", target.path());
        let mut y = x.matmul(&self.tensor(&format!("{name}.weight"))?.t()?)?;
        let (a, b) = &self.pairs[&(layer, target)];
        y = (y + (x.matmul(&a.t()?)?.matmul(&b.t()?)? * self.scale)?)?;
        if self.config.qkv_bias && matches!(target, Target::Q | Target::K | Target::V) {
            y = y.broadcast_add(&self.tensor(&format!("{name}.bias"))?)?;
        }
        Ok(y)
    }

    /// `tokens x width` to heads, turned by position.
    fn rotated(&self, x: &Tensor) -> Result<Vec<Tensor>> {
        let (dim, half) = (self.config.head_dim, self.config.head_dim / 2);
        let angle = |p: usize, i: usize| {
            p as f64
                / self.config.attention[0]
                    .rope
                    .theta
                    .powf(2.0 * i as f64 / dim as f64)
        };
        let tokens = x.dim(0)?;
        let table = |f: fn(f64) -> f64| {
            let values: Vec<f32> = (0..tokens)
                .flat_map(|p| (0..half).map(move |i| f(angle(p, i)) as f32))
                .collect();
            Tensor::from_slice(&values, (tokens, half), &Device::Cpu)
        };
        let (cos, sin) = (table(f64::cos)?, table(f64::sin)?);
        (0..x.dim(1)? / dim)
            .map(|h| {
                let (low, high) = (
                    x.narrow(1, h * dim, half)?,
                    x.narrow(1, h * dim + half, half)?,
                );
                Tensor::cat(
                    &[
                        ((&low * &cos)? - (&high * &sin)?)?,
                        ((&high * &cos)? + (&low * &sin)?)?,
                    ],
                    1,
                )
            })
            .collect()
    }

    fn attention(&self, x: &Tensor, layer: usize) -> Result<Tensor> {
        let (tokens, dim) = (x.dim(0)?, self.config.head_dim);
        let q = self.rotated(&self.linear(x, layer, Target::Q)?)?;
        let k = self.rotated(&self.linear(x, layer, Target::K)?)?;
        let v = self.linear(x, layer, Target::V)?;
        let seen = |i: usize, j: usize| {
            j <= i
                && self.config.attention[layer]
                    .window
                    .is_none_or(|w| i - j < w)
        };
        let hidden = |at: usize| {
            if seen(at / tokens, at % tokens) {
                0.0
            } else {
                -1e9
            }
        };
        let mask: Vec<f32> = (0..tokens * tokens).map(hidden).collect();
        let mask = Tensor::from_slice(&mask, (tokens, tokens), &Device::Cpu)?;
        let per_group = self.config.heads / self.config.kv_heads;
        let heads: Result<Vec<Tensor>> = (0..self.config.heads)
            .map(|h| {
                let scores =
                    ((q[h].matmul(&k[h / per_group].t()?)? / (dim as f64).sqrt())? + &mask)?;
                let e = scores
                    .broadcast_sub(&scores.max_keepdim(1)?.detach())?
                    .exp()?;
                let p = e.broadcast_div(&e.sum_keepdim(1)?)?;
                p.matmul(&v.narrow(1, h / per_group * dim, dim)?.contiguous()?)
            })
            .collect();
        self.linear(&Tensor::cat(&heads?, 1)?, layer, Target::O)
    }

    fn mlp(&self, x: &Tensor, layer: usize) -> Result<Tensor> {
        let gate = self.linear(x, layer, Target::Gate)?;
        let silu = (&gate / (gate.neg()?.exp()? + 1.0)?)?;
        self.linear(
            &(silu * self.linear(x, layer, Target::Up)?)?,
            layer,
            Target::Down,
        )
    }

    /// Sum of the cross entropies of a row's labels.
    fn loss(&self, example: &Example) -> Result<Tensor> {
        let ids = Tensor::from_slice(&example.ids, example.ids.len(), &Device::Cpu)?;
        let mut x = self
            .tensor("model.embed_tokens.weight")?
            .index_select(&ids, 0)?;
        for layer in 0..self.config.layers {
            let normed = self.norm(&x, &format!("model.layers.{layer}.input_layernorm.weight"))?;
            x = (&x + self.attention(&normed, layer)?)?;
            let normed = self.norm(
                &x,
                &format!("model.layers.{layer}.post_attention_layernorm.weight"),
            )?;
            x = (&x + self.mlp(&normed, layer)?)?;
        }
        let head = if self.config.tie_embeddings {
            "model.embed_tokens.weight"
        } else {
            "lm_head.weight"
        };
        let logits = self
            .norm(&x, "model.norm.weight")?
            .matmul(&self.tensor(head)?.t()?)?;
        let shifted = logits.broadcast_sub(&logits.max_keepdim(1)?.detach())?;
        let log_p = shifted.broadcast_sub(&shifted.exp()?.sum_keepdim(1)?.log()?)?;
        let picked: Vec<f32> = (0..example.ids.len() * self.config.vocab)
            .map(|at| {
                let (t, id) = (at / self.config.vocab, at % self.config.vocab);
                let hit = t + 1 < example.ids.len()
                    && example.labels[t + 1]
                    && example.ids[t + 1] as usize == id;
                if hit { -1.0 } else { 0.0 }
            })
            .collect();
        let picked = Tensor::from_slice(
            &picked,
            (example.ids.len(), self.config.vocab),
            &Device::Cpu,
        )?;
        (log_p * picked)?.sum_all()
    }
}

fn examples() -> Vec<Example> {
    let row = |r: usize| {
        let own = noise(9 + 4 * r, 70 + r as u64)
            .into_iter()
            .map(|v| ((v + 1.0) * 33.0) as u32);
        let ids: Vec<u32> = (0..20).map(|i| (i * 11 + 5) % 67).chain(own).collect();
        let labels = (0..ids.len()).map(|i| i > 22 && i % 4 != 1).collect();
        Example {
            id: format!("row-{r}"),
            ids,
            labels,
            weight: 1.0,
        }
    };
    (0..3).map(row).collect()
}

/// Our gradient, read off one step of AdamW with a huge epsilon (it moves each value by the gradient).
fn our_gradient(config: &ModelConfig, start: &Adapter) -> (f64, Vec<f32>) {
    let get = |name: &str| Ok(weight(config, name));
    let mut model = Model::from_tensors(config, get, get).unwrap();
    let settings = TrainConfig {
        batch: 3,
        lr: 1e6,
        eps: 1e6,
        weight_decay: 0.0,
        warmup_ratio: 0.0,
        schedule: Schedule::Constant,
        clip: None,
        ..TrainConfig::default()
    };
    let mut moved = start.clone();
    let report = train(
        &mut model,
        &mut moved,
        TrainJob::new(&examples(), &settings),
        &mut |_: TrainEvent| {},
    )
    .unwrap();
    assert!(
        report.steps[0].tokens < report.steps[0].separate_tokens,
        "the prefix was shared"
    );
    let gradient = start
        .values()
        .iter()
        .zip(moved.values())
        .map(|(a, b)| a - b)
        .collect();
    (report.steps[0].loss, gradient)
}

fn check(config: &ModelConfig) {
    let lora = LoraConfig {
        r: 4,
        alpha: 6.0,
        dropout: 0.0,
        targets: Target::ALL.to_vec(),
        seed: 1,
        ..LoraConfig::default()
    };
    let mut start = Adapter::new(config, &lora).unwrap();
    let values: Vec<f32> = noise(start.values().len(), 2)
        .iter()
        .map(|v| 0.2 * v)
        .collect();
    start.values_mut().copy_from_slice(&values);
    let var = |range: &std::ops::Range<usize>, shape: (usize, usize)| {
        Var::from_slice(&values[range.clone()], shape, &Device::Cpu).unwrap()
    };
    let pair = |s: &Slot| {
        (
            (s.layer, s.target),
            (var(&s.a, (4, s.inputs)), var(&s.b, (s.outputs, 4))),
        )
    };
    let oracle = Oracle {
        config,
        scale: 1.5,
        pairs: start.slots().iter().map(pair).collect(),
    };
    let rows = examples();
    let labels: usize = rows
        .iter()
        .map(|e| e.labels.iter().filter(|l| **l).count())
        .sum();
    let sums: Vec<Tensor> = rows.iter().map(|e| oracle.loss(e).unwrap()).collect();
    let loss = (Tensor::stack(&sums, 0).unwrap().sum_all().unwrap() / labels as f64).unwrap();
    let grads = loss.backward().unwrap();

    let (ours, gradient) = our_gradient(config, &start);
    let theirs = f64::from(loss.to_scalar::<f32>().unwrap());
    assert!((ours / theirs - 1.0).abs() < 1e-5, "{ours} {theirs}");
    for slot in start.slots() {
        let (a, b) = &oracle.pairs[&(slot.layer, slot.target)];
        for (var, range) in [(a, &slot.a), (b, &slot.b)] {
            let want: Vec<f32> = grads
                .get(var)
                .unwrap()
                .flatten_all()
                .unwrap()
                .to_vec1()
                .unwrap();
            let got = &gradient[range.clone()];
            let difference: f64 = got
                .iter()
                .zip(&want)
                .map(|(a, b)| f64::from(a - b).powi(2))
                .sum();
            let norm: f64 = want.iter().map(|v| f64::from(*v).powi(2)).sum();
            let far = (difference / norm).sqrt();
            assert!(far < 1e-4, "layer {} {:?}: {far}", slot.layer, slot.target);
        }
    }
}

#[test]
fn a_mistral_with_a_window_matches_autograd() {
    check(&config(false, Some(13)));
}

#[test]
fn a_qwen2_with_biases_and_a_tied_head_matches_autograd() {
    check(&config(true, None));
}
