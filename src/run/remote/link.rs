//! The way to the remote: opened at the first use, and whether results go there.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use cache::{Record, Remote};
use objects::Settings;

use crate::config::{Push, RemoteSpec};
use crate::plan::Question;

/// How long an answer may take, unless `timeout:` says otherwise.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Questions under way at the same time.
const SIDE_BY_SIDE: usize = 16;

/// The remote as it is configured; opened when it is first used.
pub struct Link {
    spec: RemoteSpec,
    on: bool,
    /// After so long it is left alone.
    patience: Option<Duration>,
    opened: OnceLock<Option<Arc<Remote>>>,
    trouble: Mutex<Option<String>>,
}

/// Whether results are put to the remote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pushing {
    /// They are.
    On,
    /// Nobody asked for it.
    Off,
    /// They would be, but this is the CI of a pull request, as this variable says.
    PullRequest(&'static str),
}

impl Link {
    /// A way to the remote that `spec` names. `frozen` refuses the network.
    pub fn new(spec: &RemoteSpec, off: bool, frozen: bool, patience: Option<Duration>) -> Self {
        let allowed = |(address, _): &(objects::Address, String)| !(frozen && address.is_far());
        Self {
            on: !off && !spec.off && spec.url.as_ref().is_some_and(allowed),
            spec: spec.clone(),
            patience,
            opened: OnceLock::new(),
            trouble: Mutex::default(),
        }
    }

    /// Whether there is one.
    pub fn is_there(&self) -> bool {
        self.on
    }

    /// Its address, as it was written.
    pub fn shown(&self) -> &str {
        self.spec.url.as_ref().map_or("", |(_, text)| text)
    }

    /// The remote, if there is one and it can be opened.
    pub fn remote(&self) -> Option<&Arc<Remote>> {
        if !self.on {
            return None;
        }
        self.opened.get_or_init(|| self.open()).as_ref()
    }

    /// The remote, if it was used.
    pub fn used(&self) -> Option<&Arc<Remote>> {
        self.opened.get()?.as_ref()
    }

    /// Why it could not be opened.
    pub fn trouble(&self) -> Option<String> {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.clone()
    }

    fn open(&self) -> Option<Arc<Remote>> {
        let (address, _) = self.spec.url.as_ref()?;
        let env = |name: &str| std::env::var(name).ok();
        let timeout = self.spec.timeout.unwrap_or(TIMEOUT);
        let settings = Settings {
            endpoint: self.spec.endpoint.clone(),
            region: self.spec.region.clone(),
            timeout: self
                .patience
                .map_or(timeout, |patience| patience.min(timeout)),
        };
        match objects::open(address, &settings, &env) {
            Ok(found) => Some(Arc::new(Remote::new(
                found,
                objects::secrets(&env),
                self.patience,
            ))),
            Err(cause) => {
                let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
                *trouble = Some(cause);
                None
            }
        }
    }

    /// Whether results are put there.
    pub fn pushing(&self) -> Pushing {
        let writable = self
            .spec
            .url
            .as_ref()
            .is_some_and(|(url, _)| url.is_writable());
        if !self.on || !writable {
            return Pushing::Off;
        }
        match self.spec.push {
            None | Some(Push::Never) => Pushing::Off,
            Some(Push::Always) => Pushing::On,
            Some(Push::Yes) => {
                let env = |name: &str| std::env::var(name).ok();
                pull_request(&env).map_or(Pushing::On, Pushing::PullRequest)
            }
        }
    }

    /// Whether `push:` says nothing, or no.
    pub fn may_push_by_hand(&self) -> Result<(), &'static str> {
        if self.spec.push == Some(Push::Always) {
            return Ok(());
        }
        let env = |name: &str| std::env::var(name).ok();
        pull_request(&env).map_or(Ok(()), Err)
    }

    /// A name for files about this remote.
    pub(super) fn file_name(&self) -> String {
        let of = format!(
            "{} {}",
            self.shown(),
            self.spec.endpoint.as_deref().unwrap_or_default()
        );
        let folder = self.spec.url.as_ref().map(|(url, _)| format!("{url:?}"));
        let all = of + &folder.unwrap_or_default();
        blake3::hash(all.as_bytes()).to_hex()[..16].to_owned()
    }
}

