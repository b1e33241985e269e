//! Why an upload failed.

use std::io;
use std::path::PathBuf;

use crate::contract::StageError;
use crate::http::HttpError;

use super::cloudflare::Refusal;
use super::params::WRITE_ACCOUNT;

/// A failed upload.
#[derive(Debug, thiserror::Error)]
pub(super) enum UploadError {
    #[error("{what} is not set")]
    NoCredentials {
        what: &'static str,
        mend: &'static str,
    },
    #[error("nothing says which account the adapter goes to")]
    NoAccount {
        /// Id and name of those that the token belongs to, as far as it may tell.
        accounts: Vec<(String, String)>,
    },
    #[error("`{base}` is not an https address, and the token would be sent in the clear")]
    Insecure { base: String },
    #[error("{doing}: {refusal}")]
    Service { doing: String, refusal: Refusal },
    #[error("{doing}: the answer lacks {what}")]
    BadAnswer { doing: String, what: &'static str },
    #[error("`{name}` is taken by an adapter for `{model}`")]
    NameTaken { name: String, model: String },
    #[error("the account has {count} adapters and may have {limit}")]
    Limit {
        count: usize,
        limit: usize,
        oldest: String,
    },
    #[error("`{model}` takes no LoRA adapters, says the service's catalog")]
    NoLora { model: String },
    #[error("`{name}` is uploaded and after {waited} s still not ready: {refusal}")]
    NotReady {
        name: String,
        waited: u64,
        refusal: Refusal,
    },
    #[error(
        "`{name}` changes nothing: with and without it `{model}` answers the same to all {count} prompts"
    )]
    NotApplied {
        name: String,
        model: String,
        count: usize,
    },
    #[error("`{}` is not an adapter folder, and would be replaced", path.display())]
    Occupied { path: PathBuf },
    #[error("`{}`: {cause}", path.display())]
    File { path: PathBuf, cause: io::Error },
    #[error("{doing}, and `{name}` ({id}) is left half-made: {inner}")]
    HalfMade {
        doing: String,
        name: String,
        id: String,
        inner: Box<UploadError>,
    },
    #[error(transparent)]
    Http(#[from] HttpError),
}

impl UploadError {
    pub(super) fn file(path: &std::path::Path, cause: io::Error) -> Self {
        Self::File {
            path: path.to_owned(),
            cause,
        }
    }
}

impl From<UploadError> for StageError {
    fn from(error: UploadError) -> Self {
        let message = error.to_string();
        let plain = |code: &str, mend: String| Self::new(code, message.clone(), mend);
        match error {
            UploadError::NoCredentials { mend, .. } => plain("upload::no-credentials", mend.to_owned()),
            UploadError::NoAccount { accounts } => {
                plain("upload::no-account", write_account(&accounts)).at("with")
            }
            UploadError::Insecure { .. } => {
                plain("upload::insecure-api", "use an https address".to_owned())
            }
            UploadError::Service { refusal, .. } => {
                let error = plain(refusal.stable_code(), refusal.mend());
                if refusal.may_pass() { error.retryable() } else { error }
            }
            UploadError::BadAnswer { .. } => plain(
                "upload::bad-answer",
                "check that the API address is Cloudflare's and ends in `/client/v4`".to_owned(),
            ),
            UploadError::NameTaken { .. } => {
                plain("upload::name-taken", "choose another `name`".to_owned())
            }
            UploadError::Limit { oldest, .. } => plain(
                "upload::adapter-limit",
                format!("adapters cannot be deleted over the API: ask Cloudflare's support to delete some, or to raise the limit and set `limit` (the oldest are {oldest})"),
            ),
            UploadError::NoLora { .. } => plain(
                "upload::no-lora",
                "choose a model of the catalog's LoRA list, such as `@cf/mistral/mistral-7b-instruct-v0.2-lora`".to_owned(),
            ),
            UploadError::NotReady { .. } => plain(
                "upload::not-ready",
                "run again later: nothing is uploaded twice. If it stays so, the service has refused the files without a word: check `r`, `model_type` and the base".to_owned(),
            )
            .retryable(),
            UploadError::NotApplied { .. } => plain(
                "upload::not-applied",
                "check that the adapter was trained (its lora_B weights are not all zero) and on this very base".to_owned(),
            ),
            UploadError::Occupied { .. } => plain(
                "upload::occupied",
                "name an empty folder, or one that holds an older adapter".to_owned(),
            ),
            UploadError::File { path, cause } => Self::io(&path, &cause),
            UploadError::HalfMade { inner, .. } => {
                let inner = Self::from(*inner);
                Self { message, mend: format!("{}; run again to finish it", inner.mend), ..inner }
            }
            UploadError::Http(inner) => inner.into(),
        }
    }
}

/// What to write, by name where the token's accounts are known.
fn write_account(accounts: &[(String, String)]) -> String {
    match accounts {
        [] => WRITE_ACCOUNT.to_owned(),
        [(id, name)] => {
            format!("write `account: {id}` under `with`: the only account of the token ({name})")
        }
        several => {
            let several = several.iter().map(|(id, name)| format!("`{id}` ({name})"));
            let several = several.collect::<Vec<_>>().join(", ");
            format!("write `account:` under `with`, one of the token's: {several}")
        }
    }
}
