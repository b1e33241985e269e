//! One way to speak HTTP for every stage that does: time limits, retries with back-off
//! that honour `Retry-After`, redirects that never carry a token to another host, and
//! messages without secrets.
//!
//! Promises: nothing is sent when the context forbids the network; a token is sent only
//! to the host it was meant for and is never part of a message; every wait ends at once
//! when the run is cancelled. Must not know: what is asked or answered.

mod agent;
mod environment;
mod error;
mod form;
mod pause;
mod redirect;
mod reply;
#[cfg(test)]
pub(crate) mod testing;

use secrecy::{ExposeSecret, SecretString};
use ureq::SendBody;
use ureq::http::{self, HeaderMap, HeaderValue, header};

use crate::contract::Context;

pub(crate) use environment::Environment;
pub(crate) use error::HttpError;
pub(crate) use form::Form;
pub(crate) use pause::Patience;
pub(crate) use redirect::shown;
pub(crate) use reply::Reply;

/// Redirects followed before it counts as a loop.
const MOST_HOPS: usize = 10;

/// What is sent.
pub(crate) enum Payload<'r> {
    /// A GET without a body.
    Get,
    /// A POST of JSON text.
    Json(&'r serde_json::Value),
    /// A POST of a multipart form.
    Form(&'r Form),
}

/// One question to a server.
pub(crate) struct Request<'r> {
    /// Absolute address.
    pub(crate) url: String,
    /// The body, and with it the method.
    pub(crate) payload: Payload<'r>,
    /// Extra headers.
    pub(crate) headers: Vec<(&'static str, String)>,
    /// Sent as `Authorization: Bearer`, to the first host only.
    pub(crate) bearer: Option<&'r SecretString>,
    /// Whether asking twice does no harm. If not, only an answer that says it did nothing
    /// (429) is asked again.
    pub(crate) repeatable: bool,
    /// Tells from the body of a failed answer that asking again cannot help.
    pub(crate) hopeless: fn(&str) -> bool,
}

impl<'r> Request<'r> {
    /// A GET.
    pub(crate) fn get(url: impl Into<String>) -> Self {
        Self::new(url, Payload::Get)
    }

    /// A request that may be repeated.
    pub(crate) fn new(url: impl Into<String>, payload: Payload<'r>) -> Self {
        Self {
            url: url.into(),
            payload,
            headers: Vec::new(),
            bearer: None,
            repeatable: true,
            hopeless: |_| false,
        }
    }

    /// Adds a bearer token.
    pub(crate) fn bearer(mut self, token: Option<&'r SecretString>) -> Self {
        self.bearer = token;
        self
    }

    /// Adds a header.
    pub(crate) fn header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }
}

/// The speaker.
pub(crate) struct Http<'a> {
    ctx: &'a Context<'a>,
    agent: ureq::Agent,
    patience: Patience,
    secrets: Vec<SecretString>,
}

impl<'a> Http<'a> {
    /// A speaker for one run. `environment` may name the user's own certificates.
    pub(crate) fn new(
        ctx: &'a Context<'a>,
        environment: &Environment,
        patience: Patience,
    ) -> Result<Self, HttpError> {
        Ok(Self {
            ctx,
            agent: agent::agent(environment)?,
            patience,
            secrets: environment.secrets(),
        })
    }

    /// The run it speaks for.
    pub(crate) fn context(&self) -> &'a Context<'a> {
        self.ctx
    }

    /// How often and how long it waits.
    pub(crate) fn patience(&self) -> &Patience {
        &self.patience
    }

    /// Sends, follows redirects and asks again where that may help. An answer of any
    /// status is a reply: what a 404 means is the caller's to say.
    pub(crate) fn send(&self, request: &Request<'_>) -> Result<Reply, HttpError> {
        if !self.ctx.network {
            return Err(HttpError::Offline {
                url: shown(&request.url),
            });
        }
        let mut attempt = 1;
        loop {
            self.patience.go_on(self.ctx)?;
            let last = attempt >= self.patience.attempts;
            let (wait, why) = match self.follow(request) {
                Ok(reply) if last || !reply.busy(request.repeatable) => return Ok(reply),
                Ok(mut reply) => {
                    let Some(wait) = self.patience.after(&reply, attempt) else {
                        return Ok(reply);
                    };
                    if (request.hopeless)(&reply.text()) {
                        return Ok(reply);
                    }
                    (wait, format!("answered {}", reply.status))
                }
                Err(error) if last || !error.may_pass(request.repeatable) => return Err(error),
                Err(error) => (self.patience.step(attempt), error.to_string()),
            };
            self.ctx.log(format!(
                "{}: {why}; trying again in {:.1} s ({attempt} of {})",
                shown(&request.url),
                wait.as_secs_f64(),
                self.patience.attempts,
            ));
            self.patience.wait(self.ctx, wait)?;
            attempt += 1;
        }
    }

    /// `text` with every known secret struck out.
    pub(crate) fn redact(&self, text: &str) -> String {
        self.secrets
            .iter()
            .map(ExposeSecret::expose_secret)
            .filter(|secret| secret.len() >= 4)
            .fold(text.to_owned(), |text, secret| text.replace(secret, "***"))
    }

    fn follow(&self, request: &Request<'_>) -> Result<Reply, HttpError> {
        let mut url = request.url.clone();
        let mut first: Option<HeaderMap> = None;
        for _ in 0..=MOST_HOPS {
            let trusted = redirect::same_host(&request.url, &url);
            let answer = self.once(request, &url, trusted)?;
            let location = redirect::target(&answer, &url);
            match (location, &request.payload) {
                (Some(next), Payload::Get) => {
                    redirect::refuse_downgrade(&url, &next)?;
                    first.get_or_insert_with(|| answer.headers().clone());
                    url = next;
                }
                _ => return Ok(Reply::new(answer, first, url)),
            }
        }
        Err(HttpError::RedirectLoop {
            url: shown(&request.url),
            hops: MOST_HOPS,
        })
    }

    fn once(
        &self,
        request: &Request<'_>,
        url: &str,
        trusted: bool,
    ) -> Result<http::Response<ureq::Body>, HttpError> {
        let fail = |error| HttpError::from_ureq(error, url);
        let mut builder = http::Request::builder().uri(url);
        if trusted && let Some(token) = request.bearer {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()))
                .map_err(|_| HttpError::BadToken { url: shown(url) })?;
            value.set_sensitive(true);
            builder = builder.header(header::AUTHORIZATION, value);
        }
        for (name, value) in &request.headers {
            builder = builder.header(*name, value);
        }
        match request.payload {
            Payload::Get => {
                let asked = builder.body(()).map_err(|error| fail(error.into()))?;
                let asked = self.agent.configure_request(asked);
                let asked = asked.timeout_per_read(Some(agent::SILENCE)).build();
                self.agent.run(asked).map_err(fail)
            }
            Payload::Json(value) => {
                let asked = builder
                    .method("POST")
                    .header(header::CONTENT_TYPE, "application/json")
                    .body(value.to_string())
                    .map_err(|error| fail(error.into()))?;
                self.agent.run(asked).map_err(fail)
            }
            Payload::Form(form) => {
                let mut reader = form.open(self.ctx)?;
                let asked = builder
                    .method("POST")
                    .header(header::CONTENT_TYPE, Form::content_type())
                    .header(header::CONTENT_LENGTH, reader.len())
                    .body(SendBody::from_reader(&mut reader))
                    .map_err(|error| fail(error.into()))?;
                self.agent.run(asked).map_err(fail)
            }
        }
    }
}
