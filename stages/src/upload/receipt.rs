//! The receipt: what is where, by name and digest. No times, so that an upload of the same
//! content leaves the same bytes.

use serde_json::{Value, json};

use crate::contract::Context;

use super::adapter::Adapter;
use super::error::UploadError;

/// Where a fine-tune is.
pub(super) struct Place<'a> {
    pub(super) account: &'a str,
    pub(super) api: &'a str,
    pub(super) id: &'a str,
    pub(super) name: &'a str,
    pub(super) model: &'a str,
}

/// The receipt of a service.
pub(super) fn cloudflare(place: &Place<'_>, adapter: &Adapter) -> Value {
    json!({
        "target": "cloudflare",
        "api": place.api,
        "account": place.account,
        "id": place.id,
        "name": place.name,
        "model": place.model,
        "adapter": about(adapter),
    })
}

/// What the adapter is.
pub(super) fn about(adapter: &Adapter) -> Value {
    json!({
        "rank": adapter.rank,
        "alpha": adapter.alpha,
        "model_type": adapter.model_type,
        "dtype": adapter.dtype,
        "bytes": adapter.bytes,
        "sha256": adapter.digests,
    })
}

/// Writes the receipt.
pub(super) fn write(ctx: &Context<'_>, receipt: &Value) -> Result<(), UploadError> {
    put(ctx, "receipt.json", receipt)
}

/// Writes a JSON product for people to read.
pub(super) fn put(ctx: &Context<'_>, name: &str, value: &Value) -> Result<(), UploadError> {
    let path = ctx.output.join(name);
    let text = serde_json::to_string_pretty(value).expect("JSON is text");
    std::fs::write(&path, text + "\n").map_err(|error| UploadError::file(&path, error))
}
