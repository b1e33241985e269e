//! Every interleaving of taking, releasing and coming back, step by step, over a model of the disk.
//!
//! Three actors at once: two that want the name, and one that holds it. In one world the holder is
//! dead, in the other it was frozen and comes back: it writes its next beat, looks whether the name is
//! still its own, and publishes only then.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};

use proptest::prelude::*;

use super::takeover::{Names, aside, release, take};

/// Files are written through an open handle, too: names lead to numbers, numbers to bytes.
#[derive(Default)]
struct Files {
    names: BTreeMap<PathBuf, usize>,
    bytes: Vec<Vec<u8>>,
}

/// Who may take the next step, and what every choice was among.
#[derive(Default)]
struct Turns {
    /// Actors that wait for their step.
    waiting: Vec<usize>,
    granted: Option<usize>,
    ended: usize,
}

#[derive(Default)]
struct World {
    files: Mutex<Files>,
    turns: Mutex<Turns>,
    changed: Condvar,
    told: Mutex<Vec<String>>,
}

/// One actor's view of the world: every call waits for its turn.
struct Actor {
    world: Arc<World>,
    number: usize,
}

impl Actor {
    fn step<T>(&self, act: impl FnOnce(&mut Files) -> T) -> T {
        let mut turns = self.world.turns.lock().unwrap();
        turns.waiting.push(self.number);
        self.world.changed.notify_all();
        while turns.granted != Some(self.number) {
            turns = self.world.changed.wait(turns).unwrap();
        }
        let done = act(&mut self.world.files.lock().unwrap());
        turns.granted = None;
        self.world.changed.notify_all();
        done
    }

    fn tell(&self, text: &str) {
        let line = format!("{} {text}", self.number);
        self.world.told.lock().unwrap().push(line);
    }

    fn end(self) {
        self.world.turns.lock().unwrap().ended += 1;
        self.world.changed.notify_all();
    }
}

