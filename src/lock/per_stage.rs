//! Something of every stage under every profile, looked up without making a text.

use std::collections::BTreeMap;

/// Profile -> stage -> it, sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PerStage<T>(BTreeMap<String, BTreeMap<String, T>>);

impl<T> Default for PerStage<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> PerStage<T> {
    pub(super) fn get(&self, profile: &str, stage: &str) -> Option<&T> {
        self.0.get(profile)?.get(stage)
    }

    /// What stands there, put there first if nothing does.
    pub(super) fn entry(&mut self, profile: &str, stage: &str) -> &mut T
    where
        T: Default,
    {
        self.under(profile).entry(stage.to_owned()).or_default()
    }

    /// Gives what stood there before.
    pub(super) fn insert(&mut self, profile: &str, stage: &str, it: T) -> Option<T> {
        self.under(profile).insert(stage.to_owned(), it)
    }

    pub(super) fn remove(&mut self, profile: &str, stage: &str) {
        if let Some(stages) = self.0.get_mut(profile) {
            stages.remove(stage);
            if stages.is_empty() {
                self.0.remove(profile);
            }
        }
    }

    /// Keeps the stages that `stays` names under a profile; gives the others' names.
    pub(super) fn retain(&mut self, profile: &str, stays: impl Fn(&str) -> bool) -> Vec<String> {
        let of = self.of(profile).map(|(stage, _)| stage);
        let gone: Vec<String> = of
            .filter(|stage| !stays(stage))
            .map(str::to_owned)
            .collect();
        for stage in &gone {
            self.remove(profile, stage);
        }
        gone
    }

    /// Everything of a profile, by stage.
    pub(super) fn of(&self, profile: &str) -> impl Iterator<Item = (&str, &T)> {
        let stages = self.0.get(profile).into_iter().flatten();
        stages.map(|(stage, it)| (stage.as_str(), it))
    }

    /// Everything: profile, stage, it.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str, &T)> {
        let of = |(profile, stages)| {
            let stages: &BTreeMap<String, T> = stages;
            let profile: &String = profile;
            stages
                .iter()
                .map(move |(stage, it)| (profile.as_str(), stage.as_str(), it))
        };
        self.0.iter().flat_map(of)
    }

    /// The profile's stages; made if need be.
    fn under(&mut self, profile: &str) -> &mut BTreeMap<String, T> {
        if !self.0.contains_key(profile) {
            self.0.insert(profile.to_owned(), BTreeMap::new());
        }
        self.0.get_mut(profile).expect("it was just put there")
    }
}
