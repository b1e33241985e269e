//! Two ranks on two cards of this host, each a process: the gradient of one card up to the order of sums, the
//! same bytes twice, the death of one seen by the other, and a resume. Without two cards each test says so
//! and passes.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use qlora::cuda::{CudaEngine, Device, Element, Keep, Options};
use qlora::ranks::{Collective, Rendezvous, host, join};
use qlora::train::{Schedule, TrainConfig, TrainEvent, TrainJob, TrainReport, train_on_gpu};
use qlora::weights::ModelFiles;
use qlora::{Adapter, Error, LoraConfig, Quantization, Target};

use crate::cuda::{base, folder, reference, rows};
use crate::peft_refs::{distance, golden};

const CASE: &str = "RANKS_CASE";
const ADDRESS: &str = "RANKS_ADDRESS";
const TOKEN: &str = "RANKS_TOKEN";
const CHECKPOINTS: &str = "RANKS_CHECKPOINTS";
const DIES: &str = "RANKS_DIES";
const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";
const SOON: Duration = Duration::from_mins(2);

#[expect(clippy::print_stderr, reason = "a test that tests nothing says so")]
fn without_two() -> bool {
    let none = Device::count() < 2;
    if none {
        eprintln!("skipped: there are no two GPUs here");
    }
    none
}

/// What is trained: everything that both processes have to know, by a number.
struct Case {
    element: Element,
    shared: bool,
    micro: Option<usize>,
    dropout: f32,
    keep: Keep,
    /// Ranks divide the prefix.
    divide: bool,
}

const CASES: [Case; 10] = {
    const fn f32(shared: bool, micro: Option<usize>, dropout: f32, keep: Keep) -> Case {
        Case {
            element: Element::F32,
            shared,
            micro,
            dropout,
            keep,
            divide: false,
        }
    }
    const fn divided(case: Case) -> Case {
        Case {
            divide: true,
            ..case
        }
    }
    [
        divided(f32(true, None, 0.0, Keep::Everything)),
        divided(f32(true, None, 0.25, Keep::Inputs)),
        divided(f32(true, None, 0.25, Keep::Offloaded)),
        f32(true, None, 0.25, Keep::Everything),
        // Not in one pass: all ranks come to run the whole prefix.
        divided(f32(true, Some(2), 0.25, Keep::Everything)),
        f32(true, Some(1), 0.0, Keep::Inputs),
        f32(false, None, 0.25, Keep::Everything),
        f32(false, Some(2), 0.0, Keep::Offloaded),
        Case {
            element: Element::Bf16,
            ..divided(f32(true, None, 0.05, Keep::Everything))
        },
        Case {
            element: Element::Bf16,
            ..f32(true, Some(3), 0.05, Keep::Offloaded)
        },
    ]
};

/// Cases with the same rows, masks and sums.
const DIVIDED: [usize; 2] = [1, 2];
const WHOLE: usize = 3;
const BF16: std::ops::Range<usize> = 8..10;

/// One step whose update is the gradient, times a thousand.
fn bare() -> TrainConfig {
    TrainConfig {
        batch: 9,
        max_steps: Some(1),
        lr: 1e9,
        eps: 1e6,
        betas: (0.0, 0.0),
        weight_decay: 0.0,
        clip: None,
        ..plain()
    }
}

fn plain() -> TrainConfig {
    TrainConfig {
        batch: 5,
        epochs: 4,
        lr: 1e-2,
        schedule: Schedule::Constant,
        warmup_ratio: 0.0,
        eval_every: Some(3),
        save_every: Some(1),
        ..TrainConfig::default()
    }
}

/// Runs a case on this process's card. `dies`: this process ends in the middle of its run, as if killed.
fn train_here(
    case: usize,
    ranks: Option<&dyn Collective>,
    checkpoints: Option<&Path>,
    dies: bool,
) -> (Adapter, Adapter, Result<TrainReport, Error>) {
    let case = &CASES[case];
    let f32 = case.element == Element::F32;
    let made = (!f32).then(|| folder(128));
    let files = match &made {
        Some(made) => ModelFiles::open(made.path()),
        None => ModelFiles::open(golden("tiny_bnb4_dq_f32")),
    };
    let files = files.unwrap();
    let shape = files.config().unwrap();
    let start = if f32 {
        reference(&shape, case.dropout)
    } else {
        let lora = LoraConfig {
            r: 8,
            alpha: 16.0,
            dropout: case.dropout,
            targets: Target::ALL.to_vec(),
            seed: 1,
            ..LoraConfig::default()
        };
        Adapter::new(&shape, &lora).unwrap()
    };
    let quantization = if f32 {
        Quantization::None
    } else {
        Quantization::Nf4 { double: true }
    };
    let base = base(&files, case.element, quantization);
    let mut adapter = start.clone();
    let options = Options {
        keep: Some(case.keep),
        divide: Some(case.divide),
        ..Options::default()
    };
    let mut engine = CudaEngine::new(base, &adapter, options).unwrap();
    let config = TrainConfig {
        micro_batch: case.micro,
        shared_prefix: case.shared,
        ..if f32 { bare() } else { plain() }
    };
    let rows = rows(if f32 { 1 } else { 7 });
    let job = TrainJob {
        val: if f32 { &[] } else { &rows[6..] },
        checkpoints,
        ranks,
        ..TrainJob::new(&rows, &config)
    };
    let mut sink = |event: TrainEvent| {
        if dies && matches!(&event, TrainEvent::Step { record, .. } if record.step == 3) {
            std::process::abort();
        }
    };
    let report = train_on_gpu(&mut engine, &mut adapter, job, &mut sink);
    (start, adapter, report)
}

