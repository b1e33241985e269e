//! Attention against a plain f64 reference and its finite differences, with and without prefix, window,
//! several blocks and a cache.

use super::*;
use crate::ops::attended::Context;
use crate::ops::simd::tests::noise;

struct Case {
    heads: Heads,
    prefix: usize,
    rows: Vec<usize>,
}

impl Case {
    fn width(&self) -> usize {
        self.heads.query_width() + 2 * self.heads.kv_width()
    }

    fn tokens(&self) -> usize {
        self.rows.iter().sum()
    }

    fn queries<'a>(&self, qkv: &'a Matrix, prefix: &'a Matrix) -> Vec<Query<'a>> {
        let (q, kv) = (self.heads.query_width(), self.heads.kv_width());
        let mut start = 0;
        let mut queries = Vec::new();
        for len in &self.rows {
            queries.push(Query {
                start,
                len: *len,
                first: 0,
                prefix: (self.prefix > 0).then_some(Context {
                    data: prefix.data(),
                    stride: 2 * kv,
                    key: 0,
                    value: kv,
                    len: self.prefix,
                }),
                own: Context {
                    data: &qkv.data()[start * qkv.cols()..],
                    stride: qkv.cols(),
                    key: q,
                    value: q + kv,
                    len: *len,
                },
            });
            start += len;
        }
        queries
    }

    /// `out[token][head * dim + i]` in f64, straight from the definition.
    fn reference(&self, qkv: &[f64], prefix: &[f64]) -> Vec<f64> {
        let Heads {
            heads,
            kv_heads,
            dim,
            window,
            scale,
            softcap,
        } = self.heads;
        let (q_width, kv, width) = (heads * dim, kv_heads * dim, self.width());
        let mut out = vec![0.0; self.tokens() * q_width];
        let mut start = 0;
        for len in &self.rows {
            for t in 0..*len {
                for h in 0..heads {
                    let c = h / (heads / kv_heads) * dim;
                    let query = &qkv[(start + t) * width + h * dim..][..dim];
                    let position = self.prefix + t;
                    let low = window.map_or(0, |w| (position + 1).saturating_sub(w));
                    let key_value = |p: usize| {
                        if p < self.prefix {
                            (
                                &prefix[p * 2 * kv + c..][..dim],
                                &prefix[p * 2 * kv + kv + c..][..dim],
                            )
                        } else {
                            let at = (start + p - self.prefix) * width + q_width + c;
                            (&qkv[at..at + dim], &qkv[at + kv..at + kv + dim])
                        }
                    };
                    let scores: Vec<f64> = (low..=position)
                        .map(|p| {
                            let products = query.iter().zip(key_value(p).0).map(|(a, b)| a * b);
                            let score = products.sum::<f64>() * f64::from(scale);
                            softcap.map_or(score, |cap| {
                                f64::from(cap) * (score / f64::from(cap)).tanh()
                            })
                        })
                        .collect();
                    let total: f64 = scores.iter().map(|s| s.exp()).sum();
                    for (s, p) in scores.iter().zip(low..) {
                        for i in 0..dim {
                            out[(start + t) * q_width + h * dim + i] +=
                                s.exp() / total * key_value(p).1[i];
                        }
                    }
                }
            }
            start += len;
        }
        out
    }
}

fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(*v)).collect()
}

