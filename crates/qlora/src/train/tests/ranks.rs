//! Several ranks, each a thread with a model of its own: the gradient of one up to the order of sums, the
//! same bytes twice and after a resume, one writer, and an end for all when one ends.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::ranks::{Collective, local};
use crate::train::deal;
use crate::train::engine::{Cpu, Engine, Work};

const SOON: Duration = Duration::from_mins(1);

/// What each rank's thread gives.
fn each<T: Send>(world: usize, work: impl Fn(&dyn Collective) -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let threads: Vec<_> = local(world, SOON)
            .into_iter()
            .map(|ranks| scope.spawn(|| work(&*{ ranks })))
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    })
}

/// Loss sum, gradient and its norm of nine rows over so many ranks, as each of them has it.
fn gradients(world: usize, dropout: f32, config: &TrainConfig) -> Vec<(f64, Vec<f32>, f64)> {
    let examples = examples(9);
    let everything: Vec<usize> = (0..9).collect();
    let groups = batch::group(&examples, &everything, config.shared_prefix);
    let masks = (dropout > 0.0).then_some(Masks {
        rate: dropout,
        seed: 3,
        step: 7,
    });
    each(world, |ranks| {
        let mut model = tiny_model(&tiny_config());
        let adapter = adapter(&tiny_config(), &Target::ALL, dropout);
        let mut engine = Cpu::new(&mut model);
        let adam = adamw::AdamW::new(adapter.values().len());
        engine.begin(&adapter, &adam, 100, config).unwrap();
        let own = deal::part(&examples, &groups, ranks.rank(), world);
        let work = Work {
            examples: &examples,
            groups: &own,
            masks,
            mean: config.loss,
            over: BatchLoss::count(config.loss, &examples, &groups).over,
            micro_batch: config.micro_batch,
            cancel: &OFF,
            ranks: Some(ranks),
        };
        let (loss, norm) = engine.learn(&adapter, work).unwrap();
        (loss.sum, engine.gradient().to_vec(), norm)
    })
}

#[test]
fn the_gradient_is_that_of_one_rank_up_to_the_order_of_sums() {
    let shape = adapter(&tiny_config(), &Target::ALL, 0.0);
    let token = TrainConfig::default();
    let separate = TrainConfig {
        shared_prefix: false,
        micro_batch: Some(2),
        ..TrainConfig::default()
    };
    let row = TrainConfig {
        loss: LossMean::Row,
        micro_batch: Some(1),
        ..TrainConfig::default()
    };
    for config in [token, separate, row] {
        for dropout in [0.0, 0.3] {
            let [(loss, want, _)] = gradients(1, dropout, &config).try_into().unwrap();
            // Eleven ranks for nine rows: two have nothing to do but to add up.
            for (world, most) in [(2, 1e-6), (3, 1e-6), (11, 2e-6)] {
                let all = gradients(world, dropout, &config);
                let sum: f64 = all.iter().map(|(sum, ..)| sum).sum();
                assert!((sum / loss - 1.0).abs() < 1e-6, "{world}: {sum} {loss}");
                let (_, first, norm) = &all[0];
                let far = distance(&shape, &want, first);
                assert!(far < most, "{world} ranks, dropout {dropout}: {far}");
                for (_, other, others) in &all {
                    assert!(
                        first == other && norm == others,
                        "every rank has the same bits"
                    );
                }
            }
        }
    }
}

fn config() -> TrainConfig {
    TrainConfig {
        keep: 2,
        batch: 5,
        ..settings()
    }
}

/// A whole run of each rank: the adapter's bytes, the report, checkpoints told. `stop` ends a rank (its place)
/// after so many steps, by a word or by its thread's end.
fn run_all(
    world: usize,
    dir: Option<&Path>,
    stop: Option<(usize, u64)>,
) -> Vec<(Vec<u32>, Result<TrainReport, Error>, usize)> {
    let all = examples(13);
    let config = config();
    each(world, |ranks| {
        let mut model = tiny_model(&tiny_config());
        let mut adapter = adapter(&tiny_config(), &Target::ALL, 0.1);
        let cancel = AtomicBool::new(false);
        let mut saved = 0;
        let mut sink = |event: TrainEvent| match event {
            TrainEvent::Step { record, .. } => {
                let now = stop.is_some_and(|stop| stop == (ranks.rank(), record.step));
                cancel.store(now, Ordering::Relaxed);
            }
            TrainEvent::Saved { .. } => saved += 1,
            _ => {}
        };
        let job = TrainJob {
            val: &all[10..],
            checkpoints: dir,
            cancel: &cancel,
            ranks: Some(ranks),
            ..TrainJob::new(&all[..10], &config)
        };
        let report = train(&mut model, &mut adapter, job, &mut sink);
        let bits = adapter.values().iter().map(|v| v.to_bits()).collect();
        (bits, report, saved)
    })
}

