//! S3, Google Cloud Storage and Azure through the crate `object_store`.
//!
//! Promises: one call is one request (nothing is repeated in here but by `again`); create only is
//! the service's own condition, where it has one.

use std::io::Read;
use std::sync::Arc;

use cache::{Again, Objects, Refusal, RefusalKind, Sink};
use futures_util::{StreamExt, TryStreamExt};
use object_store::client::{HttpError, HttpErrorKind};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use crate::address::Service;
use crate::agent::agent;
use crate::connector::Ureq;
use crate::{Env, Settings, service};

/// Bytes of a part at least; S3 takes 10,000 parts of an object.
const PART: u64 = 16 << 20;
const PARTS: u64 = 9_000;
/// Requests under way at the same time, each on a thread.
const THREADS: usize = 64;
/// The start of a service's message that is shown.
const SHOWN: usize = 300;

pub(crate) struct Cloud {
    store: Arc<dyn ObjectStore>,
    parts: Arc<dyn MultipartStore>,
    prefix: Path,
    /// There until the store goes.
    runtime: Option<Runtime>,
    stop: watch::Sender<bool>,
}

impl Cloud {
    pub(crate) fn open(
        service: Service,
        bucket: &str,
        prefix: &str,
        settings: &Settings,
        env: &Env<'_>,
    ) -> Result<Self, String> {
        let http = Ureq(agent(settings, 0, env)?);
        let (store, parts) = service::open(service, bucket, settings, http, env)?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(THREADS)
            .thread_name("objects")
            .enable_time()
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self {
            store,
            parts,
            prefix: Path::from(prefix),
            runtime: Some(runtime),
            stop: watch::channel(false).0,
        })
    }

    fn path(&self, path: &str) -> Path {
        let steps = self.prefix.parts().collect::<Vec<_>>().into_iter();
        steps.chain(Path::from(path).parts()).collect()
    }

    fn runtime(&self) -> &Runtime {
        self.runtime
            .as_ref()
            .expect("it is there until the store goes")
    }

    /// Waits on this thread for an answer, or until it is to stop.
    fn wait<T>(
        &self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<Result<T, Error>, Refusal> {
        let mut stop = self.stop.subscribe();
        self.runtime().block_on(async {
            tokio::select! {
                done = work => Ok(done),
                _ = stop.wait_for(|stop| *stop) => {
                    Err(Refusal::new(RefusalKind::Stopped, "it was told to stop"))
                }
            }
        })
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        // A blocking request may still be under way: nobody waits for it.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What an error of the service means.
fn refusal(error: &Error) -> Refusal {
    let text = error.to_string();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let kind = match error {
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => RefusalKind::Denied,
        _ if says(&[
            "NoSuchBucket",
            "ContainerNotFound",
            "specified bucket does not exist",
        ]) =>
        {
            RefusalKind::Nowhere
        }
        Error::NotSupported { .. } | Error::NotImplemented { .. } => RefusalKind::Unable,
        // Two that wrote at once, where the service says so instead of letting one win.
        Error::AlreadyExists { .. } | Error::Precondition { .. } => RefusalKind::Passing,
        _ => http_kind(error).unwrap_or_else(|| {
            if says(&["status code: 4"]) && !says(&["status code: 408", "status code: 429"]) {
                RefusalKind::Senseless
            } else {
                RefusalKind::Passing
            }
        }),
    };
    Refusal::new(kind, words(&text))
}

/// The service's own words and what it was asked, out of an error that tells the object's path twice
/// before it comes to them.
fn words(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let told = told(&text).unwrap_or(text);
    told.chars().take(SHOWN).collect()
}

fn told(text: &str) -> Option<String> {
    let between = |start: &str, end: &str| Some(text.split_once(start)?.1.split_once(end)?.0);
    let (_, answer) = text.split_once("non-2xx status code: ")?;
    let (status, body) = answer.split_once(':')?;
    let said = match (
        between("<Code>", "</Code>"),
        between("<Message>", "</Message>"),
    ) {
        // Azure ends it with the number of the request and the time.
        (Some(code), Some(message)) => {
            let message = message.split("RequestId:").next().unwrap_or_default();
            format!("{code}: {}", message.trim_end())
        }
        _ => body.trim().to_owned(),
    };
    let asked = between("Error performing ", " in ")?;
    let separator = if said.is_empty() { "" } else { ", " };
    Some(format!("{status}{separator}{said} ({asked})"))
}

/// Whether an upload in parts is no longer there to be completed: an earlier try did, and its answer
/// was lost; or, with Azure, whose uncommitted parts belong to a name and not to an upload, somebody
/// else put the same bytes.
fn is_spent(error: &Error) -> bool {
    matches!(error, Error::NotFound { .. }) || error.to_string().contains("InvalidBlockList")
}

fn http_kind(error: &Error) -> Option<RefusalKind> {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(http) = inner.downcast_ref::<HttpError>() {
            return Some(match http.kind() {
                HttpErrorKind::Connect => RefusalKind::Unreachable,
                HttpErrorKind::Timeout => RefusalKind::Slow,
                HttpErrorKind::Decode => RefusalKind::Senseless,
                _ => RefusalKind::Passing,
            });
        }
        source = inner.source();
    }
    None
}

/// Whether nothing is there, which is an answer; that the bucket is missing is none.
fn absent(error: &Error) -> bool {
    matches!(error, Error::NotFound { .. }) && refusal(error).kind != RefusalKind::Nowhere
}

impl Objects for Cloud {
    fn get(&self, path: &str, from: u64, sink: &mut Sink<'_>) -> Result<bool, Refusal> {
        let path = self.path(path);
        let options = GetOptions {
            range: (from > 0).then_some(GetRange::Offset(from)),
            ..GetOptions::default()
        };
        let mut own = None;
        let got = self.wait(async {
            let mut pieces = self.store.get_opts(&path, options).await?.into_stream();
            while let Some(piece) = pieces.next().await {
                if let Err(error) = sink(&piece?) {
                    own = Some(Refusal::own(&error));
                    break;
                }
            }
            Ok(())
        })?;
        match (own, got) {
            (Some(own), _) => Err(own),
            (None, Ok(())) => Ok(true),
            (None, Err(error)) if absent(&error) => Ok(false),
            (None, Err(error)) => Err(refusal(&error)),
        }
    }

    fn size(&self, path: &str) -> Result<Option<u64>, Refusal> {
        let path = self.path(path);
        match self.wait(self.store.head(&path))? {
            Ok(meta) => Ok(Some(meta.size)),
            Err(error) if absent(&error) => Ok(None),
            Err(error) => Err(refusal(&error)),
        }
    }

    fn put(&self, path: &str, bytes: &[u8], over: bool) -> Result<bool, Refusal> {
        let place = self.path(path);
        let put = |mode| {
            let options = PutOptions {
                mode,
                ..PutOptions::default()
            };
            let payload = PutPayload::from(bytes.to_vec());
            self.wait(self.store.put_opts(&place, payload, options))
        };
        let mode = if over {
            PutMode::Overwrite
        } else {
            PutMode::Create
        };
        match put(mode)? {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) if !over => Ok(false),
            // An endpoint without conditional writes: look first. Two at once then both write,
            // and the bytes of a blob are the same.
            Err(Error::NotImplemented { .. } | Error::NotSupported { .. }) if !over => {
                if self.size(path)?.is_some() {
                    return Ok(false);
                }
                put(PutMode::Overwrite)?.map_err(|error| refusal(&error))?;
                Ok(true)
            }
            Err(error) => Err(refusal(&error)),
        }
    }

    fn put_parts(
        &self,
        path: &str,
        bytes: &mut dyn Read,
        size: u64,
        again: &Again<'_>,
    ) -> Result<(), Refusal> {
        let place = self.path(path);
        let mut id = String::new();
        again(&mut || {
            let begun = self.wait(self.parts.create_multipart(&place))?;
            id = begun.map_err(|error| refusal(&error))?;
            Ok(())
        })?;
        let sent = self.send_parts(&place, &id, bytes, size, again);
        if sent.is_err() {
            // Best effort: what cannot be dropped now, the bucket's own rules drop.
            let _left = self
                .runtime()
                .block_on(self.parts.abort_multipart(&place, &id));
        }
        sent
    }

    fn list(&self, folder: &str, each: &mut dyn FnMut(&str, u64)) -> Result<(), Refusal> {
        let folder = self.path(folder);
        let listed = self.wait(async {
            let mut found = self.store.list(Some(&folder));
            while let Some(meta) = found.try_next().await? {
                each(meta.location.as_ref(), meta.size);
            }
            Ok(())
        })?;
        listed.map_err(|error| refusal(&error))
    }

    fn stop(&self) {
        self.stop.send_replace(true);
    }
}

