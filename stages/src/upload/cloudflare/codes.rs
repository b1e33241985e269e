//! What the service's error codes mean, and what to do about them.
//!
//! Source: Workers AI, "Errors"; codes 10000, 9109, 6003, 7003 are the API's own. 3037 is
//! in no table: `ai/run` answers it for an adapter that is not ready, or never will be.

use std::fmt;

/// A required file of the fine-tune is missing.
pub(crate) const HALF_MADE: i64 = 3039;
/// The fine-tune is not found (yet).
pub(crate) const NOT_FOUND: i64 = 3037;

/// A refusal of the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The service's code, 0 when it gave none.
    pub(crate) code: i64,
    /// HTTP status.
    pub(crate) status: u16,
    /// The service's words, secrets struck out.
    pub(crate) message: String,
    /// Cloudflare's id of the request, for their support.
    pub(crate) ray: Option<String>,
}

/// One row: the service's codes, ours, the mend, and whether waiting may help.
struct Row(&'static [i64], &'static str, &'static str, bool);

const ROWS: &[Row] = &[
    Row(
        &[10000, 9109, 9106, 6003, 6111, 1001],
        "upload::auth",
        "check CLOUDFLARE_API_TOKEN: it needs `Workers AI - Read` and `Workers AI - Edit` for this account",
        false,
    ),
    Row(
        &[7003, 7000],
        "upload::bad-account",
        "check the account id",
        false,
    ),
    Row(
        &[3006],
        "upload::too-large",
        "export 16-bit weights, or train with a lower rank",
        false,
    ),
    Row(
        &[3003, 5004],
        "upload::bad-request",
        "check `model` and the adapter's files",
        false,
    ),
    Row(&[3007, 3008], "upload::timeout", "run again", true),
    Row(
        &[3023, 3041, 5018],
        "upload::forbidden",
        "the account may not use this model: look at its Workers AI page in the dashboard",
        false,
    ),
    Row(
        &[3036],
        "upload::quota",
        "the day's free neurons are used up: run again after 00:00 UTC, or take a paid plan",
        false,
    ),
    Row(
        &[NOT_FOUND],
        "upload::not-ready",
        "a new adapter takes a while: run again later",
        true,
    ),
    Row(
        &[HALF_MADE],
        "upload::half-made",
        "run again to send the missing files",
        true,
    ),
    Row(
        &[3040],
        "upload::busy",
        "the service has no capacity now: run again later",
        true,
    ),
    Row(
        &[3042, 5007],
        "upload::no-such-model",
        "check `model` against the list of Workers AI models",
        false,
    ),
    Row(
        &[5005],
        "upload::no-lora",
        "choose a model that takes LoRA adapters, such as `@cf/mistral/mistral-7b-instruct-v0.2-lora`",
        false,
    ),
    Row(
        &[5016],
        "upload::licence",
        "accept the model's licence on its page in the dashboard",
        false,
    ),
    Row(
        &[5035],
        "upload::needs-paid",
        "this model needs the Workers Paid plan",
        false,
    ),
];

impl Refusal {
    /// Our code.
    pub(crate) fn stable_code(&self) -> &'static str {
        match self.row() {
            Some(row) => row.1,
            None if self.message.contains("MODEL_NOT_SUPPORTED") => "upload::no-lora",
            None => match self.status {
                401 | 403 => "upload::auth",
                404 => "upload::not-found",
                408 => "upload::timeout",
                413 => "upload::too-large",
                429 => "upload::rate-limited",
                500.. => "upload::server",
                _ => "upload::refused",
            },
        }
    }

    /// What to do.
    pub(crate) fn mend(&self) -> String {
        let mend = self
            .row()
            .map_or_else(|| self.mend_by_status(), |row| row.2);
        match &self.ray {
            Some(ray) if self.row().is_none() => format!("{mend} (Cloudflare's ray id is {ray})"),
            _ => mend.to_owned(),
        }
    }

    fn mend_by_status(&self) -> &'static str {
        if self.message.contains("MODEL_NOT_SUPPORTED") {
            return "choose a model that takes LoRA adapters, such as `@cf/mistral/mistral-7b-instruct-v0.2-lora`";
        }
        match self.status {
            401 | 403 => "check CLOUDFLARE_API_TOKEN and the account id",
            404 => "check the account id and the API address, which ends in `/client/v4`",
            413 => "export 16-bit weights, or train with a lower rank",
            408 | 429 => "wait a while and run again",
            500.. => "the fault is at the service: run again later",
            _ => "read the service's words above",
        }
    }

    /// Whether waiting may help.
    pub(crate) fn may_pass(&self) -> bool {
        match self.row() {
            Some(row) => row.3,
            None => self.status == 408 || self.status == 429 || self.status >= 500,
        }
    }

    /// Whether the service already has what was sent.
    pub(crate) fn says_present(&self) -> bool {
        let words = self.message.to_lowercase();
        (400..500).contains(&self.status) && words.contains("already") && words.contains("exist")
    }

    /// Whether the code is one we know, and waiting does not help.
    pub(super) fn is_final(&self) -> bool {
        self.row().is_some_and(|row| !row.3) || [NOT_FOUND, HALF_MADE].contains(&self.code)
    }

    fn row(&self) -> Option<&'static Row> {
        ROWS.iter().find(|row| row.0.contains(&self.code))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the service answers {}", self.status)?;
        if self.code != 0 {
            write!(f, " (code {})", self.code)?;
        }
        write!(f, ": {}", self.message)
    }
}