/// The variable that says that this is the CI of a pull request, if it is: whoever opened that
/// request decides what runs, so nothing of it may come to be believed by others.
pub fn pull_request(env: &dyn Fn(&str) -> Option<String>) -> Option<&'static str> {
    let is = |name: &'static str, request: fn(&str) -> bool| {
        env(name)
            .is_some_and(|value| request(&value))
            .then_some(name)
    };
    let set = |value: &str| !value.is_empty() && value != "false";
    is("GITHUB_EVENT_NAME", |event| {
        event.starts_with("pull_request")
    })
    .or_else(|| is("CI_MERGE_REQUEST_IID", set))
    .or_else(|| {
        is("CI_PIPELINE_EVENT", |event| {
            event.starts_with("pull_request")
        })
    })
    .or_else(|| is("CIRCLE_PULL_REQUEST", set))
    .or_else(|| is("TRAVIS_PULL_REQUEST", set))
    .or_else(|| is("BUILDKITE_PULL_REQUEST", set))
    .or_else(|| is("BITBUCKET_PR_ID", set))
    .or_else(|| is("DRONE_PULL_REQUEST", set))
    .or_else(|| is("CHANGE_ID", set))
    .or_else(|| is("BUILD_REASON", |reason| reason == "PullRequest"))
}

/// The answer to one question.
pub(super) fn answer(remote: &Remote, question: &Question) -> Option<Record> {
    let mut results = question.results.iter();
    results.find_map(|result| remote.find(&question.key, result.as_ref()))
}

/// Answers questions side by side, for a plan that is only shown. Blocks.
pub fn ask(link: &Link, questions: &[Question]) -> Vec<Option<Record>> {
    let Some(remote) = link.remote() else {
        return vec![None; questions.len()];
    };
    let next = AtomicUsize::new(0);
    let answers = Mutex::new(vec![None; questions.len()]);
    std::thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE.min(questions.len()) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(question) = questions.get(at) else {
                        return;
                    };
                    let found = answer(remote, question);
                    answers.lock().unwrap_or_else(PoisonError::into_inner)[at] = found;
                }
            });
        }
    });
    answers.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// The folder that relative addresses in the environment begin in.
pub(crate) fn spec_of(
    pipeline: &RemoteSpec,
    user: RemoteSpec,
    root: &Path,
) -> Result<RemoteSpec, crate::config::Faults> {
    let env = |name: &str| std::env::var(name).ok();
    let said = RemoteSpec::of_environment(root, &env)?;
    Ok(said.or(pipeline.clone()).or(user))
}

#[cfg(test)]
mod tests {
    use super::pull_request;

    #[test]
    fn the_ci_of_a_pull_request_is_known_by_its_variables() {
        let with = |name: &'static str, value: &'static str| {
            pull_request(&move |asked| (asked == name).then(|| value.to_owned()))
        };
        for (name, value) in [
            ("GITHUB_EVENT_NAME", "pull_request"),
            ("GITHUB_EVENT_NAME", "pull_request_target"),
            ("CI_MERGE_REQUEST_IID", "12"),
            ("TRAVIS_PULL_REQUEST", "7"),
            ("BUILD_REASON", "PullRequest"),
        ] {
            assert_eq!(with(name, value), Some(name));
        }
        for (name, value) in [
            ("GITHUB_EVENT_NAME", "push"),
            ("TRAVIS_PULL_REQUEST", "false"),
            ("CI_MERGE_REQUEST_IID", ""),
            ("CI", "true"),
        ] {
            assert_eq!(with(name, value), None, "{name}={value}");
        }
    }
}
