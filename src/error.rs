//! What an endpoint refuses, in the detail form: `{"detail": …}`.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Every refusal of the application.
#[derive(Clone, Eq, PartialEq, Debug)]
pub(crate) enum Error {
    /// No such path.
    NotFound,
    /// No such method of a path; axum adds `Allow`.
    MethodNotAllowed,
    /// A request that asks for something impossible.
    BadRequest(&'static str),
    /// No such object.
    Missing(&'static str),
    /// A valid request that may not be done.
    Unprocessable(&'static str),
    /// Input that does not fit, with the place: `body`, `query` or `path`, and the field.
    Invalid { place: &'static str, field: String, message: String },
    /// A body of another type than JSON.
    MediaType,
    /// A body that is too large.
    TooLarge,
    /// Simulated.
    Server(&'static str),
    /// Too much of it at once.
    Busy,
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (status, detail) = match self {
            Self::NotFound => (StatusCode::NOT_FOUND, json!("Not Found")),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, json!("Method Not Allowed")),
            Self::BadRequest(text) => (StatusCode::BAD_REQUEST, json!(text)),
            Self::Missing(text) => (StatusCode::NOT_FOUND, json!(text)),
            Self::Unprocessable(text) => (StatusCode::UNPROCESSABLE_ENTITY, json!(text)),
            Self::Invalid { place, field, message } => {
                (StatusCode::UNPROCESSABLE_ENTITY, invalid(place, &field, &message))
            }
            Self::MediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, json!("send application/json")),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, json!("the body is too large")),
            Self::Server(text) => (StatusCode::INTERNAL_SERVER_ERROR, json!(text)),
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, json!("Service unavailable, retry")),
        };
        let mut response = (status, Json(json!({ "detail": detail }))).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert("retry-after", axum::http::HeaderValue::from_static("1"));
        }
        response
    }
}

/// A list with one finding; what was sent is never repeated.
fn invalid(place: &str, field: &str, message: &str) -> Value {
    json!([{ "type": "value_error", "loc": [place, field], "msg": message }])
}
