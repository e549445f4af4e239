//! Tokens that are not good, in every way that one can think of, on every path that asks for one.

use hyper::{Method, Request};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::app::database;
use crate::app::person::Person;
use crate::client::{self, Answer};
use crate::server::Server;

const KEY: &str = "a key of the tests, 32 bytes or more";

const CONDUIT: [(&str, &str); 11] = [
    ("GET", "/api/user"),
    ("PUT", "/api/user"),
    ("POST", "/api/profiles/ann/follow"),
    ("DELETE", "/api/profiles/ann/follow"),
    ("GET", "/api/articles/feed"),
    ("POST", "/api/articles"),
    ("PUT", "/api/articles/none"),
    ("DELETE", "/api/articles/none"),
    ("POST", "/api/articles/none/favorite"),
    ("POST", "/api/articles/none/comments"),
    ("DELETE", "/api/articles/none/comments/1"),
];
/// Where a token may be left out, a bad one is refused all the same.
const OPTIONAL: [(&str, &str); 4] = [
    ("GET", "/api/profiles/ann"),
    ("GET", "/api/articles"),
    ("GET", "/api/articles/none"),
    ("GET", "/api/articles/none/comments"),
];
const BLOG: [(&str, &str); 8] = [
    ("GET", "/users/1"),
    ("GET", "/posts"),
    ("POST", "/posts"),
    ("GET", "/posts/1"),
    ("PUT", "/posts/1"),
    ("DELETE", "/posts/1"),
    ("POST", "/vote"),
    ("DELETE", "/vote"),
];

fn claims(audience: &str) -> Value {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now = now.as_secs();
    json!({
        "iss": "saola-reference", "aud": audience, "sub": "1", "iat": now, "exp": now + 600, "ver": 1,
    })
}

fn signed(claims: &Value) -> String {
    signed_as(&Header::new(Algorithm::HS256), claims, KEY)
}

fn signed_as(header: &Header, claims: &Value, key: &str) -> String {
    encode(header, claims, &EncodingKey::from_secret(key.as_bytes())).unwrap()
}

fn changed(audience: &str, name: &str, value: Option<Value>) -> String {
    let mut claims = claims(audience);
    match value {
        Some(value) => claims[name] = value,
        None => _ = claims.as_object_mut().unwrap().remove(name),
    }
    signed(&claims)
}

/// Base64 as tokens have it.
fn part(text: &str) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut written = String::new();
    for three in text.as_bytes().chunks(3) {
        let bits = three.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte))
            << (8 * (3 - three.len()));
        for at in 0..=three.len() {
            written.push(char::from(LETTERS[bits >> (18 - 6 * at) & 63]));
        }
    }
    written
}