/// A case on two cards: this process's, and another one's.
fn train_on_two(
    case: usize,
    checkpoints: Option<&Path>,
    dies: bool,
) -> (Adapter, Adapter, Result<TrainReport, Error>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let meeting = Rendezvous {
        address: listener.local_addr().unwrap().to_string(),
        token: format!("case {case} of {}", std::process::id()),
        world: 2,
        patience: SOON,
    };
    let mut other = other(case, &meeting, checkpoints, dies);
    let ranks = host(&listener, &meeting, &mut || match other.try_wait() {
        Ok(None) => Ok(()),
        ended => panic!("the other rank ended: {ended:?}"),
    })
    .unwrap();
    let done = train_here(case, Some(&*ranks), checkpoints, false);
    drop(ranks);
    let ended = other.wait().unwrap();
    assert_eq!(ended.success(), !dies, "the other rank: {ended}");
    done
}

fn other(case: usize, meeting: &Rendezvous, checkpoints: Option<&Path>, dies: bool) -> Child {
    let visible = std::env::var(VISIBLE).unwrap_or_else(|_| "0,1".to_owned());
    let second = visible.split(',').nth(1).unwrap_or("1").to_owned();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([
            "--exact",
            "cuda_ranks::another_rank",
            "--ignored",
            "--nocapture",
        ])
        .env(VISIBLE, second)
        .env(CASE, case.to_string())
        .env(ADDRESS, &meeting.address)
        .env(TOKEN, &meeting.token)
        .stdout(Stdio::null());
    if let Some(folder) = checkpoints {
        command.env(CHECKPOINTS, folder);
    }
    if dies {
        command.env(DIES, "1");
    }
    command.spawn().unwrap()
}

/// The other process of the tests below, which start it.
#[test]
#[ignore = "a part of the other tests, which start it"]
fn another_rank() {
    let Ok(address) = std::env::var(ADDRESS) else {
        return;
    };
    let meeting = Rendezvous {
        address,
        token: std::env::var(TOKEN).unwrap(),
        world: 2,
        patience: SOON,
    };
    let case = std::env::var(CASE).unwrap().parse().unwrap();
    let checkpoints = std::env::var_os(CHECKPOINTS);
    let ranks = join(&meeting, 1).unwrap();
    let dies = std::env::var_os(DIES).is_some();
    let checkpoints = checkpoints.as_deref().map(Path::new);
    train_here(case, Some(&*ranks), checkpoints, dies)
        .2
        .unwrap();
}

fn bits(adapter: &Adapter) -> Vec<u32> {
    adapter.values().iter().map(|v| v.to_bits()).collect()
}

#[test]
fn two_ranks_have_the_gradient_of_one_up_to_the_order_of_sums() {
    if without_two() {
        return;
    }
    let mut ends = Vec::new();
    for case in 0..BF16.start {
        let (start, one, report) = train_here(case, None, None, false);
        let report = report.unwrap();
        let (_, two, other) = train_on_two(case, None, false);
        let other = other.unwrap();
        let gradient = |after: &Adapter| -> Vec<f32> {
            let pairs = start.values().iter().zip(after.values());
            pairs.map(|(before, after)| before - after).collect()
        };
        let (want, got) = (gradient(&one), gradient(&two));
        for slot in start.slots() {
            for range in [&slot.a, &slot.b] {
                let far = distance(&got[range.clone()], &want[range.clone()]);
                let place = format!("case {case}, layer {} {:?}", slot.layer, slot.target);
                assert!(far < 1e-5, "{place}: off by {far}");
            }
        }
        let off = other.steps[0].loss / report.steps[0].loss - 1.0;
        assert!(off.abs() < 1e-6, "case {case}: loss off by {off}");
        let same = |a: &TrainReport| (a.steps[0].labels, a.steps[0].tokens);
        assert_eq!(same(&report), same(&other));
        ends.push(bits(&two));
    }
    let [divided, again] = DIVIDED.map(|case| &ends[case]);
    assert!(divided == again, "kept or moved to the host: other bytes");
    assert!(
        *divided != ends[WHOLE],
        "a divided prefix is summed in another order, so it was divided"
    );
}

#[test]
fn two_ranks_give_the_same_bytes_twice_and_are_near_one() {
    if without_two() {
        return;
    }
    for case in BF16 {
        let (_, first, report) = train_on_two(case, None, false);
        let report = report.unwrap();
        let (_, again, other) = train_on_two(case, None, false);
        assert!(bits(&first) == bits(&again), "case {case}: other bytes");
        assert_eq!(report, other.unwrap());
        let (_, _, one) = train_here(case, None, None, false);
        for (i, (a, b)) in one.unwrap().steps.iter().zip(&report.steps).enumerate() {
            // Later steps start from other adapters: they are only near.
            let most = if i == 0 { 5e-4 } else { 5e-2 };
            let off = a.loss / b.loss - 1.0;
            assert!(off.abs() < most, "case {case}, step {i}: loss off by {off}");
        }
    }
}

#[test]
fn the_death_of_a_rank_is_seen_at_once_and_the_run_goes_on_to_the_same_bytes() {
    if without_two() {
        return;
    }
    for case in BF16 {
        let (_, want, report) = train_on_two(case, None, false);
        let dir = tempfile::tempdir().unwrap();
        let begun = Instant::now();
        let (_, _, died) = train_on_two(case, Some(dir.path()), true);
        let error = died.unwrap_err();
        assert_eq!(error.code(), "qlora::ranks", "{error}");
        assert!(error.to_string().starts_with("rank 1 is gone"), "{error}");
        assert!(begun.elapsed() < SOON / 2, "it did not wait for the limit");
        let (_, got, resumed) = train_on_two(case, Some(dir.path()), false);
        assert!(bits(&got) == bits(&want), "case {case}: other bytes");
        assert_eq!(resumed.unwrap(), report.unwrap());
    }
}
