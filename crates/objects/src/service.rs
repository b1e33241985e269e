//! How S3, Google Cloud Storage and Azure are opened: which variables are read, and what they come to.
//!
//! Promises: the variables named here and in docs/remote.md and, of Google and Azure, no others; an
//! empty one is one that is not set, for CI sets a secret that it withholds to nothing; without
//! credentials a bucket is asked anonymously, and no metadata server is waited for.

use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::multipart::MultipartStore;
use object_store::{ObjectStore, RetryConfig};

use crate::address::Service;
use crate::connector::Ureq;
use crate::{Env, Settings};

/// Variables that say how to sign requests to S3; the rest of `AWS_…` is read by `object_store`.
const S3_CREDENTIALS: [&str; 4] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
];

/// What is read for Google; all but the last are credentials.
const GOOGLE: [(&str, GoogleConfigKey); 6] = [
    ("GOOGLE_SERVICE_ACCOUNT", GoogleConfigKey::ServiceAccount),
    (
        "GOOGLE_SERVICE_ACCOUNT_PATH",
        GoogleConfigKey::ServiceAccount,
    ),
    (
        "GOOGLE_SERVICE_ACCOUNT_KEY",
        GoogleConfigKey::ServiceAccountKey,
    ),
    (
        "GOOGLE_APPLICATION_CREDENTIALS",
        GoogleConfigKey::ApplicationCredentials,
    ),
    ("GOOGLE_BEARER_TOKEN", GoogleConfigKey::BearerToken),
    ("GOOGLE_BASE_URL", GoogleConfigKey::BaseUrl),
];

/// What is read for Azure: the names of `object_store`, of Azure's SDKs and of its command.
const AZURE: [(&str, AzureConfigKey); 18] = [
    ("AZURE_STORAGE_ACCOUNT", AzureConfigKey::AccountName),
    ("AZURE_STORAGE_ACCOUNT_NAME", AzureConfigKey::AccountName),
    ("AZURE_STORAGE_KEY", AzureConfigKey::AccessKey),
    ("AZURE_STORAGE_ACCESS_KEY", AzureConfigKey::AccessKey),
    ("AZURE_STORAGE_ACCOUNT_KEY", AzureConfigKey::AccessKey),
    ("AZURE_STORAGE_SAS_KEY", AzureConfigKey::SasKey),
    ("AZURE_STORAGE_SAS_TOKEN", AzureConfigKey::SasKey),
    ("AZURE_STORAGE_TOKEN", AzureConfigKey::Token),
    ("AZURE_CLIENT_ID", AzureConfigKey::ClientId),
    ("AZURE_STORAGE_CLIENT_ID", AzureConfigKey::ClientId),
    ("AZURE_CLIENT_SECRET", AzureConfigKey::ClientSecret),
    ("AZURE_STORAGE_CLIENT_SECRET", AzureConfigKey::ClientSecret),
    ("AZURE_TENANT_ID", AzureConfigKey::AuthorityId),
    ("AZURE_STORAGE_TENANT_ID", AzureConfigKey::AuthorityId),
    ("AZURE_AUTHORITY_HOST", AzureConfigKey::AuthorityHost),
    (
        "AZURE_FEDERATED_TOKEN_FILE",
        AzureConfigKey::FederatedTokenFile,
    ),
    ("AZURE_STORAGE_ENDPOINT", AzureConfigKey::Endpoint),
    ("AZURE_STORAGE_USE_EMULATOR", AzureConfigKey::UseEmulator),
];

/// One store, as what it is asked through and as what takes large objects in parts.
pub(crate) type Both = (Arc<dyn ObjectStore>, Arc<dyn MultipartStore>);

/// Opens a bucket; no request is sent. The error is a sentence.
pub(crate) fn open(
    service: Service,
    bucket: &str,
    settings: &Settings,
    http: Ureq,
    env: &Env<'_>,
) -> Result<Both, String> {
    match service {
        Service::S3 => s3(bucket, settings, http, env),
        Service::Google => google(bucket, settings, http, env),
        Service::Azure => azure(bucket, settings, http, env),
    }
}

/// One call is one request: who asks repeats.
fn once() -> RetryConfig {
    RetryConfig {
        max_retries: 0,
        ..RetryConfig::default()
    }
}

fn both<S: ObjectStore + MultipartStore>(
    built: Result<S, object_store::Error>,
) -> Result<Both, String> {
    let store = Arc::new(built.map_err(|error| error.to_string())?);
    Ok((store.clone(), store))
}

/// A variable's value, if it has one.
fn value(env: &Env<'_>, name: &str) -> Option<String> {
    env(name).filter(|value| !value.is_empty())
}

/// What the environment says; of two names for one thing the later one counts.
fn read<K: Copy>(names: &[(&str, K)], env: &Env<'_>) -> Vec<(K, String)> {
    let found = names
        .iter()
        .filter_map(|(name, key)| Some((*key, value(env, name)?)));
    found.collect()
}

/// `object_store`'s idea of it.
fn yes(value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    ["1", "true", "on", "yes", "y"].contains(&value.as_str())
}