impl Cloud {
    fn send_parts(
        &self,
        place: &Path,
        id: &String,
        bytes: &mut dyn Read,
        size: u64,
        again: &Again<'_>,
    ) -> Result<(), Refusal> {
        let part = PART.max(size.div_ceil(PARTS));
        let mut done: Vec<PartId> = Vec::new();
        loop {
            let mut content = Vec::new();
            let read = bytes.take(part).read_to_end(&mut content);
            read.map_err(|error| Refusal::own(&error))?;
            if content.is_empty() {
                break;
            }
            let payload = PutPayload::from(content);
            again(&mut || {
                let sent = self.parts.put_part(place, id, done.len(), payload.clone());
                done.push(self.wait(sent)?.map_err(|error| refusal(&error))?);
                Ok(())
            })?;
        }
        again(&mut || {
            let whole = self.parts.complete_multipart(place, id, done.clone());
            match self.wait(whole)? {
                Ok(_) => Ok(()),
                Err(error) if is_spent(&error) => match self.wait(self.store.head(place))? {
                    Ok(there) if there.size == size => Ok(()),
                    // No answer to this either: both are asked again.
                    Err(unknown) if !absent(&unknown) => Err(refusal(&unknown)),
                    _ => Err(refusal(&error)),
                },
                Err(error) => Err(refusal(&error)),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn what_the_service_said_comes_before_what_it_was_asked() {
        let azure = "The operation lacked the necessary privileges to complete for path a/b: Error \
                     performing GET http://h/a/b in 3ms - Server returned non-2xx status code: 403 \
                     Forbidden: <?xml version=\"1.0\"?><Error><Code>AuthorizationFailure</Code>\
                     <Message>Not you.\nRequestId:1\nTime:2</Message></Error>";
        let told = "403 Forbidden, AuthorizationFailure: Not you. (GET http://h/a/b)";
        assert_eq!(words(azure), told);
        let head = "x: Error performing HEAD REDACTED in 3ms - Server returned non-2xx status code: 404 Not Found: ";
        assert_eq!(words(head), "404 Not Found (HEAD REDACTED)");
        let json = "Error performing POST http://t in 1s - Server returned non-2xx status code: 400 Bad Request: {\"error\": 1}";
        assert_eq!(
            words(json),
            "400 Bad Request, {\"error\": 1} (POST http://t)"
        );
        assert_eq!(words("nobody  there"), "nobody there");
    }
}
