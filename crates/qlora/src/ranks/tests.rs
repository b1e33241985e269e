//! Both kinds of links behind one body of tests: equal results everywhere, sums in order, ends that are seen.

use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Instant;

use super::*;

const SOON: Duration = Duration::from_secs(20);

fn meeting(listener: &TcpListener, world: usize) -> Rendezvous {
    Rendezvous {
        address: listener.local_addr().unwrap().to_string(),
        token: "between us".to_owned(),
        world,
        patience: SOON,
    }
}

fn tcp(world: usize) -> Vec<Box<dyn Collective>> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let meeting = meeting(&listener, world);
    let others: Vec<_> = (1..world)
        .map(|rank| {
            let meeting = meeting.clone();
            thread::spawn(move || join(&meeting, rank).unwrap())
        })
        .collect();
    let mut all = vec![host(&listener, &meeting, &mut || Ok(())).unwrap()];
    all.extend(others.into_iter().map(|other| other.join().unwrap()));
    all
}

/// What each rank's thread gives.
fn each<T: Send + 'static>(
    ranks: Vec<Box<dyn Collective>>,
    work: impl Fn(Box<dyn Collective>) -> T + Clone + Send + 'static,
) -> Vec<T> {
    let threads: Vec<_> = ranks
        .into_iter()
        .map(|rank| {
            let work = work.clone();
            thread::spawn(move || work(rank))
        })
        .collect();
    threads.into_iter().map(|t| t.join().unwrap()).collect()
}

fn both(world: usize) -> [Vec<Box<dyn Collective>>; 2] {
    [local(world, SOON), tcp(world)]
}

#[test]
fn every_rank_gets_the_same_and_sums_are_added_in_order() {
    for world in 1..=4 {
        for ranks in both(world) {
            let heard = each(ranks, move |ranks| {
                let rank = ranks.rank();
                assert_eq!(ranks.world(), world);
                let all = ranks.gather(&vec![rank as u8; rank]).unwrap();
                let told = ranks.broadcast(vec![7 + rank as u8; 3]).unwrap();
                ranks.barrier().unwrap();
                // Longer than a piece; the parts cancel unless they are added from rank 0 on.
                let own = [1.0f32, 1e8, -1e8, 3.0][rank];
                let mut values = vec![own; (1 << 18) + 5];
                values[7] = rank as f32;
                ranks.sum(&mut values).unwrap();
                (all, told, values)
            });
            let want: Vec<Vec<u8>> = (0..world).map(|r| vec![r as u8; r]).collect();
            let sum = [1.0f32, 1e8, -1e8, 3.0][..world]
                .iter()
                .copied()
                .reduce(|a, b| a + b)
                .unwrap();
            for (all, told, values) in heard {
                assert_eq!(all, want);
                assert_eq!(told, [7; 3]);
                assert_eq!(values[7], (world * (world - 1) / 2) as f32);
                assert!(values.iter().enumerate().all(|(i, v)| i == 7 || *v == sum));
            }
        }
    }
}

#[test]
fn a_rank_that_ends_is_an_error_on_all_others_at_once() {
    for ranks in both(4) {
        let begun = Instant::now();
        let heard = each(ranks, |ranks| {
            ranks.barrier().unwrap();
            if ranks.rank() == 2 {
                return None;
            }
            let error = ranks.barrier().unwrap_err();
            // What is broken stays so, at once and with the same words.
            assert_eq!(
                ranks.sum(&mut [1.0]).unwrap_err().to_string(),
                error.to_string()
            );
            ranks.leave(&error);
            Some(error)
        });
        for (rank, error) in heard.into_iter().enumerate() {
            let Some(error) = error else { continue };
            assert_eq!(error.code(), "qlora::ranks");
            assert!(error.mend().is_some());
            assert!(
                error.to_string().contains("rank 2 is gone"),
                "{rank}: {error}"
            );
        }
        assert!(begun.elapsed() < SOON / 4, "nobody waits for the limit");
    }
}

#[test]
fn a_rank_that_stops_says_why() {
    for ranks in both(3) {
        let heard = each(ranks, |ranks| {
            if ranks.rank() == 1 {
                ranks.leave(&Error::Cancelled);
                // It stays a while: the word counts, not the end.
                thread::sleep(Duration::from_millis(300));
                return String::new();
            }
            let error = ranks.sum(&mut [0.0; 9]).unwrap_err();
            ranks.leave(&error);
            error.to_string()
        });
        assert_eq!(heard[0], "rank 1 has stopped: cancelled");
        assert!(
            heard[2].ends_with("rank 1 has stopped: cancelled"),
            "{}",
            heard[2]
        );
    }
}

#[test]
fn a_check_waits_for_nobody_and_finds_the_end() {
    for ranks in both(2) {
        each(ranks, |ranks| {
            if ranks.rank() == 0 {
                let begun = Instant::now();
                while ranks.check().is_ok() {
                    assert!(begun.elapsed() < SOON, "the end is seen");
                    thread::sleep(Duration::from_millis(1));
                }
            } else {
                ranks.check().unwrap();
            }
        });
    }
}

#[test]
fn a_silent_rank_is_waited_for_only_so_long() {
    let ranks = local(2, Duration::from_millis(250));
    let error = ranks[0].barrier().unwrap_err();
    assert_eq!(error.to_string(), "rank 1 has said nothing for 0.25 s");
}

#[test]
fn ranks_at_different_places_are_told_so() {
    for ranks in both(2) {
        let heard = each(ranks, |ranks| match ranks.rank() {
            0 => ranks.sum(&mut [0.0]).map_err(|e| e.to_string()),
            _ => ranks.gather(&[]).map(drop).map_err(|e| e.to_string()),
        });
        let error = heard[0].as_ref().unwrap_err();
        assert_eq!(error, "rank 1 is at another place of the program");
    }
}

#[test]
fn strangers_are_sent_away_and_misfits_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let meeting = meeting(&listener, 2);
    let stranger = Rendezvous {
        token: "guessed".to_owned(),
        ..meeting.clone()
    };
    let ours = meeting.clone();
    let callers = thread::spawn(move || {
        drop(TcpStream::connect(&stranger.address));
        assert!(join(&stranger, 1).is_err());
        join(&ours, 1).unwrap().barrier().unwrap();
    });
    let ranks = host(&listener, &meeting, &mut || Ok(())).unwrap();
    ranks.barrier().unwrap();
    callers.join().unwrap();

    let misfit = Rendezvous {
        world: 3,
        ..meeting.clone()
    };
    let caller = thread::spawn(move || join(&misfit, 1).err().unwrap().to_string());
    let error = host(&listener, &meeting, &mut || Ok(())).err().unwrap();
    assert!(
        error
            .to_string()
            .contains("with 2 ranks was called by rank 1 of 3"),
        "{error}"
    );
    assert!(caller.join().unwrap().contains("rank 1 of 3"));
}

#[test]
fn rank_zero_gives_up_when_it_is_told_to_or_nobody_comes() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut meeting = meeting(&listener, 3);
    let ended = host(&listener, &meeting, &mut || Err(Error::Cancelled));
    assert!(matches!(ended.err().unwrap(), Error::Cancelled));
    meeting.patience = Duration::from_millis(50);
    let error = host(&listener, &meeting, &mut || Ok(())).err().unwrap();
    assert!(error.to_string().ends_with("for rank 1, 2"), "{error}");
}
