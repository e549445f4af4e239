//! Texts that want to be SQL, markup or a path, and numbers at their ends: in every parameter, they are only what they are.

use std::fmt::Write;

use hyper::Method;
use serde_json::{Value, json};

use crate::app::database;
use crate::app::person::Person;

fn texts() -> Vec<String> {
    let mut texts: Vec<String> = [
        "'",
        "''",
        "\"",
        "`",
        "\\",
        "\\'",
        ";",
        "--",
        "/*",
        "*/",
        "#",
        "%",
        "_",
        "%%",
        "%00",
        "%27",
        "$1",
        "$2",
        "?1",
        "?",
        ":x",
        "@x",
        "{}",
        "{{7*7}}",
        "${7*7}",
        "$(id)",
        "`id`",
        "|id",
        "& id",
        "\n",
        "\r\n",
        "\t",
        "\u{1}",
        "\u{7f}",
        "\u{200b}",
        "\u{202e}",
        "\u{feff}",
        "\u{fffd}",
        "\u{10ffff}",
        "null",
        "NULL",
        "true",
        "0",
        "-1",
        "1e999",
        "NaN",
        "' OR '1'='1",
        "' OR 1=1 --",
        "'; DROP TABLE conduit_users; --",
        "1; SELECT pg_sleep(9)",
        "' UNION SELECT password_hash FROM conduit_users --",
        "admin'/*",
        "') OR ('1'='1",
        "1 OR 1=1",
        "\\x00",
        "' AND (SELECT count(*) FROM blog_users) > 0 --",
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "../../../etc/passwd",
        "..%2f..%2f",
        "/etc/passwd",
        "file:///etc/passwd",
        "http://127.0.0.1:1/",
        "a\u{0}b",
        "\u{0}",
        "İ",
        "ß",
        "ﬃ",
        "e\u{301}",
        "👩‍👩‍👧",
        "Robert'); DROP TABLE items_items;--",
    ]
    .map(ToOwned::to_owned)
    .to_vec();
    texts.push("x".repeat(70_000));
    texts.push("é".repeat(300));
    texts
}

fn quoted(text: &str) -> String {
    let mut quoted = String::new();
    for byte in text.bytes() {
        write!(quoted, "%{byte:02X}").unwrap();
    }
    quoted
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn a_text_is_a_text_in_every_parameter() {
    database::each(|database| {
        let server = database.setup().start();
        let ann = Person::of_conduit(&server, "ann");
        let eve = Person::of_blog(&server, "eve");
        let article = json!({"article": {"title": "t", "description": "d", "body": "b"}});
        let written = ann.post("/api/articles", &article).expect_status(201).json();
        let path = format!("/api/articles/{}", written["article"]["slug"].as_str().unwrap());
        eve.post("/posts", &json!({"title": "t", "content": "c"})).expect_status(201);
        let counts = || {
            ["conduit_users", "conduit_articles", "blog_users", "blog_posts", "items_items"]
                .map(|table| database.number(&format!("SELECT count(*) FROM {table}")))
        };
        let before = counts();
        for text in texts() {
            let check = |answer: &crate::client::Answer, what: &str| {
                assert!(
                    answer.status < 500,
                    "{what} {text:.40?}: {} {}",
                    answer.status,
                    answer.text()
                );
            };
            // In a path or query longer than a line may be, it never comes to the application.
            if text.len() < 1_000 {
                let in_url = quoted(&text);
                for path in [
                    format!("/api/profiles/{in_url}"),
                    format!("/api/articles/{in_url}"),
                    format!("/api/articles?tag={in_url}&author={in_url}&favorited={in_url}"),
                    format!("/api/articles?limit={in_url}"),
                    format!("/api/items/{in_url}"),
                    format!("/api/orders/{in_url}"),
                ] {
                    check(&ann.get(&path), &path);
                }
                for path in [
                    format!("/posts?search={in_url}"),
                    format!("/posts/{in_url}"),
                    format!("/users/{in_url}"),
                ] {
                    check(&eve.get(&path), &path);
                }
                let tagged = ann.get(&format!("/api/articles?tag={in_url}"));
                assert!(tagged.status == 422 || tagged.json()["articlesCount"] == 0, "{text:?}");
                check(
                    &eve.post_form("/login", &format!("username={in_url}&password={in_url}")),
                    "login",
                );
            }
            check(&ann.put("/api/user", &json!({"user": {"bio": text, "image": text}})), "user");
            check(&ann.put(&path, &json!({"article": {"title": text, "body": text}})), "article");
            let restored = ann.get("/api/articles?limit=1").json()["articles"][0].clone();
            let path = format!("/api/articles/{}", restored["slug"].as_str().unwrap());
            check(
                &ann.post(&format!("{path}/comments"), &json!({"comment": {"body": text}})),
                "comment",
            );
            check(&ann.put(&path, &json!({"article": {"tagList": [text]}})), "tags");
            check(&eve.put("/posts/1", &json!({"title": text, "content": text})), "post");
            check(&ann.put("/api/items/7", &json!({"name": text})), "item");
            let stored = ann.get(&path).expect_status(200).json();
            let tags = &stored["article"]["tagList"];
            assert!(
                *tags == json!([text])
                    || tags != &json!([])
                    || text.trim().is_empty()
                    || text.contains('\0')
                    || text.len() > 64,
                "{text:?} {tags}"
            );
        }
        assert_eq!(counts(), before, "nothing came and nothing went");
        ann.get("/api/user").expect_status(200);
    });
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn numbers_at_their_ends_are_refused_or_right() {
    database::each(|database| {
        let server = database.setup().start();
        let eve = Person::of_blog(&server, "eve");
        let numbers = [
            "0",
            "-1",
            "-0",
            "1.5",
            "1e3",
            "9223372036854775807",
            "9223372036854775808",
            "-9223372036854775808",
            "-9223372036854775809",
            "1e308",
            "1e-308",
            "99999999999999999999999999",
            "0x10",
            "+1",
            " 1",
            "1_000",
            "١",
        ];
        for number in numbers {
            let in_url = quoted(number);
            for path in [
                "/api/items/",
                "/api/orders/",
                "/posts/",
                "/users/",
                "/api/items?limit=",
                "/api/items?offset=",
                "/posts?skip=",
                "/posts?limit=",
            ] {
                let answer = eve.get(&format!("{path}{in_url}"));
                assert!(answer.status < 500, "{path}{number}: {}", answer.text());
            }
            let raw = |path: &str, body: String| {
                let answer = eve.send(&Method::POST, path, Some("application/json"), body);
                assert!(answer.status < 500, "{path} {number}: {}", answer.text());
            };
            raw("/vote", format!(r#"{{"post_id":{number},"dir":1}}"#));
            raw("/vote", format!(r#"{{"post_id":1,"dir":{number}}}"#));
            raw("/api/items", format!(r#"{{"name":"x","price":{number}}}"#));
            raw("/api/orders", format!(r#"{{"item_id":{number},"quantity":{number}}}"#));
        }
        let kinds: [Value; 6] =
            [json!(null), json!(1), json!("x"), json!([]), json!({}), json!(true)];
        for value in kinds {
            for path in [
                "/api/users",
                "/api/users/login",
                "/users",
                "/posts",
                "/vote",
                "/api/items",
                "/api/orders",
            ] {
                let answer = eve.post(path, &value);
                // An order without anything is one of nothing.
                let is_order = path == "/api/orders" && value.is_object();
                assert!(
                    answer.status == if is_order { 201 } else { 422 },
                    "{path} {value}: {} {}",
                    answer.status,
                    answer.text()
                );
            }
        }
    });
}
