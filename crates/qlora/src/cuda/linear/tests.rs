//! The adapter's products by both doors, the kernels of narrow.rs and cuBLASLt, on the same random inputs. Without a
//! GPU the test says so and passes.

use half::bf16;
use kernels::Element;

use super::*;
use crate::cuda::available;
use crate::cuda::device::Device;

/// Uniform in [-1, 1).
fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut draw = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| draw()).collect()
}

/// A site: rows after the last of each map, inputs, rank, which maps have a pair.
struct Case {
    ends: [usize; 3],
    inputs: usize,
    r: usize,
    there: [bool; 3],
}

const CASES: [Case; 5] = [
    Case {
        ends: [512, 640, 768],
        inputs: 512,
        r: 16,
        there: [true; 3],
    },
    Case {
        ends: [4096, 5120, 6144],
        inputs: 4096,
        r: 8,
        there: [true, false, true],
    },
    Case {
        ends: [1536, 3072, 3072],
        inputs: 576,
        r: 32,
        there: [true, true, false],
    },
    Case {
        ends: [576; 3],
        inputs: 1536,
        r: 16,
        there: [true, false, false],
    },
    Case {
        ends: [4096; 3],
        inputs: 14_336,
        r: 64,
        there: [true, false, false],
    },
];

impl Case {
    fn plan(&self) -> (SitePlan, usize) {
        let outputs = self.ends[2];
        let count = self.there.iter().filter(|t| **t).count();
        let (mut b, mut at, mut start) = ([None; 3], count * self.r * self.inputs, 0);
        let mut column = 0;
        for (map, there) in self.there.iter().enumerate() {
            if *there {
                b[map] = Some((at, column));
                at += (self.ends[map] - start) * self.r;
                column += self.r;
            }
            start = self.ends[map];
        }
        let pairs = Pairs {
            a: 0,
            a_rows: count * self.r,
            b,
            r: self.r,
            scale: 0.75,
        };
        let plan = SitePlan {
            outputs,
            inputs: self.inputs,
            pad: (count * self.r).next_multiple_of(PAD),
            ends: self.ends,
            pairs: Some(pairs),
            narrow: true,
            place: 3,
        };
        (plan, at)
    }
}

/// Rows of bf16 values on the card, random or all of one value.
fn rows(exec: &mut Exec<'_>, rows: usize, cols: usize, values: &[f32]) -> Rows {
    let place = exec.rows(rows, cols);
    let values: Vec<bf16> = values.iter().copied().map(bf16::from_f32).collect();
    exec.put(place.region(), &values);
    place
}

fn read(device: &Device, from: Rows) -> Vec<f32> {
    let mut values = vec![bf16::ZERO; from.rows * from.cols];
    device.download(from.region(), &mut values).unwrap();
    values.into_iter().map(bf16::to_f32).collect()
}

fn off(got: &[f32], want: &[f32]) -> f64 {
    let square =
        |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v).powi(2)).sum::<f64>();
    let apart = square(&mut got.iter().zip(want).map(|(a, b)| a - b));
    (apart / square(&mut want.iter().copied())).sqrt()
}

/// `u` and its copy, the input's gradient, the adapter's gradient, by one door.
fn run(device: &Device, case: &Case, tokens: usize, masked: bool, narrow: bool) -> [Vec<f32>; 4] {
    let (plan, count) = case.plan();
    let block = device.allocate(600 << 20).unwrap();
    let mut exec = Exec::on(device, Element::Bf16, block);
    let random = |n, seed| noise(n, seed);
    let values = exec.upload(&random(count, 1));
    let grads = exec.upload(&random(count, 2));
    let seen = rows(
        &mut exec,
        tokens,
        plan.inputs,
        &random(tokens * plan.inputs, 3),
    );
    let dy = rows(
        &mut exec,
        tokens,
        plan.outputs,
        &random(tokens * plan.outputs, 4),
    );
    let du = rows(&mut exec, tokens, plan.pad, &random(tokens * plan.pad, 5));
    let dx = rows(
        &mut exec,
        tokens,
        plan.inputs,
        &random(tokens * plan.inputs, 6),
    );
    let poison = vec![f32::NAN; tokens * plan.pad];
    let u = rows(&mut exec, tokens, plan.pad, &poison);
    let also = rows(&mut exec, tokens, plan.pad, &poison);
    let bits: Vec<u8> = (0..tokens * plan.inputs / 8)
        .map(|i| (i * 37 % 251) as u8)
        .collect();
    let bits = exec.upload(&bits);
    let masks = Masks {
        keys: bits,
        rate: 0.25,
    };
    let mask = plan.mask(bits, masked.then_some(masks));
    let plans = [plan];
    let scratch = Scratch::take(&mut exec, &plans, tokens, true);
    let plan = &plans[0];
    let pairs = plan.pairs.as_ref().unwrap();
    let scratch = Scratch {
        down: exec.arena.take(2 * plan.pad * plan.inputs),
        ..scratch
    };
    let down = (!narrow).then(|| pairs.write_down(&mut exec, plan, scratch, values));
    let ready = Ready {
        plan,
        weight: dy,
        down,
        values,
        scratch,
    };
    ready.down(&mut exec, seen, u, Some(also));
    ready.adapter_input_back(&mut exec, pairs, du, dx, mask);
    // Twice: the flags must be as they were.
    for _ in 0..2 {
        ready.adapter_back(&mut exec, seen, u, dy, du, grads);
    }
    exec.check().unwrap();
    let mut gradient = vec![0.0f32; count];
    device.download(grads, &mut gradient).unwrap();
    let got = [u, also, dx].map(|from| read(device, from));
    device.free(block);
    let [u, also, dx] = got;
    [u, also, dx, gradient]
}

#[test]
fn both_doors_give_the_adapter_s_products() {
    if !available() {
        eprintln!("skipped: there is no GPU here");
        return;
    }
    let device = Device::open().unwrap();
    for (number, case) in CASES.iter().enumerate() {
        for tokens in [1, 37, 200, 2307] {
            for masked in [false, true] {
                let got = run(&device, case, tokens, masked, true);
                let want = run(&device, case, tokens, masked, false);
                let place = format!("case {number}, {tokens} tokens, masked {masked}");
                assert_eq!(got[0], got[1], "{place}: the copy of u");
                for (what, bound, at) in [("u", 5e-3, 0), ("dx", 5e-3, 2), ("gradients", 2e-3, 3)] {
                    let far = off(&got[at], &want[at]);
                    assert!(far < bound, "{place}: {what} off by {far:.1e}");
                }
                let again = run(&device, case, tokens, masked, true);
                assert!(got == again, "{place}: other bytes the second time");
            }
        }
    }
}
