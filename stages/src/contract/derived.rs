//! Something made of one input that several stages share: the base's four-bit layers, which every training and
//! every scoring reads.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Stage;

/// What a stage reads instead of making it anew for itself.
#[derive(Clone)]
pub struct Derived {
    /// Under which [`Context::derived`](super::Context::derived) gives it.
    pub name: &'static str,
    /// The port of the input that it is made of. It has one value there.
    pub of: &'static str,
    /// Who makes it: its first product, from an input of the same name as the port.
    pub maker: &'static dyn Stage,
    /// The maker's parameters.
    pub params: BTreeMap<String, Value>,
}
