//! Cloudflare's REST API, as far as fine-tunes need it.
//!
//! Source: the Workers AI API reference (create, list, assets, run, models/search) and a
//! recording of `wrangler ai finetune`. Promises: the token goes to the API's host alone;
//! what may not be done twice is not repeated blindly; every refusal keeps its code,
//! message and ray id.

mod codes;
mod envelope;

use std::path::Path;

use secrecy::SecretString;
use serde_json::{Value, json};

use crate::contract::Context;
use crate::http::{Environment, Form, Http, Patience, Payload, Request};

use super::UploadError;
use super::params::{Settings, Target, is_safe};

pub(super) use codes::{HALF_MADE, NOT_FOUND, Refusal};

const API: &str = "https://api.cloudflare.com/client/v4";

/// A fine-tune of the account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finetune {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) model: String,
    /// RFC 3339, or empty.
    pub(super) created: String,
}

/// An account at the service.
pub(super) struct Cloudflare<'a> {
    http: &'a Http<'a>,
    token: SecretString,
    /// Address of the API, without a slash at the end.
    pub(super) base: String,
    /// Account id.
    pub(super) account: String,
}

impl<'a> Cloudflare<'a> {
    /// Finds address and account in the parameters, the token in the environment. Without an account
    /// it asks the token for those it could be, to say what to write.
    pub(super) fn connect(
        http: &'a Http<'a>,
        environment: &Environment,
        settings: &Settings,
    ) -> Result<Self, UploadError> {
        let (given_account, given_base) = match &settings.target {
            Target::Cloudflare {
                account, api_base, ..
            } => (account.as_deref(), api_base.as_deref()),
            Target::Folder(_) => (None, None),
        };
        let base = given_base.unwrap_or(API).trim_end_matches('/').to_owned();
        if !is_safe(&base) {
            return Err(UploadError::Insecure { base });
        }
        let token = environment
            .secret(&["CLOUDFLARE_API_TOKEN", "CF_API_TOKEN"])
            .ok_or(UploadError::NoCredentials {
                what: "CLOUDFLARE_API_TOKEN",
                mend: "make a token with `Workers AI - Read` and `Workers AI - Edit` at dash.cloudflare.com/profile/api-tokens, set it in the environment, and list it under `secrets`",
            })?;
        let service = Self {
            http,
            token,
            base,
            account: given_account.unwrap_or_default().to_owned(),
        };
        match given_account {
            Some(_) => Ok(service),
            None => Err(service.which_account()),
        }
    }

    /// The run it works for.
    pub(super) fn context(&self) -> &'a Context<'a> {
        self.http.context()
    }

    /// How often and how long it waits.
    pub(super) fn patience(&self) -> &Patience {
        self.http.patience()
    }

    /// What to write where no account is given: the accounts of the token, if it may list them.
    fn which_account(&self) -> UploadError {
        let url = format!("{}/memberships?page=1", self.base);
        let listed = self.call("asking for the token's accounts", Request::get(url));
        // A token for Workers AI alone may not list memberships.
        let listed = listed.unwrap_or_default();
        let entries = listed.as_array().map_or(&[][..], Vec::as_slice);
        let account = |entry: &Value| {
            let (id, name) = (&entry["account"]["id"], &entry["account"]["name"]);
            let name = name.as_str().unwrap_or("?").to_owned();
            Some((id.as_str()?.to_owned(), name))
        };
        UploadError::NoAccount {
            accounts: entries.iter().filter_map(account).collect(),
        }
    }

    /// All fine-tunes of the account, oldest first.
    pub(super) fn list(&self) -> Result<Vec<Finetune>, UploadError> {
        let url = self.url("ai/finetunes");
        let result = self.call("listing the account's adapters", Request::get(url))?;
        let mut found = Vec::new();
        gather(&result, &mut found);
        found
            .sort_by(|left, right| (&left.created, &left.name).cmp(&(&right.created, &right.name)));
        Ok(found)
    }

    /// Makes an empty fine-tune. Not repeated: a lost answer may have made it.
    pub(super) fn create(
        &self,
        name: &str,
        model: &str,
        description: &str,
    ) -> Result<Finetune, UploadError> {
        let doing = format!("creating `{name}`");
        let body = json!({"model": model, "name": name, "description": description});
        let mut request = Request::new(self.url("ai/finetunes"), Payload::Json(&body));
        request.repeatable = false;
        let result = self.call(&doing, request)?;
        finetune(&result).ok_or(UploadError::BadAnswer {
            doing,
            what: "`result.id`",
        })
    }

