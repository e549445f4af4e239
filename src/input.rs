//! What comes in: bodies, queries and paths, read into types that cannot be wrong.
//!
//! A type says in [`Read`] how it is made of [`Fields`]. Everything that is wrong with a request is found in one go, and told in
//! the form of its surface.

mod account;
mod fields;
mod strict;

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use http_body_util::LengthLimitError;
use serde::Serialize;

pub(crate) use account::{email, email_key, password};
pub(crate) use fields::{Edit, Fields, Read};

use crate::error::{Error, Result};

/// A body that was read from JSON, or is written as JSON.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

impl<T: Read, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Error;

    /// No `Content-Type` counts as JSON.
    async fn from_request(request: Request, _: &S) -> Result<Self> {
        check_type(request.headers(), "application/json", Absent::Accepted)?;
        let body = body_of(request).await?;
        let value = strict::parse(&body).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            let text = format!("is not valid JSON (line {line} column {column})");
            Error::invalid("body", "body", text)
        })?;
        Fields::of_body(value)?.read().map(Self)
    }
}

/// A body of `application/x-www-form-urlencoded`.
pub(crate) struct UrlEncoded<T>(pub(crate) T);

impl<T: Read, S: Send + Sync> FromRequest<S> for UrlEncoded<T> {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Self> {
        check_type(request.headers(), "application/x-www-form-urlencoded", Absent::Refused)?;
        let body = body_of(request).await?;
        Fields::of_pairs("body", &body).read().map(Self)
    }
}

/// Parameters of a query. An empty one counts as absent.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: Read, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        let query = parts.uri.query().unwrap_or_default();
        Fields::of_pairs("query", query.as_bytes()).read().map(Self)
    }
}

/// The number that is the last parameter of a path.
#[derive(Copy, Clone)]
pub(crate) struct Id(pub(crate) i64);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let params = RawPathParams::from_request_parts(parts, state).await;
        let last = params.ok().and_then(|params| params.iter().last()?.1.parse().ok());
        last.map(Self).ok_or_else(|| Error::invalid("path", "id", "must be an integer"))
    }
}

/// The text that is the first parameter of a path.
pub(crate) struct Name(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let params = RawPathParams::from_request_parts(parts, state).await;
        let first = |params: RawPathParams| params.iter().next().map(|(_, text)| text.to_owned());
        match params.map(first) {
            Ok(Some(text)) if !text.contains('\0') => Ok(Self(text)),
            Ok(_) | Err(RawPathParamsRejection::InvalidUtf8InPathParam(_)) => {
                Err(Error::invalid("path", "path", "is invalid"))
            }
            Err(_) => Err(Error::Internal),
        }
    }
}

/// What no `Content-Type` means.
#[derive(Copy, Clone, Eq, PartialEq)]
enum Absent {
    Accepted,
    Refused,
}

fn check_type(headers: &HeaderMap, wanted: &'static str, absent: Absent) -> Result<()> {
    let is_wanted = |value: &HeaderValue| {
        let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
        essence.trim().eq_ignore_ascii_case(wanted)
    };
    let fits = headers.get(CONTENT_TYPE).map_or(absent == Absent::Accepted, is_wanted);
    if fits { Ok(()) } else { Err(Error::MediaType(wanted)) }
}

async fn body_of(request: Request) -> Result<axum::body::Bytes> {
    axum::body::to_bytes(request.into_body(), BODY_LIMIT).await.map_err(|error| {
        let mut cause: Option<&dyn std::error::Error> = Some(&error);
        while let Some(error) = cause {
            if error.is::<LengthLimitError>() || error.is::<saola::BodyError>() {
                return Error::TooLarge;
            }
            cause = error.source();
        }
        Error::invalid("body", "body", "did not come in full")
    })
}

/// The server's own limit is the same by default, and may be lower; then the worker answers.
const BODY_LIMIT: usize = 1024 * 1024;
