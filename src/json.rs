//! JSON in and out, and the parameters of a path or query: what cannot be read is refused in the application's own form.

use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Error;

/// A body that was read from JSON or is written as JSON. No `Content-Type` counts as JSON.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Error;

    async fn from_request(mut request: Request, state: &S) -> Result<Self, Error> {
        let json = axum::http::HeaderValue::from_static("application/json");
        request.headers_mut().entry("content-type").or_insert(json);
        match axum::Json::from_request(request, state).await {
            Ok(axum::Json(value)) => Ok(Self(value)),
            Err(JsonRejection::MissingJsonContentType(_)) => Err(Error::MediaType),
            Err(JsonRejection::BytesRejection(error)) if error.status() == 413 => {
                Err(Error::TooLarge)
            }
            Err(error) => {
                let message = error.body_text();
                Err(Error::Invalid { place: "body", field: "body".to_owned(), message })
            }
        }
    }
}

/// A whole number in a path.
pub(crate) struct Id(pub(crate) i64);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let id = Path::<i64>::from_request_parts(parts, state).await.ok().map(|Path(id)| Self(id));
        id.ok_or_else(|| Error::Invalid {
            place: "path",
            field: "id".to_owned(),
            message: "must be an integer".to_owned(),
        })
    }
}

/// Parameters of a query.
pub(crate) struct Parameters<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(parameters)) => Ok(Self(parameters)),
            Err(error) => Err(Error::Invalid {
                place: "query",
                field: "query".to_owned(),
                message: error.body_text(),
            }),
        }
    }
}
