//! `remote:`, in `pipeline.yaml` and in the user's own file: where results are fetched from and put.
//!
//! ```yaml
//! remote: { url: s3://bucket/prefix, push: true, endpoint: "https://s3.example.org", timeout: 30s }
//! remote: s3://bucket/prefix            # the same as { url: ... }: fetched from, never put to
//! ```
//!
//! Promises: in no key. `TUNESMITH_REMOTE` and `TUNESMITH_REMOTE_PUSH` win over the pipeline, the
//! pipeline over the user's file, field by field. Credentials are nowhere but in the environment:
//! one that stands in the file is a fault, and blanked. Must not know: what a remote does.

use std::path::Path;
use std::time::Duration;

use objects::{Address, BadAddress};

use super::fault::{Fault, Faults};
use super::limits::duration;
use super::node::{Entry, Kind, Node};
use super::secret::Secrets;
use super::section;

/// Keys of the section.
const KEYS: [&str; 5] = ["url", "push", "endpoint", "region", "timeout"];
/// Words in a key that somebody means for credentials.
const CREDENTIALS: [&str; 5] = ["key", "secret", "token", "password", "credential"];
/// The variable with the address.
const URL: &str = "TUNESMITH_REMOTE";
/// The variable that says whether results are put there.
const PUSH: &str = "TUNESMITH_REMOTE_PUSH";

/// What is said about the remote; `None` where nothing is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemoteSpec {
    /// `url:` the address, and as it was written.
    pub url: Option<(Address, String)>,
    /// `push:` whether results are put there.
    pub push: Option<Push>,
    /// `endpoint:` of a service that is not at its own address.
    pub endpoint: Option<String>,
    /// `region:` of an S3 bucket.
    pub region: Option<String>,
    /// `timeout:` how long an answer may take.
    pub timeout: Option<Duration>,
    /// `TUNESMITH_REMOTE=off`: there is none, whatever the files say.
    pub off: bool,
}

/// Whether results are put to the remote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Push {
    /// They are not.
    Never,
    /// They are, but not by the CI of a pull request.
    Yes,
    /// They are, whoever asks.
    Always,
}

impl Push {
    fn read(text: &str) -> Option<Self> {
        Some(match text {
            "false" | "0" | "no" => Self::Never,
            "true" | "1" | "yes" => Self::Yes,
            "always" => Self::Always,
            _ => return None,
        })
    }
}

impl RemoteSpec {
    /// This, and `other` where this says nothing.
    pub fn or(self, other: Self) -> Self {
        Self {
            url: self.url.or(other.url),
            push: self.push.or(other.push),
            endpoint: self.endpoint.or(other.endpoint),
            region: self.region.or(other.region),
            timeout: self.timeout.or(other.timeout),
            off: self.off || other.off,
        }
    }

