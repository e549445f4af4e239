//! Somebody who calls the application, signed in or not.

use hyper::{Method, Request};
use serde_json::{Value, json};

use crate::client::{self, Answer};
use crate::server::Server;
use crate::wait;

/// A caller with what stands in `Authorization`.
#[derive(Clone)]
pub(crate) struct Person {
    address: String,
    authorization: Option<String>,
}

impl Person {
    pub(crate) fn nobody(server: &Server) -> Self {
        Self { address: server.address(), authorization: None }
    }

    /// A new user of Conduit.
    pub(crate) fn of_conduit(server: &Server, name: &str) -> Self {
        let nobody = Self::nobody(server);
        let user = json!({"username": name, "email": mail(name), "password": PASSWORD});
        let answer = nobody.post("/api/users", &json!({"user": user}));
        let token = answer.expect_status(201).json()["user"]["token"].as_str().unwrap().to_owned();
        nobody.with(&format!("Token {token}"))
    }

    /// A new user of the blog.
    pub(crate) fn of_blog(server: &Server, name: &str) -> Self {
        let nobody = Self::nobody(server);
        let user = json!({"email": mail(name), "password": PASSWORD});
        nobody.post("/users", &user).expect_status(201);
        let answer =
            nobody.post_form("/login", &format!("username={}&password={PASSWORD}", mail(name)));
        let token = answer.expect_status(200).json()["access_token"].as_str().unwrap().to_owned();
        nobody.with(&format!("Bearer {token}"))
    }

    /// The same with another `Authorization`.
    pub(crate) fn with(&self, authorization: &str) -> Self {
        let authorization = Some(authorization.to_owned());
        Self { address: self.address.clone(), authorization }
    }

    /// The token alone.
    pub(crate) fn token(&self) -> &str {
        self.authorization.as_deref().unwrap().split_once(' ').unwrap().1
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask(&Method::GET, path, None)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask(&Method::POST, path, Some(body))
    }

    /// As [`Self::post`], but an answer for want of time is one.
    pub(crate) fn post_once(&self, path: &str, body: &Value) -> Answer {
        self.send_once(&Method::POST, path, Some("application/json"), body.to_string().into())
    }

    pub(crate) fn put(&self, path: &str, body: &Value) -> Answer {
        self.ask(&Method::PUT, path, Some(body))
    }

    pub(crate) fn delete(&self, path: &str) -> Answer {
        self.ask(&Method::DELETE, path, None)
    }

    /// A request with a JSON body, or with none.
    pub(crate) fn ask(&self, method: &Method, path: &str, body: Option<&Value>) -> Answer {
        let text = body.map(ToString::to_string).unwrap_or_default();
        self.send(method, path, body.map(|_| "application/json"), text)
    }

    pub(crate) fn post_form(&self, path: &str, body: &str) -> Answer {
        self.send(&Method::POST, path, Some("application/x-www-form-urlencoded"), body.to_owned())
    }

    /// Asks, and again as long as a busy machine has no time for the database or for a password.
    pub(crate) fn send(
        &self,
        method: &Method,
        path: &str,
        kind: Option<&str>,
        body: impl Into<bytes::Bytes>,
    ) -> Answer {
        let body = body.into();
        wait::until_some("there is time for a request", || {
            let answer = self.send_once(method, path, kind, body.clone());
            Some(answer).filter(|answer| answer.status != 503)
        })
    }

    fn send_once(
        &self,
        method: &Method,
        path: &str,
        kind: Option<&str>,
        body: bytes::Bytes,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let request = request.body(body).unwrap();
        client::send(&self.address, request)
            .unwrap_or_else(|error| panic!("no answer for {path}: {error}"))
    }
}

pub(crate) fn mail(name: &str) -> String {
    format!("{name}@Example.com")
}

/// Whether an answer is the expected one, where `"*"` stands for anything that is there and not null.
pub(crate) fn assert_like(actual: &Value, expected: &Value, what: &str) {
    match (actual, expected) {
        (actual, Value::String(any)) if any == "*" && !actual.is_null() => (),
        (Value::Object(actual_fields), Value::Object(expected_fields)) => {
            let names = |fields: &serde_json::Map<String, Value>| {
                fields.keys().cloned().collect::<Vec<_>>()
            };
            assert_eq!(names(actual_fields), names(expected_fields), "{what}: {actual}");
            for (name, value) in actual_fields {
                assert_like(value, &expected_fields[name], &format!("{what} {name}"));
            }
        }
        (Value::Array(actual_items), Value::Array(expected_items)) => {
            assert_eq!(actual_items.len(), expected_items.len(), "{what}: {actual}");
            for (actual, expected) in actual_items.iter().zip(expected_items) {
                assert_like(actual, expected, what);
            }
        }
        (actual, expected) => assert_eq!(actual, expected, "{what}"),
    }
}

pub(crate) const PASSWORD: &str = "correct horse 7";
