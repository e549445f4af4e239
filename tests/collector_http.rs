//! A trace collector of the test's own that speaks OTLP over HTTP, in the clear or over TLS.

use std::io::Read;
use std::sync::{Arc, Mutex};

use flate2::read::GzDecoder;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message as _;

use crate::certificates::Authority;
use crate::collector::{Got, flat};
use crate::posts::{self, Post, Reply};
use crate::wait;

pub(crate) struct HttpCollector {
    url: String,
    state: Arc<Mutex<State>>,
}

/// What the collector does with an export.
#[derive(Clone, Eq, PartialEq, Debug)]
pub(crate) enum Mode {
    Take,
    /// Takes all but one span of each export, and says so.
    TakeAllButOne,
    Fault(Reply),
}

struct State {
    mode: Mode,
    spans: Vec<Got>,
}

impl HttpCollector {
    pub(crate) fn start(mode: Mode) -> Self {
        Self::start_with(mode, None)
    }

    pub(crate) fn start_secure(authority: &Authority) -> Self {
        Self::start_with(Mode::Take, Some(authority))
    }

    fn start_with(mode: Mode, authority: Option<&Authority>) -> Self {
        let state = Arc::new(Mutex::new(State { mode, spans: Vec::new() }));
        let taken = Arc::clone(&state);
        let url = posts::listen(authority, move |post| taken.lock().unwrap().answer(&post));
        Self { url, state }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.state.lock().unwrap().mode = mode;
    }

    pub(crate) fn spans(&self) -> Vec<Got> {
        self.state.lock().unwrap().spans.clone()
    }

    /// Waits for the span of a request.
    pub(crate) fn span_of(&self, request_id: &str) -> Got {
        let find = || self.spans().into_iter().find(|got| got.get("request.id") == request_id);
        wait::until_some(&format!("the span of request {request_id}"), find)
    }
}

impl State {
    fn answer(&mut self, post: &Post) -> Reply {
        assert!(post.head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{}", post.head);
        let (is_whole, refused) = match &self.mode {
            Mode::Take => (true, 0),
            Mode::TakeAllButOne => (false, 1),
            Mode::Fault(reply) => return reply.clone(),
        };
        let mut spans = flat(request(post));
        spans.truncate(spans.len() - usize::from(!is_whole));
        self.spans.extend(spans);
        let partial_success = (!is_whole).then(|| ExportTracePartialSuccess {
            rejected_spans: refused,
            error_message: "as the test wants it".to_owned(),
        });
        let body = ExportTraceServiceResponse { partial_success }.encode_to_vec();
        let headers = "content-type: application/x-protobuf\r\n";
        Reply::Answer { status: "200 OK", headers, body }
    }
}

fn request(post: &Post) -> ExportTraceServiceRequest {
    let mut plain = Vec::new();
    let is_packed = post.head.to_ascii_lowercase().contains("content-encoding: gzip");
    if is_packed {
        GzDecoder::new(post.body.as_slice()).read_to_end(&mut plain).unwrap();
    }
    let bytes = if is_packed { plain.as_slice() } else { post.body.as_slice() };
    ExportTraceServiceRequest::decode(bytes).unwrap()
}