    /// Sends one file of a fine-tune.
    pub(super) fn send(&self, id: &str, file_name: &str, path: &Path) -> Result<(), UploadError> {
        let form = Form {
            file_name: file_name.to_owned(),
            path: path.to_owned(),
        };
        let url = self.url(&format!("ai/finetunes/{id}/finetune-assets"));
        let doing = format!("uploading `{file_name}`");
        match self.call(&doing, Request::new(url, Payload::Form(&form))) {
            // A repeated request whose first answer was lost finds its own file there.
            Err(UploadError::Service { refusal, .. }) if refusal.says_present() => Ok(()),
            result => result.map(|_| ()),
        }
    }

    /// Runs a model; `input` as the model's schema says. Gives the answer's text.
    pub(super) fn run(&self, model: &str, input: &Value) -> Result<String, UploadError> {
        let url = self.url(&format!("ai/run/{model}"));
        let doing = match input["lora"].as_str() {
            Some(lora) => format!("running `{model}` with `{lora}`"),
            None => format!("running `{model}`"),
        };
        let result = self.call(&doing, Request::new(url, Payload::Json(input)))?;
        match &result["response"] {
            Value::String(text) => Ok(text.clone()),
            Value::Null => Err(UploadError::BadAnswer {
                doing,
                what: "`result.response`",
            }),
            // Some models answer parsed JSON when the text is nothing else.
            other => Ok(other.to_string()),
        }
    }

    /// Whether the catalog says that a model takes adapters; `None` when it does not say.
    pub(super) fn takes_lora(&self, model: &str) -> Result<Option<bool>, UploadError> {
        let word = model.rsplit('/').next().unwrap_or(model);
        let url = self.url(&format!("ai/models/search?per_page=100&search={word}"));
        let result = self.call("reading the model catalog", Request::get(url))?;
        let entries = result.as_array().map_or(&[][..], Vec::as_slice);
        let Some(entry) = entries.iter().find(|entry| entry["name"] == model) else {
            return Ok(None);
        };
        let Some(properties) = entry["properties"].as_array() else {
            return Ok(None);
        };
        let lora = properties.iter().find(|one| one["property_id"] == "lora");
        Ok(Some(lora.is_some_and(|one| {
            one["value"] == "true" || one["value"] == true
        })))
    }

    fn url(&self, path: &str) -> String {
        format!("{}/accounts/{}/{path}", self.base, self.account)
    }

    fn call<'r>(&'r self, doing: &str, mut request: Request<'r>) -> Result<Value, UploadError> {
        request.bearer = Some(&self.token);
        request.hopeless = envelope::is_hopeless;
        let mut reply = self.http.send(&request)?;
        let text = reply.text_of(1 << 24)?;
        envelope::read(&reply, &self.http.redact(&text)).map_err(|refusal| UploadError::Service {
            doing: doing.to_owned(),
            refusal,
        })
    }
}

/// The list has three shapes in the wild: one object (the SDK's type), an array in an
/// array (the documentation), a flat array (what wrangler reads).
fn gather(value: &Value, found: &mut Vec<Finetune>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| gather(item, found)),
        Value::Object(_) => found.extend(finetune(value)),
        _ => {}
    }
}

fn finetune(value: &Value) -> Option<Finetune> {
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    Some(Finetune {
        id: value["id"].as_str()?.to_owned(),
        name: text("name"),
        model: text("model"),
        created: text("created_at"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_shapes_of_a_list() {
        let one = json!({"id": "i", "name": "n", "model": "m", "created_at": "c"});
        for shape in [json!([one]), json!([[one]]), one.clone()] {
            let mut found = Vec::new();
            gather(&shape, &mut found);
            assert_eq!(found.len(), 1, "{shape}");
            assert_eq!((found[0].id.as_str(), found[0].name.as_str()), ("i", "n"));
        }
        let mut none = Vec::new();
        gather(&Value::Null, &mut none);
        assert!(none.is_empty());
    }
}
