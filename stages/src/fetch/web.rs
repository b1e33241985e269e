//! One file at an address, with its sha256.

use std::collections::BTreeMap;
use std::path::Path;

use crate::contract::Outcome;
use crate::http::{Http, shown};

use super::download::{Download, download};
use super::params::Address;
use super::progress::Progress;
use super::{FetchError, part_path, settle};

pub(super) fn fetch(
    http: &Http<'_>,
    address: &Address,
    data: &Path,
) -> Result<Outcome, FetchError> {
    let ctx = http.context();
    let part = part_path(ctx, &format!("{} {}", address.url, address.sha256));
    let mut progress = Progress::of_one(ctx, "downloading");
    let wanted = Download {
        url: address.url.clone(),
        bearer: None,
        size: None,
        sha256: Some(address.sha256.clone()),
    };
    let size =
        download(http, &wanted, &part, &mut progress)?.map_err(|mut refused| {
            match refused.status {
                404 | 410 => FetchError::NotFound {
                    what: "the file".to_owned(),
                    place: shown(&address.url),
                    mend: "check `url`; the file may have moved".to_owned(),
                },
                _ => {
                    let said = http.redact(&refused.text());
                    refused.refused(&said).into()
                }
            }
        })?;
    settle(&part, &data.join(&address.name))?;
    Ok(outcome(1, size, Vec::new(), None))
}

/// The figures every source reports.
pub(super) fn outcome(
    files: usize,
    bytes: u64,
    mut notes: Vec<String>,
    pin: Option<String>,
) -> Outcome {
    let plural = if files == 1 { "" } else { "s" };
    notes.insert(0, format!("{files} file{plural}, {bytes} bytes"));
    Outcome {
        metrics: BTreeMap::from([
            ("fetch.files".to_owned(), files as f64),
            ("fetch.bytes".to_owned(), bytes as f64),
        ]),
        notes,
        pin,
    }
}
