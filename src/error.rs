//! What the application refuses, and the two forms in which it says so.
//!
//! A handler returns an [`Error`] and does not know its form. The outermost layer of the application writes it: in the conduit
//! form below `/api/users`, `/api/articles` and the like, in the detail form everywhere else. So a path that nothing serves,
//! a panic and a refusal of the router read as the rest of their surface does.

use std::borrow::Cow;
use std::collections::BTreeMap;

use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::db;

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Every refusal.
#[derive(Clone, Eq, PartialEq, Debug)]
pub(crate) enum Error {
    /// No such path.
    NoRoute,
    /// No such method of a path; the router adds `Allow`.
    MethodNotAllowed,
    /// A body of another type than the one that is read here.
    MediaType(&'static str),
    /// A body that is too large.
    TooLarge,
    /// Input that does not fit: everything that is wrong with it.
    Invalid(Vec<Finding>),
    /// Refused for another reason; the conduit form puts the text under these fields.
    Refused { status: StatusCode, fields: &'static [&'static str], text: Cow<'static, str> },
    /// The first request with the same `Idempotency-Key` has no answer yet.
    StillRunning,
    /// Too many attempts: to come back after so many seconds.
    TooMany { retry_after: u64 },
    /// Not now: to come back after so many seconds.
    Unavailable { retry_after: u64 },
    /// A mistake of ours, of which the log says more.
    Internal,
}

/// What is wrong with one field.
#[derive(Clone, Eq, PartialEq, Debug)]
pub(crate) struct Finding {
    /// `missing`, `type` or `value`.
    pub(crate) kind: &'static str,
    /// `body`, `query` or `path`.
    pub(crate) place: &'static str,
    pub(crate) field: &'static str,
    /// Never with the input in it: a password would come back.
    pub(crate) text: Cow<'static, str>,
}

impl Error {
    /// A refusal that names what it is about.
    pub(crate) fn refused(
        status: StatusCode,
        fields: &'static [&'static str],
        text: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::Refused { status, fields, text: text.into() }
    }

    /// The same in the detail form, which has no place for the name.
    pub(crate) fn detail(status: StatusCode, text: impl Into<Cow<'static, str>>) -> Self {
        Self::refused(status, &["request"], text)
    }

    /// One wrong value.
    pub(crate) fn invalid(
        place: &'static str,
        field: &'static str,
        text: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::Invalid(vec![Finding { kind: "value", place, field, text: text.into() }])
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::MediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Refused { status, .. } => *status,
            Self::StillRunning => StatusCode::CONFLICT,
            Self::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// What a domain does not make its own answer of.
impl From<db::Error> for Error {
    fn from(error: db::Error) -> Self {
        match error {
            db::Error::Unique | db::Error::Check => {
                Self::refused(StatusCode::CONFLICT, &["request"], "in conflict with what is stored")
            }
            db::Error::ForeignKey => {
                Self::refused(StatusCode::NOT_FOUND, &["request"], "not found")
            }
            db::Error::Died(_) | db::Error::Away(_) | db::Error::Refused(_) => {
                Self::Unavailable { retry_after: 2 }
            }
            db::Error::Busy(_) | db::Error::Conflict => Self::Unavailable { retry_after: 1 },
            db::Error::Failed(_) => Self::Internal,
        }
    }
}

/// Leaves the writing to [`Form::write`].
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// How refusals look.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Form {
    /// `{"status":"error","status_code":N,"message":"…","errors":{field:[text,…]}}`
    Conduit,
    /// `{"detail":"text"}`, or a list of what does not fit.
    Detail,
}

impl Form {
    /// The form of the surface that a path belongs to.
    pub(crate) fn of(path: &str) -> Self {
        let is_below = |prefix: &str| {
            path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let prefixes = ["/api/users", "/api/user", "/api/profiles", "/api/articles", "/api/tags"];
        if prefixes.into_iter().any(is_below) { Self::Conduit } else { Self::Detail }
    }

    /// Writes the error that a response carries; one without an error stays as it is.
    pub(crate) fn write(self, mut response: Response) -> Response {
        let Some(error) = response.extensions_mut().remove::<Error>() else { return response };
        let status = error.status();
        let body = match self {
            Self::Conduit => conduit(status, &error),
            Self::Detail => json!({ "detail": detail(&error) }),
        };
        let mut written = (status, axum::Json(body)).into_response();
        // What the router said besides: `Allow`.
        for (name, value) in response.headers() {
            if name != "content-length" {
                written.headers_mut().append(name, value.clone());
            }
        }
        let headers = written.headers_mut();
        match error {
            Error::Refused { status: StatusCode::UNAUTHORIZED, .. } => {
                let scheme = if self == Self::Conduit { "Token" } else { "Bearer" };
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(scheme));
            }
            Error::StillRunning => {
                headers.insert(RETRY_AFTER, HeaderValue::from(1));
            }
            Error::TooMany { retry_after } | Error::Unavailable { retry_after } => {
                headers.insert(RETRY_AFTER, HeaderValue::from(retry_after.max(1)));
            }
            _ => (),
        }
        written
    }
}

fn conduit(status: StatusCode, error: &Error) -> Value {
    let one = |field: &'static str, text: &str| BTreeMap::from([(field, vec![text.to_owned()])]);
    let errors = match error {
        Error::NoRoute => one("route", "not found"),
        Error::MethodNotAllowed => one("method", "not allowed"),
        Error::MediaType(wanted) => one("body", &format!("send {wanted}")),
        Error::TooLarge => one("body", "is too large"),
        Error::Invalid(findings) => {
            let mut errors = BTreeMap::<_, Vec<_>>::new();
            for finding in findings {
                errors.entry(finding.field).or_default().push(finding.text.clone().into_owned());
            }
            errors
        }
        Error::Refused { fields, text, .. } => {
            fields.iter().map(|field| (*field, vec![text.clone().into_owned()])).collect()
        }
        Error::StillRunning => one("request", STILL_RUNNING),
        Error::TooMany { .. } => one("credentials", "too many attempts"),
        Error::Unavailable { .. } => one("server", "is unavailable, retry"),
        Error::Internal => one("server", "internal error"),
    };
    let message = status.canonical_reason().unwrap_or("error");
    json!({
        "status": "error", "status_code": status.as_u16(), "message": message, "errors": errors,
    })
}

fn detail(error: &Error) -> Value {
    match error {
        Error::NoRoute => json!("Not Found"),
        Error::MethodNotAllowed => json!("Method Not Allowed"),
        Error::MediaType(wanted) => json!(format!("send {wanted}")),
        Error::TooLarge => json!("the body is too large"),
        Error::Invalid(findings) => findings
            .iter()
            .map(|Finding { kind, place, field, text }| {
                json!({ "type": kind, "loc": [place, field], "msg": text })
            })
            .collect(),
        Error::Refused { text, .. } => json!(text),
        Error::StillRunning => json!(STILL_RUNNING),
        Error::TooMany { .. } => json!("Too many attempts."),
        Error::Unavailable { .. } => json!("Service unavailable, retry"),
        Error::Internal => json!("Internal Server Error"),
    }
}

const STILL_RUNNING: &str = "The first request with this Idempotency-Key is still running";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_the_form_of_its_surface() {
        for path in ["/api/user", "/api/users/login", "/api/articles/x", "/api/tags/none"] {
            assert_eq!(Form::of(path), Form::Conduit, "{path}");
        }
        for path in ["/users", "/api/username", "/api/items", "/nothing", "/api"] {
            assert_eq!(Form::of(path), Form::Detail, "{path}");
        }
    }
}