fn check(case: &Case) {
    let (width, q, kv) = (
        case.width(),
        case.heads.query_width(),
        case.heads.kv_width(),
    );
    let qkv = Matrix::new(case.tokens(), width, noise(case.tokens() * width, 1));
    let prefix = Matrix::new(case.prefix, 2 * kv, noise(case.prefix * 2 * kv, 2));
    let rows = case.queries(&qkv, &prefix);
    let mut out = Matrix::zeros(case.tokens(), q + 3);
    let lse = forward(case.heads, &qkv, &rows, &mut out);
    let want = case.reference(&widen(qkv.data()), &widen(prefix.data()));
    for (i, want) in want.iter().enumerate() {
        assert!(
            (f64::from(out.row(i / q)[i % q]) - want).abs() < 2e-6,
            "output {i}"
        );
    }

    let out_grad = Matrix::new(case.tokens(), q + 3, noise(case.tokens() * (q + 3), 3));
    let kept = Kept {
        qkv: &qkv,
        out: &out,
        lse: &lse,
        out_grad: &out_grad,
    };
    let mut dqkv = Matrix::new(case.tokens(), width, vec![9.0; case.tokens() * width]);
    let mut dprefix = Matrix::new(case.prefix, 2 * kv, vec![0.5; case.prefix * 2 * kv]);
    backward(case.heads, &kept, &rows, &mut dqkv, Some(&mut dprefix));
    let objective = |qkv: &[f64], prefix: &[f64]| -> f64 {
        let out = case.reference(qkv, prefix);
        out.iter()
            .enumerate()
            .map(|(i, v)| v * f64::from(out_grad.row(i / q)[i % q]))
            .sum()
    };
    let (mut a, mut b) = (widen(qkv.data()), widen(prefix.data()));
    let h = 1e-5;
    let step = (a.len() / 60).max(1) | 1;
    for i in (0..a.len()).step_by(step) {
        let old = a[i];
        a[i] = old + h;
        let up = objective(&a, &b);
        a[i] = old - h;
        let want = (up - objective(&a, &b)) / (2.0 * h);
        a[i] = old;
        assert!((f64::from(dqkv.data()[i]) - want).abs() < 1e-5, "dqkv {i}");
    }
    for i in (0..b.len()).step_by((b.len() / 40).max(1) | 1) {
        let old = b[i];
        b[i] = old + h;
        let up = objective(&a, &b);
        b[i] = old - h;
        let want = (up - objective(&a, &b)) / (2.0 * h);
        b[i] = old;
        assert!(
            (f64::from(dprefix.data()[i]) - 0.5 - want).abs() < 1e-5,
            "dprefix {i}"
        );
    }
}

#[test]
fn grouped_heads_with_a_shared_prefix() {
    let heads = Heads {
        heads: 6,
        kv_heads: 2,
        dim: 8,
        window: None,
        scale: 1.0 / (8.0f32).sqrt(),
        softcap: None,
    };
    check(&Case {
        heads,
        prefix: 11,
        rows: vec![3, 1, 7],
    });
}

#[test]
fn plain_causal_rows() {
    let heads = Heads {
        heads: 2,
        kv_heads: 2,
        dim: 16,
        window: None,
        scale: 1.0 / (16.0f32).sqrt(),
        softcap: None,
    };
    check(&Case {
        heads,
        prefix: 0,
        rows: vec![5, 9],
    });
}

#[test]
fn a_sliding_window_goes_by_position_across_the_prefix() {
    let heads = Heads {
        heads: 4,
        kv_heads: 1,
        dim: 8,
        window: Some(6),
        scale: 1.0 / (8.0f32).sqrt(),
        softcap: None,
    };
    check(&Case {
        heads,
        prefix: 9,
        rows: vec![4, 12],
    });
}

#[test]
fn capped_scores_with_a_scale_of_their_own() {
    let heads = Heads {
        heads: 4,
        kv_heads: 2,
        dim: 8,
        window: Some(7),
        scale: 0.7,
        softcap: Some(1.5),
    };
    check(&Case {
        heads,
        prefix: 5,
        rows: vec![3, 10],
    });
}

#[test]
fn rows_longer_than_a_block_and_than_a_part() {
    let heads = Heads {
        heads: 2,
        kv_heads: 1,
        dim: 8,
        window: None,
        scale: 1.0 / (8.0f32).sqrt(),
        softcap: None,
    };
    check(&Case {
        heads,
        prefix: 5,
        rows: vec![4 * QUERIES + 70],
    });
}

#[test]
fn a_cached_row_gives_the_same_output_as_the_whole_row() {
    let heads = Heads {
        heads: 4,
        kv_heads: 2,
        dim: 8,
        window: None,
        scale: 1.0 / (8.0f32).sqrt(),
        softcap: None,
    };
    let case = Case {
        heads,
        prefix: 6,
        rows: vec![10],
    };
    let qkv = Matrix::new(10, case.width(), noise(10 * case.width(), 1));
    let prefix = Matrix::new(6, 32, noise(6 * 32, 2));
    let mut whole = Matrix::zeros(10, 32);
    forward(heads, &qkv, &case.queries(&qkv, &prefix), &mut whole);
    let last = Matrix::new(1, case.width(), qkv.row(9).to_vec());
    let mut query = case.queries(&qkv, &prefix);
    query[0].len = 1;
    query[0].first = 9;
    let mut out = Matrix::zeros(1, 32);
    forward(heads, &last, &query, &mut out);
    for (a, b) in out.row(0).iter().zip(whole.row(9)) {
        assert!((a - b).abs() < 1e-6);
    }
}