    /// What the environment says. A relative path begins in `folder`.
    pub fn of_environment(
        folder: &Path,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Faults> {
        let mut found = Self::default();
        let mut faults = Vec::new();
        let filled = |name: &str| env(name).filter(|value| !value.is_empty());
        if let Some(url) = filled(URL) {
            found.off = url == "off";
            if !found.off {
                match Address::parse(&url, folder, env("HOME").as_deref()) {
                    Ok(address) => found.url = Some((address, url)),
                    Err(bad) => faults.push(address_fault(&(0..0), URL, bad)),
                }
            }
        }
        if let Some(push) = filled(PUSH) {
            found.push = Push::read(&push);
            if found.push.is_none() {
                let message = format!("`{PUSH}` takes true, false or always, not `{push}`");
                faults.push(Fault::nowhere("config::wrong-type", message).mend("set one of them"));
            }
        }
        if faults.is_empty() {
            Ok(found)
        } else {
            Err(Faults::new(Path::new(""), "", faults))
        }
    }
}

/// The section; a relative path begins in `folder`, `~/` in `home`.
pub(crate) fn remote(
    entry: Option<&Entry>,
    folder: &Path,
    home: Option<&str>,
    secrets: &mut Secrets,
    faults: &mut Vec<Fault>,
) -> RemoteSpec {
    let mut found = RemoteSpec::default();
    let Some(entry) = entry else { return found };
    let address = |node: &Node, secrets: &mut Secrets, faults: &mut Vec<Fault>| {
        let text = section::text(node, "url", faults)?;
        match Address::parse(text, folder, home) {
            Ok(address) => Some((address, text.to_owned())),
            Err(bad) => {
                if bad == BadAddress::Secret {
                    secrets.add(text);
                }
                faults.push(address_fault(&node.span, "url", bad));
                None
            }
        }
    };
    if entry.value.text().is_some() {
        found.url = address(&entry.value, secrets, faults);
        return found;
    }
    let entries = section::map(&entry.value, "remote", faults);
    for entry in entries {
        if KEYS.contains(&entry.key.as_str()) {
            continue;
        }
        let name = entry.key.to_lowercase();
        if CREDENTIALS.iter().any(|word| name.contains(word)) {
            entry.value.each_text(&mut |_, text| secrets.add(text));
            faults.push(credentials(entry));
        } else {
            faults.push(section::unknown(entry, &KEYS, "`remote`"));
        }
    }
    if let Some(url) = section::get(entries, "url") {
        found.url = address(&url.value, secrets, faults);
    }
    let text = |name: &str, faults: &mut Vec<Fault>| {
        let entry = section::get(entries, name)?;
        section::text(&entry.value, name, faults).map(str::to_owned)
    };
    found.endpoint = text("endpoint", faults);
    found.region = text("region", faults);
    if let Some(push) = section::get(entries, "push") {
        found.push = push_of(&push.value);
        if found.push.is_none() {
            let mend = "write `push: true`, or leave it out: then results are only fetched";
            let takes = "true, false or always";
            faults.push(section::wrong(&push.value, "push", takes, mend));
        }
        let writes = found.push.is_some_and(|push| push != Push::Never);
        if writes
            && found
                .url
                .as_ref()
                .is_some_and(|(url, _)| !url.is_writable())
        {
            let message = "a store that is read by HTTP cannot be pushed to";
            let fault = Fault::at(&push.value.span, "config::remote-read-only", message);
            faults.push(fault.mend("name the bucket behind it as `url`, or write `push: false`"));
        }
    }
    if let Some(entry) = section::get(entries, "timeout") {
        found.timeout = entry.value.text().and_then(duration);
        if found.timeout.is_none() {
            let mend = "write a number and its unit";
            faults.push(section::wrong(
                &entry.value,
                "timeout",
                "a time, `30s` or `2m`",
                mend,
            ));
        }
    }
    found
}

fn push_of(node: &Node) -> Option<Push> {
    match &node.kind {
        Kind::Bool(true) => Some(Push::Yes),
        Kind::Bool(false) => Some(Push::Never),
        _ => Push::read(node.text()?),
    }
}

fn address_fault(span: &super::Span, name: &str, bad: BadAddress) -> Fault {
    match bad {
        BadAddress::Secret => Fault::at(
            span,
            "config::secret",
            format!("`{name}` holds credentials, or something behind `?` or `#`"),
        )
        .label("a secret")
        .mend(
            "take them out and export them (docs/remote.md names the variables); renew them if the \
             file was shared",
        ),
        BadAddress::Scheme => Fault::at(
            span,
            "config::remote-scheme",
            format!("`{name}` names no kind of store that is known"),
        )
        .mend("write s3://, gs://, az://, https:// or the path of a folder"),
        BadAddress::Nameless => Fault::at(
            span,
            "config::remote-scheme",
            format!("`{name}` names no bucket or host"),
        )
        .mend("write `s3://bucket/prefix`"),
    }
}

fn credentials(entry: &Entry) -> Fault {
    let message = format!("`{}` stands in the file", entry.key);
    Fault::at(&entry.value.span, "config::secret", message)
        .label("a secret")
        .mend(
            "credentials come from the environment alone (docs/remote.md names the variables): take \
             it out, and renew it if the file was shared",
        )
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    fn read(text: &str) -> (RemoteSpec, String) {
        let (tree, mut faults) = parse::parse(text);
        let tree = tree.expect("it parses");
        let entry = section::get(tree.entries().expect("a map"), "remote");
        let mut secrets = Secrets::default();
        let found = remote(
            entry,
            Path::new("/project"),
            None,
            &mut secrets,
            &mut faults,
        );
        let mut faults = Faults::new(Path::new("x.yaml"), text, faults);
        secrets.blank(&mut faults);
        (found, faults.to_string() + &faults.text)
    }

    #[test]
    fn an_address_alone_is_enough_and_is_only_fetched_from() {
        let (found, _) = read("remote: s3://b/p");
        assert_eq!(found.url.map(|(_, text)| text).as_deref(), Some("s3://b/p"));
        assert_eq!(found.push, None);
        let (found, _) = read("remote: {url: ../r, push: always, timeout: 5s, region: eu}");
        assert_eq!(found.push, Some(Push::Always));
        assert_eq!(found.timeout, Some(Duration::from_secs(5)));
    }

    #[test]
    fn credentials_in_the_file_are_a_fault_and_are_shown_nowhere() {
        for text in [
            "remote: https://me:hunter22@h/x",
            "remote: {url: 's3://me:hunter22@b'}",
            "remote: {url: s3://b, secret_access_key: hunter22}",
        ] {
            let (_, told) = read(text);
            assert!(
                told.contains("config::secret")
                    || told.contains("holds credentials")
                    || told.contains("stands in the file"),
                "{told}"
            );
            assert!(!told.contains("hunter22"), "{told}");
        }
    }

    #[test]
    fn every_fault_has_its_place() {
        let (_, told) = read("remote: {url: ftp://x, push: maybe, timeout: 5, pull: true}");
        for part in [
            "no kind of store",
            "true, false or always",
            "`timeout`",
            "`pull`",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
        let (_, told) = read("remote: {url: https://h/x, push: true}");
        assert!(told.contains("cannot be pushed to"), "{told}");
    }

    #[test]
    fn the_environment_wins_and_can_say_off() {
        let env = |name: &str| match name {
            "TUNESMITH_REMOTE" => Some("/r".to_owned()),
            "TUNESMITH_REMOTE_PUSH" => Some("true".to_owned()),
            _ => None,
        };
        let found = RemoteSpec::of_environment(Path::new("/p"), &env).unwrap();
        let file = read("remote: {url: s3://b, push: false, region: eu}").0;
        let both = found.or(file);
        assert_eq!(both.url.map(|(_, text)| text).as_deref(), Some("/r"));
        assert_eq!(
            (both.push, both.region.as_deref()),
            (Some(Push::Yes), Some("eu"))
        );
        let off = |name: &str| (name == "TUNESMITH_REMOTE").then(|| "off".to_owned());
        assert!(
            RemoteSpec::of_environment(Path::new("/p"), &off)
                .unwrap()
                .off
        );
        let bad = |name: &str| (name == "TUNESMITH_REMOTE").then(|| "s3://a:b@c".to_owned());
        assert!(RemoteSpec::of_environment(Path::new("/p"), &bad).is_err());
    }
}
