//! Secrets of users and operators, which must come out nowhere.

use hyper::Method;
use serde_json::json;

use crate::app::database;
use crate::app::person::{Person, mail};
use crate::collector::{Collector, Mode};

const KEY: &str = "canary-of-the-key-0123456789abcdef";

#[test]
fn a_secret_comes_out_nowhere() {
    database::each(|database| {
        let collector = Collector::start(Mode::Answer);
        let server = database
            .setup()
            .env("SECRET_KEY", KEY)
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint())
            .env("OTEL_TRACES_SAMPLER", "always_on")
            .args(["--log-level", "trace"])
            .start();
        let nobody = Person::nobody(&server);
        let password = "canary-of-the-password-1";
        let user = json!({"user": {"username": "ann", "email": mail("ann"), "password": password}});
        let answers = vec![
            nobody.post("/api/users", &user),
            nobody.post("/api/users", &user),
            nobody.post("/api/users/login", &user),
            nobody.post("/users", &json!({"email": mail("ann"), "password": password})),
            nobody.post("/users", &json!({"email": "x", "password": "canary-short"})),
            nobody.post_form("/login", &format!("username={}&password={password}", mail("ann"))),
            nobody.post_form("/login", "username=canary-name&password=canary-of-the-password-2"),
            nobody.send(
                &Method::POST,
                "/api/users",
                Some("application/json"),
                "{\"canary-of-the-body\": ",
            ),
            nobody.with("Token canary-of-the-token").get("/api/user"),
            nobody.with("Basic canary-of-the-token").get("/posts"),
            nobody.get("/api/articles?tag=canary-of-the-query&limit=canary"),
            nobody.post("/api/orders", &json!({"item_id": 7, "quantity": "canary-of-the-order"})),
        ];
        let token =
            answers[0].expect_status(201).json()["user"]["token"].as_str().unwrap().to_owned();
        nobody.with(&format!("Token {token}")).get("/api/user").expect_status(200);
        let last = answers.last().unwrap().request_id().to_owned();
        server.access_line(&last);
        for answer in &answers {
            // What one says of oneself comes back to oneself alone.
            let text = answer.text().replace(&token, "");
            assert!(!text.contains("canary"), "{text}");
        }
        let metrics = server.admin_get("/metrics").text().to_owned();
        assert_eq!(server.stop(), 0);
        let lines: Vec<_> = server.lines().into_iter().map(|line| line.text).collect();
        let spans = format!("{:?}", collector.spans());
        assert!(spans.contains("INSERT conduit_users"), "the statements are among the spans");
        for text in lines.iter().chain([&metrics, &spans]) {
            for secret in ["canary", token.as_str(), "$argon2id"] {
                if let Some(at) = text.find(secret) {
                    let around: String =
                        text.chars().skip(at.saturating_sub(200)).take(300).collect();
                    panic!("{secret} in …{around}…");
                }
            }
        }
    });
}
