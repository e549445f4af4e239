//! JSON calls to the application, one by one or many at once.

use hyper::{Method, Request};
use serde_json::Value;

use crate::client::{self, Answer};
use crate::output::thread;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// A request with a JSON body.
pub(crate) fn call(method: &Method, path: &str, body: &Value) -> Request<String> {
    let request = Request::builder().method(method).uri(path);
    request.header("content-type", "application/json").body(body.to_string()).unwrap()
}

pub(crate) fn post(address: &str, path: &str, body: &Value) -> Answer {
    try_post(address, path, body, None).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// With an `Idempotency-Key`, perhaps.
pub(crate) fn try_post(
    address: &str,
    path: &str,
    body: &Value,
    key: Option<&str>,
) -> Result<Answer, Error> {
    let mut request = call(&Method::POST, path, body);
    if let Some(key) = key {
        request.headers_mut().insert("idempotency-key", key.parse()?);
    }
    client::send(address, request)
}

/// Whether an answer asks to come back: a busy machine may keep the database or the inventory waiting for longer than a
/// request waits for them.
pub(crate) fn is_wait(status: u16) -> bool {
    [502, 503].contains(&status)
}

/// Asks until the answer is another one.
pub(crate) fn patiently(ask: impl Fn() -> Answer) -> Answer {
    loop {
        let answer = ask();
        if !is_wait(answer.status) {
            return answer;
        }
    }
}

/// Does the same from so many threads at once.
pub(crate) fn at_once<T: Send + 'static>(
    count: usize,
    work: impl Fn(usize) -> T + Clone + Send + 'static,
) -> Vec<T> {
    let threads: Vec<_> = (0..count)
        .map(|number| {
            let work = work.clone();
            thread(move || work(number))
        })
        .collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}