fn s3(bucket: &str, settings: &Settings, http: Ureq, env: &Env<'_>) -> Result<Both, String> {
    let signed = S3_CREDENTIALS.iter().any(|name| value(env, name).is_some());
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_http_connector(http)
        .with_retry(once())
        .with_skip_signature(!signed);
    if let Some(endpoint) = &settings.endpoint {
        let plain = endpoint.starts_with("http://");
        builder = builder.with_endpoint(endpoint).with_allow_http(plain);
        // `AWS_ENDPOINT_URL_S3` would win over the one in the pipeline.
        builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint);
    }
    if let Some(region) = &settings.region {
        builder = builder.with_region(region);
    }
    both(builder.build())
}

fn google(bucket: &str, settings: &Settings, http: Ureq, env: &Env<'_>) -> Result<Both, String> {
    let found = read(&GOOGLE, env);
    let signed = found
        .iter()
        .any(|(key, _)| *key != GoogleConfigKey::BaseUrl);
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(bucket)
        .with_http_connector(http)
        .with_retry(once());
    for (key, value) in found {
        builder = builder.with_config(key, value);
    }
    if !signed {
        // Given a token, it looks for no other credentials in the home folder.
        builder = builder.with_bearer_token("").with_skip_signature(true);
    }
    if let Some(endpoint) = &settings.endpoint {
        builder = builder.with_base_url(endpoint.trim_end_matches('/'));
    }
    both(builder.build())
}

fn azure(bucket: &str, settings: &Settings, http: Ureq, env: &Env<'_>) -> Result<Both, String> {
    use AzureConfigKey as Key;
    let mut found = read(&AZURE, env);
    // The emulator's own address would win over the one in the pipeline.
    let emulated = |value: &str| settings.endpoint.is_none() && yes(value);
    found.retain(|(key, value)| *key != Key::UseEmulator || emulated(value));
    let has = |keys: &[Key]| found.iter().any(|(key, _)| keys.contains(key));
    // It has an account and a key that everybody knows.
    let emulator = has(&[Key::UseEmulator]);
    if !emulator && !has(&[Key::AccountName]) {
        return Err(
            "nothing says whose container it is; set `AZURE_STORAGE_ACCOUNT_NAME`".to_owned(),
        );
    }
    let own = has(&[Key::AccessKey, Key::SasKey, Key::Token]);
    let principal = has(&[Key::ClientSecret, Key::FederatedTokenFile]);
    // With less than all three the virtual machine's own identity would be asked for, and waited for.
    if !own && principal && !(has(&[Key::ClientId]) && has(&[Key::AuthorityId])) {
        let cause = "a client's secret or token needs its client and tenant; \
                     set `AZURE_CLIENT_ID` and `AZURE_TENANT_ID`";
        return Err(cause.to_owned());
    }
    let mut builder = MicrosoftAzureBuilder::new()
        .with_container_name(bucket)
        .with_http_connector(http)
        .with_retry(once())
        .with_skip_signature(!(emulator || own || principal));
    for (key, value) in found {
        builder = builder.with_config(key, value);
    }
    if let Some(endpoint) = &settings.endpoint {
        let plain = endpoint.starts_with("http://");
        builder = builder
            .with_endpoint(endpoint.clone())
            .with_allow_http(plain);
    }
    both(builder.build()).map_err(|cause| {
        // Its own words show a character of the key.
        if cause.contains("Invalid Access Key") {
            "the account's key is not one; copy `AZURE_STORAGE_ACCOUNT_KEY` again".to_owned()
        } else {
            cause
        }
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::agent::agent;

    fn opened(service: Service, variables: &[(&str, &str)]) -> Result<(), String> {
        let settings = Settings {
            endpoint: None,
            region: None,
            timeout: Duration::from_secs(1),
        };
        let env = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let http = Ureq(agent(&settings, 0, &env).expect("a client"));
        open(service, "bucket", &settings, http, &env).map(drop)
    }

    #[test]
    fn what_azure_lacks_is_said_by_the_name_of_its_variable() {
        let account = ("AZURE_STORAGE_ACCOUNT_NAME", "a");
        let said = |variables: &[(&str, &str)]| opened(Service::Azure, variables).unwrap_err();
        assert!(said(&[("AZURE_STORAGE_KEY", "a2V5")]).contains("`AZURE_STORAGE_ACCOUNT_NAME`"));
        let secret = ("AZURE_CLIENT_SECRET", "s");
        assert!(said(&[account, secret]).contains("`AZURE_TENANT_ID`"));
        let whole = [
            account,
            secret,
            ("AZURE_CLIENT_ID", "c"),
            ("AZURE_TENANT_ID", "t"),
        ];
        for enough in [
            &[account][..],
            &whole,
            &[account, secret, ("AZURE_STORAGE_KEY", "a2V5")],
            &[("AZURE_STORAGE_USE_EMULATOR", "true")],
        ] {
            assert_eq!(opened(Service::Azure, enough), Ok(()), "{enough:?}");
        }
        said(&[("AZURE_STORAGE_USE_EMULATOR", "false")]);
    }

    #[test]
    fn an_empty_variable_is_one_that_is_not_set() {
        for name in ["GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT"] {
            assert_eq!(opened(Service::Google, &[(name, "")]), Ok(()), "{name}");
            assert!(
                opened(Service::Google, &[(name, "/nowhere")]).is_err(),
                "{name}"
            );
        }
        let account = ("AZURE_STORAGE_ACCOUNT", "a");
        let empty = [account, ("AZURE_STORAGE_SAS_TOKEN", "")];
        assert_eq!(opened(Service::Azure, &empty), Ok(()));
    }
}