#[test]
fn a_run_of_ranks_is_near_that_of_one_and_the_same_twice() {
    let [(one, report, _)] = run_all(1, None, None).try_into().unwrap();
    let report = report.unwrap();
    for world in [2, 3] {
        let all = run_all(world, None, None);
        let (first, same, _) = &all[0];
        let same = same.as_ref().unwrap();
        for (bits, other, _) in &all {
            assert!(bits == first && other.as_ref().unwrap() == same);
        }
        for (a, b) in report.steps.iter().zip(&same.steps) {
            assert!(
                (a.loss / b.loss - 1.0).abs() < 1e-4,
                "{} {}",
                a.loss,
                b.loss
            );
            assert_eq!(
                (a.labels, a.tokens, a.separate_tokens, a.lr),
                (b.labels, b.tokens, b.separate_tokens, b.lr)
            );
        }
        for (a, b) in report.validations.iter().zip(&same.validations) {
            assert!((a.loss / b.loss - 1.0).abs() < 1e-4);
        }
        let far = one
            .iter()
            .zip(first)
            .map(|(a, b)| f32::from_bits(*a) - f32::from_bits(*b));
        let far = far.map(f32::abs).fold(0.0, f32::max);
        assert!(far < 1e-3 && far > 0.0, "{far}");
        assert!(
            run_all(world, None, None)[0].0 == *first,
            "the same bytes twice"
        );
    }
}

#[test]
fn a_stopped_run_of_ranks_goes_on_to_the_same_bytes_and_one_rank_writes() {
    let want = run_all(2, None, None).swap_remove(0);
    for stop in [(0, 2), (1, 1), (1, 3)] {
        let dir = tempfile::tempdir().unwrap();
        let begun = Instant::now();
        let all = run_all(2, Some(dir.path()), Some(stop));
        assert!(begun.elapsed() < SOON / 2, "nobody waits for the limit");
        for (rank, (_, report, saved)) in all.iter().enumerate() {
            let error = report.as_ref().unwrap_err();
            if rank == stop.0 {
                assert!(matches!(error, Error::Cancelled));
            } else {
                assert_eq!(
                    error.to_string(),
                    format!("rank {} has stopped: cancelled", stop.0)
                );
            }
            assert_eq!(*saved > 0, rank == 0, "rank 0 alone writes");
        }
        let all = run_all(2, Some(dir.path()), None);
        assert!(all[0].0 == want.0, "stopped {stop:?}");
        assert!(all[1].0 == want.0, "stopped {stop:?}, rank 1");
        assert_eq!(all[0].1.as_ref().unwrap(), want.1.as_ref().unwrap());
    }
}

#[test]
fn another_number_of_ranks_starts_over_and_leaves_the_checkpoint_alone() {
    let want = run_all(2, None, None).swap_remove(0);
    let dir = tempfile::tempdir().unwrap();
    run_all(2, Some(dir.path()), Some((0, 2)));
    for world in [1, 3] {
        let fresh = run_all(world, None, None).swap_remove(0);
        let beside = run_all(world, Some(dir.path()), None).swap_remove(0);
        assert!(fresh.0 == beside.0 && fresh.0 != want.0, "{world} ranks");
    }
    let resumed = run_all(2, Some(dir.path()), None).swap_remove(0);
    assert!(resumed.0 == want.0, "the other runs left it");
}

#[test]
fn ranks_that_were_given_other_things_are_told_apart() {
    let all = examples(6);
    let heard = each(2, |ranks| {
        let mut model = tiny_model(&tiny_config());
        let mut adapter = adapter(&tiny_config(), &Target::ALL, 0.0);
        let config = TrainConfig {
            seed: ranks.rank() as u64,
            ..settings()
        };
        let job = TrainJob {
            ranks: Some(ranks),
            ..TrainJob::new(&all, &config)
        };
        train(&mut model, &mut adapter, job, &mut |_| {})
            .unwrap_err()
            .to_string()
    });
    for error in heard {
        assert!(
            error.contains("rank 1 has another base, adapter, settings or examples than rank 0"),
            "{error}"
        );
    }
}

#[test]
fn a_nan_on_one_rank_is_named_on_all() {
    let mut all = examples(8);
    all[5].ids[37] = 59;
    for example in &mut all {
        let broken = example.id == "row-5";
        for id in &mut example.ids {
            if *id == 59 && !broken {
                *id = 58;
            }
        }
    }
    let config = TrainConfig {
        batch: 8,
        ..TrainConfig::default()
    };
    let heard = each(3, |ranks| {
        let mut model = tiny_model(&tiny_config());
        model.embedding.row_mut(59).fill(f32::NAN);
        let mut adapter = adapter(&tiny_config(), &Target::ALL, 0.0);
        let job = TrainJob {
            ranks: Some(ranks),
            ..TrainJob::new(&all, &config)
        };
        train(&mut model, &mut adapter, job, &mut |_| {}).unwrap_err()
    });
    for error in heard {
        let named = matches!(&error, Error::NonFinite { step: 1, rows } if rows == &["row-5"]);
        assert!(named, "{error}");
    }
}
