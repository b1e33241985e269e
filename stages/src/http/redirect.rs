//! Where an answer sends us, and who may be told what on the way.

use ureq::http::{Response, header};

use super::HttpError;

/// An address as people may see it: no query (signed links), no user part.
pub(crate) fn shown(url: &str) -> String {
    let bare = url.split(['?', '#']).next().unwrap_or(url);
    match (bare.split_once("://"), bare.find('@')) {
        (Some((scheme, rest)), Some(_)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = authority.rsplit('@').next().unwrap_or(authority);
            format!("{scheme}://{host}{path}")
        }
        _ => bare.to_owned(),
    }
}

/// The address a redirect names, made absolute.
pub(super) fn target<T>(answer: &Response<T>, from: &str) -> Option<String> {
    if ![301, 302, 303, 307, 308].contains(&answer.status().as_u16()) {
        return None;
    }
    let location = answer.headers().get(header::LOCATION)?.to_str().ok()?;
    Some(join(from, location))
}

fn join(from: &str, location: &str) -> String {
    if location.contains("://") {
        return location.to_owned();
    }
    let (scheme, rest) = from.split_once("://").unwrap_or(("https", from));
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    if location.starts_with("//") {
        return format!("{scheme}:{location}");
    }
    if location.starts_with('/') {
        return format!("{scheme}://{authority}{location}");
    }
    let path = rest[authority.len()..]
        .split(['?', '#'])
        .next()
        .unwrap_or("");
    let folder = &path[..path.rfind('/').map_or(0, |at| at + 1)];
    let slash = if folder.is_empty() { "/" } else { folder };
    format!("{scheme}://{authority}{slash}{location}")
}

/// Scheme, host and port: what a token was given for.
pub(super) fn same_host(left: &str, right: &str) -> bool {
    origin(left) == origin(right)
}

fn origin(url: &str) -> (String, String) {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let host = authority.rsplit('@').next().unwrap_or(authority);
    (scheme.to_ascii_lowercase(), host.to_ascii_lowercase())
}

/// Refuses a step from https to anything else.
pub(super) fn refuse_downgrade(from: &str, to: &str) -> Result<(), HttpError> {
    if from.starts_with("https://") && !to.starts_with("https://") {
        return Err(HttpError::Downgrade {
            from: shown(from),
            to: shown(to),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_made_absolute() {
        let from = "https://hub.example/a/resolve/main/x?download=1";
        for (location, expected) in [
            ("https://cdn.example/y", "https://cdn.example/y"),
            ("//cdn.example/y", "https://cdn.example/y"),
            ("/b/y?z", "https://hub.example/b/y?z"),
            ("y", "https://hub.example/a/resolve/main/y"),
        ] {
            assert_eq!(join(from, location), expected);
        }
        assert_eq!(join("http://h:1", "y"), "http://h:1/y");
    }

    #[test]
    fn signed_links_and_passwords_are_not_shown() {
        assert_eq!(
            shown("https://cdn.example/f?X-Amz-Signature=1"),
            "https://cdn.example/f"
        );
        assert_eq!(
            shown("https://me:pw@h.example/f@1"),
            "https://h.example/f@1"
        );
        assert_eq!(
            shown("https://api.example/run/@cf/x"),
            "https://api.example/run/@cf/x"
        );
    }

    #[test]
    fn a_token_stays_with_its_host() {
        assert!(same_host("https://h.example/a", "https://H.example/b"));
        assert!(!same_host("https://h.example/a", "https://cdn.example/a"));
        assert!(!same_host("https://h.example/a", "http://h.example/a"));
        assert!(!same_host(
            "https://h.example/a",
            "https://h.example:8443/a"
        ));
        assert!(!same_host(
            "https://h.example/a",
            "https://h.example.evil.example/a"
        ));
    }

    #[test]
    fn https_is_not_left() {
        assert!(refuse_downgrade("https://a/x", "http://a/x").is_err());
        assert!(refuse_downgrade("http://a/x", "http://b/x").is_ok());
    }
}
