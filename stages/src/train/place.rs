//! Who this process is among those that train together, read from its environment.
//!
//! Must not know: how they meet, what they do.

use std::time::Duration;

use qlora::ranks::{PATIENCE, Rendezvous};

use crate::contract::{RANKS, StageError};

/// The variables of a process whose place was settled by whoever started it.
pub(super) const RANK: &str = "TUNESMITH_RANK";
pub(super) const WORLD: &str = "TUNESMITH_WORLD";
pub(super) const RENDEZVOUS: &str = "TUNESMITH_RENDEZVOUS";
pub(super) const TOKEN: &str = "TUNESMITH_RENDEZVOUS_TOKEN";
/// Seconds that one rank waits for another.
pub(super) const SECONDS: &str = "TUNESMITH_RENDEZVOUS_SECONDS";
/// For tests: ranks train together on the CPU, too.
pub(super) const ON_CPU: &str = "TUNESMITH_CPU_RANKS";
/// How CUDA programs are told which GPUs they see.
pub(super) const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";

/// A place among the ranks.
#[derive(Debug)]
pub(super) enum Place {
    /// There are no others.
    Alone,
    /// Rank 0 of so many, which starts the others.
    First(usize),
    /// A rank that was told where all meet.
    Given(usize, Rendezvous),
}

type Look<'l> = &'l dyn Fn(&str) -> Option<String>;

/// This process's place.
pub(super) fn here(look: Look<'_>) -> Result<Place, StageError> {
    if let Some(rank) = number(look, RANK)? {
        return given(look, rank);
    }
    let world = number(look, RANKS)?.unwrap_or(1);
    let several = world > 1 && (on_gpu() || look(ON_CPU).is_some());
    Ok(if several {
        Place::First(world)
    } else {
        Place::Alone
    })
}

/// Whether ranks have cards to train on.
fn on_gpu() -> bool {
    qlora::cuda::available()
}

fn given(look: Look<'_>, rank: usize) -> Result<Place, StageError> {
    let text = |name: &str| {
        let value = look(name).filter(|value| !value.is_empty());
        value.ok_or_else(|| wrong(name, "is not set, and a rank needs it"))
    };
    let world = number(look, WORLD)?.ok_or_else(|| wrong(WORLD, "is not set"))?;
    if rank >= world {
        return Err(wrong(
            RANK,
            &format!("is {rank}, and ranks go from 0 to below {world}"),
        ));
    }
    if world == 1 {
        return Ok(Place::Alone);
    }
    let meeting = Rendezvous {
        address: text(RENDEZVOUS)?,
        token: text(TOKEN)?,
        world,
        patience: patience(look)?,
    };
    Ok(Place::Given(rank, meeting))
}

/// How long one rank waits for another.
pub(super) fn patience(look: Look<'_>) -> Result<Duration, StageError> {
    let seconds = number(look, SECONDS)?;
    Ok(seconds.map_or(PATIENCE, |seconds| Duration::from_secs(seconds as u64)))
}

/// What another process is told.
pub(super) fn environment(rank: usize, meeting: &Rendezvous) -> [(&'static str, String); 5] {
    [
        (RANK, rank.to_string()),
        (WORLD, meeting.world.to_string()),
        (RENDEZVOUS, meeting.address.clone()),
        (TOKEN, meeting.token.clone()),
        (SECONDS, meeting.patience.as_secs().to_string()),
    ]
}

/// The GPU of a rank, as CUDA names it, where the list says.
pub(super) fn device(rank: usize, look: Look<'_>) -> Option<String> {
    let visible = look(VISIBLE)?;
    let id = visible.split(',').nth(rank)?.trim();
    Some(id.to_owned())
}

fn number(look: Look<'_>, name: &str) -> Result<Option<usize>, StageError> {
    let Some(text) = look(name).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let number = text.trim().parse();
    number
        .map(Some)
        .map_err(|_| wrong(name, &format!("is `{text}`, which is no number")))
}

fn wrong(name: &str, what: &str) -> StageError {
    StageError::new(
        "train::wrong-rank",
        format!("{name} {what}"),
        format!("set {RANK}, {WORLD}, {RENDEZVOUS} and {TOKEN} for every rank, or none of them"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(set: &[(&str, &str)]) -> Result<Place, String> {
        let look = |name: &str| {
            let found = set.iter().find(|(set, _)| *set == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        here(&look).map_err(|error| error.message)
    }

    #[test]
    fn nobody_is_anywhere_unless_told() {
        assert!(matches!(placed(&[]), Ok(Place::Alone)));
        assert!(matches!(
            placed(&[(RANKS, "1"), (ON_CPU, "1")]),
            Ok(Place::Alone)
        ));
        assert!(matches!(
            placed(&[(RANKS, "3"), (ON_CPU, "1")]),
            Ok(Place::First(3))
        ));
        if !on_gpu() {
            assert!(matches!(placed(&[(RANKS, "3")]), Ok(Place::Alone)));
        }
    }

    #[test]
    fn a_place_that_is_given_wins_and_is_what_others_are_told() {
        let meeting = Rendezvous {
            address: "10.0.0.1:7000".to_owned(),
            token: "t".to_owned(),
            world: 4,
            patience: Duration::from_secs(90),
        };
        let told = environment(2, &meeting);
        let mut set: Vec<(&str, &str)> = told.iter().map(|(n, v)| (*n, v.as_str())).collect();
        set.push((RANKS, "2"));
        let Ok(Place::Given(rank, found)) = placed(&set) else {
            panic!("it has a place");
        };
        assert_eq!(
            (rank, found.world, found.patience),
            (2, 4, meeting.patience)
        );
        assert_eq!(
            (found.address, found.token),
            (meeting.address, meeting.token)
        );
    }

    #[test]
    fn half_a_place_is_refused_by_the_variable_that_lacks() {
        let refused = |set: &[(&str, &str)]| placed(set).unwrap_err();
        assert!(refused(&[(RANK, "0")]).contains("TUNESMITH_WORLD is not set"));
        assert!(refused(&[(RANK, "2"), (WORLD, "2")]).contains("from 0 to below 2"));
        assert!(refused(&[(RANK, "one")]).contains("`one`, which is no number"));
        let address = refused(&[(RANK, "1"), (WORLD, "2")]);
        assert!(
            address.starts_with("TUNESMITH_RENDEZVOUS is not set"),
            "{address}"
        );
        let token = refused(&[(RANK, "1"), (WORLD, "2"), (RENDEZVOUS, "a:1")]);
        assert!(token.starts_with("TUNESMITH_RENDEZVOUS_TOKEN"), "{token}");
    }

    #[test]
    fn every_rank_has_the_card_of_its_place() {
        let look = |_: &str| Some("3, GPU-8f".to_owned());
        assert_eq!(device(0, &look).as_deref(), Some("3"));
        assert_eq!(device(1, &look).as_deref(), Some("GPU-8f"));
        assert_eq!(device(2, &look), None);
    }
}
