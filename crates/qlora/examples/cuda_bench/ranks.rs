//! One card against two of the same host, in one run: a process a card, the same global batch on both.

use std::net::TcpListener;
use std::process::{Child, Command};
use std::time::Duration;

use qlora::cuda::{Base, Device, Keep, bench};
use qlora::ranks::{Collective, Rendezvous, host, join};

use super::{Case, dense, job, mistral, run, same};

/// The first argument of the other process; an address and a token follow.
const OTHER: &str = "other-rank";
const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";

fn cases() -> [Case; 4] {
    let job = || Case {
        name: "job p=.05",
        examples: job(),
        batch: 16,
        steps: 30,
        keep: None,
        dropout: 0.05,
        shared: true,
        micro: None,
        lean: false,
        divide: None,
    };
    let dense = Case {
        name: "4x2048 kept p=.05",
        examples: dense(16, 2048),
        batch: 4,
        steps: 20,
        keep: Some(Keep::Everything),
        dropout: 0.05,
        shared: false,
        micro: None,
        lean: false,
        divide: None,
    };
    let whole = Case {
        name: "job p=.05, prefix whole",
        divide: Some(false),
        ..job()
    };
    [dense, whole, job(), job()]
}

pub(super) fn is_other(names: &[String]) -> bool {
    names.first().is_some_and(|name| name == OTHER)
}

/// The process on the second card.
pub(super) fn other(names: &[String]) {
    let [_, address, token] = names else {
        panic!("an address and a token");
    };
    let ranks = join(&meeting(address.clone(), token.clone()), 1).expect("rank 0");
    on_two(base(), &*ranks);
}

fn base() -> Base {
    let device = Device::open().expect("a GPU");
    Base::random(device, &mistral(), bench::qlora_precision(), 4100, 1).expect("a base")
}

/// Every case on two cards: milliseconds a step, and the adapter's values.
fn on_two(mut base: Base, ranks: &dyn Collective) -> (Base, Vec<(f64, Vec<f32>)>) {
    let mut outcomes = Vec::new();
    for case in cases() {
        let (back, outcome) = run(base, &case, Some(ranks));
        base = back;
        outcomes.push((outcome.ms, outcome.values));
    }
    (base, outcomes)
}

/// Prints what the second card gives.
pub(super) fn run_both(mut base: Base) -> Base {
    if Device::count() < 2 {
        println!("ranks: skipped, there are no two GPUs here");
        return base;
    }
    let mut alone = Vec::new();
    for case in cases() {
        let (back, outcome) = run(base, &case, None);
        base = back;
        alone.push(outcome.ms);
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("a port").to_string();
    let meeting = meeting(address, std::process::id().to_string());
    let mut process = start(&meeting);
    let ranks = host(&listener, &meeting, &mut || Ok(())).expect("the other rank");
    let (base, two) = on_two(base, &*ranks);
    println!(
        "{:<26}{:>10}{:>10}{:>8}",
        "ranks", "1 GPU ms", "2 GPUs ms", "ratio"
    );
    for ((case, alone), (ms, _)) in cases().iter().zip(alone).zip(&two) {
        println!(
            "{:<26}{alone:>10.1}{ms:>10.1}{:>8.3}",
            case.name,
            alone / ms
        );
    }
    let equal = same(&two[2].1, &two[3].1);
    println!("  two runs of two ranks byte-equal: {equal}");
    process.wait().expect("the other rank ends");
    base
}

fn meeting(address: String, token: String) -> Rendezvous {
    Rendezvous {
        address,
        token,
        world: 2,
        patience: Duration::from_mins(3),
    }
}

fn start(meeting: &Rendezvous) -> Child {
    let visible = std::env::var(VISIBLE).unwrap_or_else(|_| "0,1".to_owned());
    let second = visible.split(',').nth(1).unwrap_or("1").to_owned();
    Command::new(std::env::current_exe().expect("this program"))
        .args([OTHER, &meeting.address, &meeting.token])
        .env(VISIBLE, second)
        .spawn()
        .expect("the other rank starts")
}