/// `Authorization` headers of which none is good.
#[expect(clippy::too_many_lines, reason = "a list")]
fn bad(audience: &str, other: &str, good: &str) -> Vec<Vec<String>> {
    let (head, signature) = good.rsplit_once('.').unwrap();
    let (_, payload) = head.split_once('.').unwrap();
    let past = claims(audience)["iat"].as_u64().unwrap() - 1;
    let mut tokens = vec![
        String::new(),
        "x".to_owned(),
        "..".to_owned(),
        "a.b.c".to_owned(),
        head.to_owned(),
        format!("{head}."),
        format!("{head}.{}", signature.get(1..).unwrap()),
        format!("{head}.{}", signature.replacen(signature.chars().nth(9).unwrap(), "~", 1)),
        format!("{good}."),
        format!("{good}A"),
        format!("{head}.{}", signature.chars().rev().collect::<String>()),
        signed_as(
            &Header::new(Algorithm::HS256),
            &claims(audience),
            "another key, of more than 32 bytes",
        ),
        signed_as(&Header::new(Algorithm::HS384), &claims(audience), KEY),
        signed_as(&Header::new(Algorithm::HS512), &claims(audience), KEY),
        changed(audience, "exp", Some(json!(past))),
        changed(audience, "exp", Some(json!("never"))),
        changed(audience, "nbf", Some(json!(past + 600))),
        changed(audience, "aud", Some(json!(other))),
        changed(audience, "aud", Some(json!([audience, other]))),
        changed(audience, "iss", Some(json!("somebody"))),
        changed(audience, "sub", Some(json!("999999"))),
        changed(audience, "sub", Some(json!("1 OR 1=1"))),
        changed(audience, "sub", Some(json!(1))),
        changed(audience, "ver", Some(json!(2))),
        changed(audience, "ver", Some(json!(0))),
        signed(&json!({})),
        signed(&json!([])),
    ];
    for claim in ["aud", "iss", "exp", "sub", "ver"] {
        tokens.push(changed(audience, claim, None));
    }
    for algorithm in
        ["none", "None", "NONE", "nOnE", "RS256", "ES256", "PS256", "EdDSA", "HS256x", ""]
    {
        let header = part(&format!(r#"{{"alg":"{algorithm}","typ":"JWT"}}"#));
        tokens.push(format!("{header}.{payload}."));
        tokens.push(format!("{header}.{payload}.{signature}"));
    }
    for kid in ["../../../../dev/null", "x' UNION SELECT 'y", "/proc/self/environ"] {
        let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::HS256) };
        tokens.push(signed_as(&header, &claims(audience), ""));
        tokens.push(signed_as(&header, &claims(audience), "y"));
    }
    let twice = format!(
        r#"{{"sub":"1","sub":"2",{}"#,
        claims(audience).to_string().trim_start_matches('{')
    );
    tokens.push(format!("{}.{}.{signature}", part(r#"{"alg":"HS256"}"#), part(&twice)));
    let mut headers: Vec<_> =
        tokens.into_iter().map(|token| vec![format!("Bearer {token}")]).collect();
    headers.push(vec!["Basic YTpi".to_owned()]);
    headers.push(vec![good.to_owned()]);
    headers.push(vec![format!("Bearer {good}"), format!("Bearer {good}")]);
    headers.push(vec![format!("Bearer {good} {good}")]);
    headers
}

fn ask(server: &Server, (method, path): (&str, &str), authorization: &[String]) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    for value in authorization {
        request = request.header("authorization", value);
    }
    client::send(&server.address(), request.body("").unwrap()).unwrap()
}

#[test]
fn a_bad_token_is_refused_everywhere_in_the_same_words() {
    database::each(|database| {
        let server = database.setup().env("SECRET_KEY", KEY).start();
        let _ann = Person::of_conduit(&server, "ann");
        let _bob = Person::of_blog(&server, "bob");
        let conduit = r#"{"errors":{"token":["invalid"]},"message":"Unauthorized","status":"error","status_code":401}"#;
        let blog = r#"{"detail":"Could not validate credentials."}"#;
        for (audience, other, paths, body) in [
            ("conduit", "blog", [&CONDUIT[..], &OPTIONAL].concat(), conduit),
            ("blog", "conduit", BLOG.to_vec(), blog),
        ] {
            let good = signed(&claims(audience));
            let known = ask(&server, paths[0], &[format!("Bearer {good}")]).status;
            assert_ne!(known, 401, "the tests know how to make a good one");
            for (number, authorization) in bad(audience, other, &good).iter().enumerate() {
                // Each in one place, and each place with many.
                let paths: Vec<_> =
                    if number == 0 { paths.clone() } else { vec![paths[number % paths.len()]] };
                for path in paths {
                    let answer = ask(&server, path, authorization);
                    assert_eq!(answer.status, 401, "{path:?} {authorization:?}: {}", answer.text());
                    assert_eq!(answer.text(), body, "{path:?} {authorization:?}");
                }
            }
        }
        for path in CONDUIT {
            let missing = ask(&server, path, &[]);
            assert_eq!(
                missing.expect_status(401).json()["errors"],
                json!({"token": ["is missing"]})
            );
        }
        for path in BLOG {
            assert_eq!(ask(&server, path, &[]).expect_status(401).text(), blog, "{path:?}");
        }
    });
}

#[test]
fn a_token_of_enormous_size_is_not_even_parsed() {
    let database = crate::app::database::Database::sqlite();
    let server = database.setup().args(["--limit-request-field-size", "60000"]).start();
    let nobody = Person::nobody(&server).with(&format!("Token {}", "x".repeat(50_000)));
    nobody.ask(&Method::GET, "/api/user", None).expect_status(401);
}

#[test]
fn the_key_that_nobody_gave_is_made_once_and_kept() {
    database::each(|database| {
        let server = database.setup().start();
        let ann = Person::of_conduit(&server, "ann");
        // Any worker knows it, and so does the next server.
        for _ in 0..8 {
            ann.get("/api/user").expect_status(200);
        }
        assert_eq!(server.stop(), 0);
        let is_told = |line: &crate::lines::Line| line.text.contains("SECRET_KEY is not set");
        assert_eq!(server.lines().iter().filter(|line| is_told(line)).count(), 1, "by one worker");
        assert_eq!(database.number("SELECT count(*) FROM app_secrets"), 1);
        let next = database.setup().start();
        Person::nobody(&next)
            .with(&format!("Token {}", ann.token()))
            .get("/api/user")
            .expect_status(200);
    });
}
