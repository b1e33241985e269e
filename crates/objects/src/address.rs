//! Where a remote is: `s3://bucket/prefix`, `gs://…`, `az://…`, `https://…`, a folder.
//!
//! Promises: an address that carries a secret is refused; an address is written down without any.

use std::path::{Path, PathBuf};

/// A store's address, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A folder.
    Folder(PathBuf),
    /// Read only, by HTTP.
    Web(String),
    /// A bucket.
    Cloud {
        /// Whose.
        service: Service,
        /// Bucket or container.
        bucket: String,
        /// Before every path; empty or without slashes at its ends.
        prefix: String,
    },
}

/// Whose bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Amazon S3, or what speaks its protocol.
    S3,
    /// Google Cloud Storage.
    Google,
    /// Azure Blob Storage.
    Azure,
}

/// Why a text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadAddress {
    /// It holds a user, a password or a signature.
    Secret,
    /// There is no such kind of store.
    Scheme,
    /// The bucket's or host's name is missing.
    Nameless,
}

impl Address {
    /// Takes an address apart. A relative path begins in `folder`, `~/` in `home`.
    pub fn parse(text: &str, folder: &Path, home: Option<&str>) -> Result<Self, BadAddress> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Ok(Self::Folder(match (text.strip_prefix("~/"), home) {
                (Some(below), Some(home)) => Path::new(home).join(below),
                _ => folder.join(text),
            }));
        };
        if scheme == "file" {
            return Ok(Self::Folder(PathBuf::from(rest)));
        }
        let host = rest.split('/').next().unwrap_or_default();
        if host.contains('@') || rest.contains(['?', '#']) {
            return Err(BadAddress::Secret);
        }
        if host.is_empty() {
            return Err(BadAddress::Nameless);
        }
        let service = match scheme {
            "http" | "https" => return Ok(Self::Web(text.trim_end_matches('/').to_owned())),
            "s3" => Service::S3,
            "gs" => Service::Google,
            "az" => Service::Azure,
            _ => return Err(BadAddress::Scheme),
        };
        Ok(Self::Cloud {
            service,
            bucket: host.to_owned(),
            prefix: rest[host.len()..].trim_matches('/').to_owned(),
        })
    }

    /// Whether it can be written to at all.
    pub fn is_writable(&self) -> bool {
        !matches!(self, Self::Web(_))
    }

    /// Whether the network is needed.
    pub fn is_far(&self) -> bool {
        !matches!(self, Self::Folder(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Address, BadAddress> {
        Address::parse(text, Path::new("/project"), Some("/home/u"))
    }

    #[test]
    fn every_kind_is_taken_apart() {
        let cloud = |service, bucket: &str, prefix: &str| {
            let (bucket, prefix) = (bucket.to_owned(), prefix.to_owned());
            Ok(Address::Cloud {
                service,
                bucket,
                prefix,
            })
        };
        assert_eq!(parse("s3://b"), cloud(Service::S3, "b", ""));
        assert_eq!(parse("s3://b/x/y/"), cloud(Service::S3, "b", "x/y"));
        assert_eq!(parse("gs://b/x"), cloud(Service::Google, "b", "x"));
        assert_eq!(parse("az://c"), cloud(Service::Azure, "c", ""));
        assert_eq!(
            parse("https://h/x/"),
            Ok(Address::Web("https://h/x".into()))
        );
        for (text, path) in [
            ("../s", "/project/../s"),
            ("~/s", "/home/u/s"),
            ("/s", "/s"),
            ("file:///s", "/s"),
        ] {
            assert_eq!(parse(text), Ok(Address::Folder(path.into())), "{text}");
        }
    }

    #[test]
    fn secrets_and_unknown_kinds_are_refused() {
        for text in ["s3://id:key@b", "https://u@h/x", "https://h/x?sig=abc"] {
            assert_eq!(parse(text), Err(BadAddress::Secret), "{text}");
        }
        assert_eq!(parse("ftp://h/x"), Err(BadAddress::Scheme));
        assert_eq!(parse("s3:///x"), Err(BadAddress::Nameless));
    }
}
