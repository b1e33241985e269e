//! What is said of a remote's faults.

use cache::RemoteFault;

use super::link::Link;

/// Code and sentence of everything that went wrong, one a kind; nothing where all went well.
pub fn complaints(link: &Link) -> Vec<(String, String)> {
    let mut told = Vec::new();
    if let Some(trouble) = link.trouble() {
        let text = format!("the remote `{}` cannot be used: {trouble}", link.shown());
        told.push(("remote::unusable".to_owned(), text));
    }
    let Some(remote) = link.used() else {
        return told;
    };
    let left = remote.left_alone();
    for RemoteFault {
        code,
        cause,
        mend,
        count,
    } in remote.faults()
    {
        let times = if count == 1 {
            "once".to_owned()
        } else {
            format!("{count} times")
        };
        told.push((
            code,
            format!("the remote `{}`, {times}: {cause}; {mend}", link.shown()),
        ));
    }
    if left {
        let text = format!(
            "the remote `{}` was left alone after that: nothing more was fetched or put there",
            link.shown()
        );
        told.push(("remote::left-alone".to_owned(), text));
    }
    told
}
