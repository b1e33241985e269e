//! S3, Google Cloud Storage and Azure through the crate `object_store`.
//!
//! Promises: one call is one request (nothing is repeated in here but by `again`); create only is
//! the service's own condition, where it has one; without credentials in the environment a bucket
//! is asked anonymously, and no metadata server is waited for.

use std::io::Read;
use std::sync::Arc;

use cache::{Again, Objects, Refusal, RefusalKind, Sink};
use futures_util::{StreamExt, TryStreamExt};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::{HttpError, HttpErrorKind};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
    RetryConfig,
};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use crate::address::Service;
use crate::agent::agent;
use crate::connector::Ureq;
use crate::{Env, Settings};

/// Bytes of a part at least; S3 takes 10,000 parts of an object.
const PART: u64 = 16 << 20;
const PARTS: u64 = 9_000;
/// Requests under way at the same time, each on a thread.
const THREADS: usize = 64;
/// The start of a service's message that is shown.
const SHOWN: usize = 300;

/// Variables that say how to sign requests to S3.
const S3_CREDENTIALS: [&str; 4] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
];
/// The same for Google.
const GOOGLE_CREDENTIALS: [&str; 4] = [
    "GOOGLE_SERVICE_ACCOUNT",
    "GOOGLE_SERVICE_ACCOUNT_PATH",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
    "GOOGLE_APPLICATION_CREDENTIALS",
];
/// The same for Azure.
const AZURE_CREDENTIALS: [&str; 7] = [
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_CLIENT_SECRET",
    "AZURE_STORAGE_SAS_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_TOKEN",
    "AZURE_FEDERATED_TOKEN_FILE",
];

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
        let (store, parts) =
            build(service, bucket, settings, http, env).map_err(|error| error.to_string())?;
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

type Both = (Arc<dyn ObjectStore>, Arc<dyn MultipartStore>);

fn build(
    service: Service,
    bucket: &str,
    settings: &Settings,
    http: Ureq,
    env: &Env<'_>,
) -> Result<Both, Error> {
    let anonymous = |names: &[&str]| !names.iter().any(|name| env(name).is_some());
    let once = RetryConfig {
        max_retries: 0,
        ..RetryConfig::default()
    };
    let both = |store: Arc<dyn ObjectStore>, parts: Arc<dyn MultipartStore>| (store, parts);
    Ok(match service {
        Service::S3 => {
            let mut builder = AmazonS3Builder::from_env()
                .with_bucket_name(bucket)
                .with_http_connector(http)
                .with_retry(once)
                .with_skip_signature(anonymous(&S3_CREDENTIALS));
            if let Some(endpoint) = &settings.endpoint {
                let plain = endpoint.starts_with("http://");
                builder = builder.with_endpoint(endpoint).with_allow_http(plain);
            }
            if let Some(region) = &settings.region {
                builder = builder.with_region(region);
            }
            let store = Arc::new(builder.build()?);
            both(store.clone(), store)
        }
        Service::Google => {
            let mut builder = GoogleCloudStorageBuilder::from_env()
                .with_bucket_name(bucket)
                .with_http_connector(http)
                .with_retry(once)
                .with_skip_signature(anonymous(&GOOGLE_CREDENTIALS));
            if let Some(endpoint) = &settings.endpoint {
                builder = builder.with_base_url(endpoint);
            }
            let store = Arc::new(builder.build()?);
            both(store.clone(), store)
        }
        Service::Azure => {
            let mut builder = MicrosoftAzureBuilder::from_env()
                .with_container_name(bucket)
                .with_http_connector(http)
                .with_retry(once)
                .with_skip_signature(anonymous(&AZURE_CREDENTIALS));
            if let Some(endpoint) = &settings.endpoint {
                let plain = endpoint.starts_with("http://");
                builder = builder
                    .with_endpoint(endpoint.clone())
                    .with_allow_http(plain);
            }
            let store = Arc::new(builder.build()?);
            both(store.clone(), store)
        }
    })
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
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown: String = flat.chars().take(SHOWN).collect();
    Refusal::new(kind, shown)
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
                // The answer to an earlier try was lost, and it was done.
                Err(Error::NotFound { .. }) if self.wait(self.store.head(place))?.is_ok() => Ok(()),
                Err(error) => Err(refusal(&error)),
            }
        })
    }
}