impl Names for Actor {
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        Ok(self.step(|files| {
            let number = files.names.get(path)?;
            Some(files.bytes[*number].clone())
        }))
    }

    fn create(&self, path: &Path, bytes: &[u8]) -> io::Result<bool> {
        Ok(self.step(|files| {
            if files.names.contains_key(path) {
                return false;
            }
            files.names.insert(path.to_owned(), files.bytes.len());
            files.bytes.push(bytes.to_vec());
            true
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<bool> {
        Ok(self.step(|files| {
            let moved = files.names.remove(from);
            let there = moved.is_some();
            files
                .names
                .extend(moved.map(|number| (to.to_owned(), number)));
            there
        }))
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<bool> {
        Ok(self.step(|files| {
            if files.names.contains_key(to) {
                return false;
            }
            let moved = files.names.remove(from);
            files
                .names
                .extend(moved.map(|number| (to.to_owned(), number)));
            true
        }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step(|files| files.names.remove(path));
        Ok(())
    }
}

const NAME: &str = "lease";

fn name() -> &'static Path {
    Path::new(NAME)
}

/// Wants the name: it saw the old holder's bytes stand still.
fn taker(actor: Actor) {
    let own = format!("taker {}", actor.number);
    let away = aside(name(), &actor.number.to_string(), 0);
    let expired = |found: &[u8]| found == b"old, beat 1";
    // As whoever polls does: a few tries.
    for _ in 0..2 {
        if take(&actor, name(), own.as_bytes(), &away, &expired).unwrap() {
            actor.tell("took");
            publish(&actor, own.as_bytes());
            release(&actor, name(), &away, &|found| found == own.as_bytes()).unwrap();
            break;
        }
    }
    actor.end();
}

/// Looks whether the name is its own, and only then publishes. The look is the moment that counts.
fn publish(actor: &Actor, own: &[u8]) {
    let holds = actor.step(|files| {
        let number = files.names.get(name());
        let holds = number.is_some_and(|number| files.bytes[*number] == own);
        if holds {
            actor.tell("publishes");
        }
        holds
    });
    if !holds {
        actor.tell("lost it");
    }
}

/// Was frozen; its open file takes the next beat wherever its name is by now.
fn returner(actor: Actor) {
    actor.step(|files| files.bytes[0] = b"old, beat 2".to_vec());
    publish(&actor, b"old, beat 2");
    actor.end();
}

/// Who is there.
#[derive(Clone, Copy)]
struct Cast {
    takers: usize,
    /// Whether the holder was only frozen.
    comes_back: bool,
}

/// Runs one world by these choices; gives those that were made, each with how many there were, and what
/// was told.
fn run(choices: &[usize], cast: Cast) -> (Vec<(usize, usize)>, Vec<String>) {
    let world = Arc::new(World::default());
    world
        .files
        .lock()
        .unwrap()
        .bytes
        .push(b"old, beat 1".to_vec());
    world
        .files
        .lock()
        .unwrap()
        .names
        .insert(name().to_owned(), 0);
    let actor = |number| Actor {
        world: Arc::clone(&world),
        number,
    };
    let mut made = Vec::new();
    let actors = cast.takers + usize::from(cast.comes_back);
    std::thread::scope(|scope| {
        for number in 0..cast.takers {
            let one = actor(number);
            scope.spawn(move || taker(one));
        }
        if cast.comes_back {
            let one = actor(cast.takers);
            scope.spawn(move || returner(one));
        }
        let mut turns = world.turns.lock().unwrap();
        loop {
            // Everybody stands before a step or is done: what happens next is the choice's alone.
            while turns.granted.is_some() || turns.waiting.len() + turns.ended < actors {
                turns = world.changed.wait(turns).unwrap();
            }
            if turns.waiting.is_empty() {
                break;
            }
            turns.waiting.sort_unstable();
            let choice = choices.get(made.len()).copied().unwrap_or(0) % turns.waiting.len();
            made.push((choice, turns.waiting.len()));
            let next = turns.waiting.remove(choice);
            turns.granted = Some(next);
            world.changed.notify_all();
        }
    });
    let told = world.told.lock().unwrap().clone();
    (made, told)
}

/// Goes through worlds depth first, at most so many.
fn in_order(cast: Cast, most: usize) -> usize {
    let mut choices: Vec<usize> = Vec::new();
    for worlds in 1..=most {
        let (made, told) = run(&choices, cast);
        check(&told, cast);
        // The last choice that has an alternative left is made otherwise.
        let last = made.iter().rposition(|(choice, among)| choice + 1 < *among);
        let Some(last) = last else {
            return worlds;
        };
        choices = made[..=last].iter().map(|(choice, _)| *choice).collect();
        choices[last] += 1;
    }
    most
}

/// Who took the name last does not publish once somebody else has, unless it took the name again: it notices that it
/// lost it. And a dead holder's name is taken. (One who comes back may be told that it lost the name in the moment in
/// which a taker moves it by mistake: then nobody does, and the next who asks does. One whose name was moved by mistake
/// may also get it back after another has taken, published and freed it in between: then both have done the work, one
/// after the other.)
fn check(told: &[String], cast: Cast) {
    let mut inside: Option<&str> = None;
    // It took the name last, and another has published since.
    let mut overtaken: Option<&str> = None;
    for line in told {
        let (who, what) = line.split_once(' ').unwrap();
        match what {
            "publishes" => {
                assert!(overtaken != Some(who), "{told:?}");
                overtaken = inside.take().filter(|holder| *holder != who);
            }
            "lost it" => {
                inside = inside.filter(|holder| *holder != who);
                overtaken = overtaken.filter(|holder| *holder != who);
            }
            "took" => {
                inside = Some(who);
                overtaken = overtaken.filter(|holder| *holder != who);
            }
            _ => {}
        }
    }
    let taken = told.iter().any(|line| line.ends_with("took"));
    assert!(taken || cast.comes_back, "{told:?}");
}

#[test]
fn worlds_in_order() {
    for comes_back in [false, true] {
        let cast = Cast {
            takers: 2,
            comes_back,
        };
        assert_eq!(in_order(cast, 3_000), 3_000, "there are more than that");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn worlds_by_chance(
        choices in proptest::collection::vec(0usize..60, 60),
        takers in 2usize..4,
        comes_back: bool,
    ) {
        let cast = Cast { takers, comes_back };
        check(&run(&choices, cast).1, cast);
    }
}
