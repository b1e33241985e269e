//! `object_store`'s HTTP by way of `ureq`: one client for the whole program instead of `reqwest`
//! with its forty crates and a second TLS.
//!
//! Promises: a body is handed on as it comes; what broke is told in `object_store`'s kinds. The
//! blocking call sits on a blocking thread of this crate's own runtime.

use std::io::Read;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use bytes::Bytes;
use cache::RefusalKind;
use http_body::{Body, Frame};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody,
    HttpResponse, HttpResponseBody, HttpService,
};
use tokio::sync::{mpsc, oneshot};
use ureq::Agent;
use ureq::http::response::Parts;
use ureq::http::{Method, Request};

use crate::agent::{io_kind, kind};

/// Bytes of a body that are read at a time, and how many such pieces may wait.
const PIECE: usize = 256 << 10;
const WAITING: usize = 4;

/// The client.
#[derive(Clone, Debug)]
pub(crate) struct Ureq(pub(crate) Agent);

impl HttpConnector for Ureq {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

type Answer = Result<(Parts, mpsc::Receiver<Result<Bytes, HttpError>>), HttpError>;

#[async_trait]
impl HttpService for Ureq {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let agent = self.0.clone();
        let (answer, answered) = oneshot::channel();
        tokio::task::spawn_blocking(move || exchange(&agent, request, answer));
        let lost = |_| {
            error(
                RefusalKind::Passing,
                std::io::Error::other("the request was lost"),
            )
        };
        let (parts, pieces) = answered.await.map_err(lost)??;
        let body = HttpResponseBody::new(Incoming(pieces));
        Ok(HttpResponse::from_parts(parts, body))
    }
}

/// Sends a request, tells how the answer begins, then hands on its body.
fn exchange(agent: &Agent, request: HttpRequest, answer: oneshot::Sender<Answer>) {
    let (parts, body) = request.into_parts();
    let method = parts.method.clone();
    let sent = match content(body) {
        Ok(content) if content.is_empty() && method != Method::PUT && method != Method::POST => {
            agent.run(Request::from_parts(parts, ()))
        }
        Ok(content) => agent.run(Request::from_parts(parts, content.as_slice())),
        Err(error) => return drop(answer.send(Err(error))),
    };
    let response = match sent {
        Ok(response) => response,
        Err(told) => return drop(answer.send(Err(error(kind(&told), told)))),
    };
    let (parts, body) = response.into_parts();
    let (to, pieces) = mpsc::channel(WAITING);
    if answer.send(Ok((parts, pieces))).is_err() || method == Method::HEAD {
        return;
    }
    let mut body = body.into_reader();
    let mut buffer = vec![0; PIECE];
    loop {
        let piece = match body.read(&mut buffer) {
            Ok(0) => return,
            Ok(read) => Ok(Bytes::copy_from_slice(&buffer[..read])),
            Err(told) if told.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(told) => Err(error(io_kind(&told), told)),
        };
        let failed = piece.is_err();
        // Nobody listens any more: the connection is dropped with the rest of the body.
        if to.blocking_send(piece).is_err() || failed {
            return;
        }
    }
}

/// The bytes of a request's body; it is all there, so nothing waits.
fn content(mut body: HttpRequestBody) -> Result<Vec<u8>, HttpError> {
    let mut content = Vec::with_capacity(body.content_length());
    let mut context = Context::from_waker(Waker::noop());
    while let Poll::Ready(Some(frame)) = Pin::new(&mut body).poll_frame(&mut context) {
        if let Ok(data) = frame?.into_data() {
            content.extend_from_slice(&data);
        }
    }
    Ok(content)
}

fn error(kind: RefusalKind, told: impl std::error::Error + Send + Sync + 'static) -> HttpError {
    let kind = match kind {
        RefusalKind::Unreachable => HttpErrorKind::Connect,
        RefusalKind::Slow => HttpErrorKind::Timeout,
        RefusalKind::Senseless => HttpErrorKind::Decode,
        _ => HttpErrorKind::Interrupted,
    };
    HttpError::new(kind, told)
}

/// A body on its way.
struct Incoming(mpsc::Receiver<Result<Bytes, HttpError>>);

impl Body for Incoming {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let piece = self.0.poll_recv(context);
        piece.map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}
