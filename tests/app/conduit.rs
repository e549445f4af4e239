//! Conduit: what it answers, whole, also where the RealWorld collection does not look.

use hyper::Method;
use serde_json::{Value, json};

use crate::app::database;
use crate::app::person::{PASSWORD, Person, assert_like, mail};

/// Who asks for what, and what is refused.
type Row<'a> = (&'a Person, Method, &'a str, Option<Value>, u16, Value);

/// The body of a refusal.
fn refused(status: u16, message: &str, errors: &Value) -> Value {
    json!({"status": "error", "status_code": status, "message": message, "errors": errors})
}

fn expect(answer: &crate::client::Answer, status: u16, body: &Value, what: &str) {
    assert_eq!(answer.status, status, "{what}: {}", answer.text());
    assert_like(&answer.json(), body, what);
    assert_eq!(answer.header("x-content-type-options"), "nosniff", "{what}");
    answer.request_id();
}

fn expect_refusal(answer: &crate::client::Answer, status: u16, errors: &Value, what: &str) {
    let message = match status {
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        413 => "Payload Too Large",
        415 => "Unsupported Media Type",
        _ => "Unprocessable Entity",
    };
    expect(answer, status, &refused(status, message, errors), what);
    let scheme = if status == 401 { "Token" } else { "" };
    assert_eq!(answer.header("www-authenticate"), scheme, "{what}");
}

fn write(person: &Person, title: &str, tags: &[&str]) -> String {
    let article = json!({"title": title, "description": "about", "body": "text", "tagList": tags});
    let answer = person.post("/api/articles", &json!({"article": article}));
    answer.expect_status(201).json()["article"]["slug"].as_str().unwrap().to_owned()
}

fn titles(answer: &crate::client::Answer) -> Vec<String> {
    let body = answer.expect_status(200).json();
    let articles = body["articles"].as_array().unwrap().clone();
    articles.iter().map(|article| article["title"].as_str().unwrap().to_owned()).collect()
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn whatever_succeeds_has_the_whole_body() {
    database::each(|database| {
        let server = database.setup().start();
        let nobody = Person::nobody(&server);
        let ann = Person::of_conduit(&server, "ann");
        let bob = Person::of_conduit(&server, "bob");
        let user = json!({"user": {
            "email": mail("ann"), "token": ann.token(), "username": "ann", "bio": null, "image": null,
        }});
        expect(&ann.get("/api/user"), 200, &user, "own user");
        let sign_in = json!({"user": {"email": "ANN@example.COM", "password": PASSWORD}});
        let mut signed_in = user.clone();
        signed_in["user"]["token"] = "*".into();
        expect(&nobody.post("/api/users/login", &sign_in), 200, &signed_in, "sign in");
        let profile = |following: bool| json!({"profile": {"username": "ann", "bio": null, "image": null, "following": following}});
        for _ in 0..2 {
            let answer = bob.post("/api/profiles/ann/follow", &json!({}));
            expect(&answer, 200, &profile(true), "follow");
        }
        expect(&bob.get("/api/profiles/ann"), 200, &profile(true), "profile");
        expect(&nobody.get("/api/profiles/ann"), 200, &profile(false), "profile for anybody");
        let slug = write(&ann, "A title", &["b", "a", "b", "ä", "B"]);
        assert!(slug.starts_with("a-title-") && slug.len() == 14, "{slug}");
        let article = |favorited: bool, count: i64, following: bool| {
            json!({"article": {
                "slug": slug, "title": "A title", "description": "about", "body": "text",
                "tagList": ["B", "a", "b", "ä"], "createdAt": "*", "updatedAt": "*",
                "favorited": favorited, "favoritesCount": count,
                "author": {"username": "ann", "bio": null, "image": null, "following": following},
            }})
        };
        let path = format!("/api/articles/{slug}");
        expect(&bob.get(&path), 200, &article(false, 0, true), "article");
        let favorite = format!("{path}/favorite");
        for _ in 0..2 {
            // Postman sends a body with it, which means nothing.
            let answer = bob.send(&Method::POST, &favorite, Some("text/plain"), "no JSON");
            expect(&answer, 200, &article(true, 1, true), "favorite");
        }
        expect(&nobody.get(&path), 200, &article(false, 1, false), "article for anybody");
        let mut listed = article(true, 1, true);
        listed["article"].as_object_mut().unwrap().remove("body");
        let list = json!({"articles": [listed["article"]], "articlesCount": 1});
        expect(&bob.get("/api/articles"), 200, &list, "list");
        expect(&bob.get("/api/articles/feed"), 200, &list, "feed");
        for _ in 0..2 {
            expect(&bob.delete(&favorite), 200, &article(false, 0, true), "unfavorite");
        }
        let comment = bob.post(&format!("{path}/comments"), &json!({"comment": {"body": "yes"}}));
        let author = json!({"username": "bob", "bio": null, "image": null, "following": false});
        let one =
            json!({"id": 1, "createdAt": "*", "updatedAt": "*", "body": "yes", "author": author});
        expect(&comment, 201, &json!({"comment": one}), "comment");
        let comments = nobody.get(&format!("{path}/comments"));
        expect(&comments, 200, &json!({"comments": [one]}), "comments");
        expect(&nobody.get("/api/tags"), 200, &json!({"tags": ["B", "a", "b", "ä"]}), "tags");
        let removed = bob.delete(&format!("{path}/comments/1"));
        removed.expect_status(204);
        assert_eq!((removed.text(), removed.header("content-type")), ("", ""));
        for _ in 0..2 {
            expect(&bob.delete("/api/profiles/ann/follow"), 200, &profile(false), "unfollow");
        }
        ann.delete(&path).expect_status(204);
        expect(&nobody.get("/api/tags"), 200, &json!({"tags": []}), "tags after all");
    });
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn every_refusal_says_which_field_and_why() {
    database::each(|database| {
        let server = database.setup().start();
        let nobody = Person::nobody(&server);
        let (ann, bob) = (Person::of_conduit(&server, "ann"), Person::of_conduit(&server, "bob"));
        let slug = write(&ann, "Own", &[]);
        let article = format!("/api/articles/{slug}");
        let comments = format!("{article}/comments");
        ann.post(&comments, &json!({"comment": {"body": "mine"}})).expect_status(201);
        let other = write(&ann, "Other", &[]);
        let first = format!("{comments}/1");
        let (none, no_number) = (format!("{comments}/99"), format!("{comments}/x"));
        let of_other = format!("/api/articles/{other}/comments/1");
        let blank = json!(["can't be blank"]);
        let not_found = json!(["not found"]);
        let long = |length: usize| "x".repeat(length);
        let too_long = |most: usize| json!([format!("is too long (maximum is {most} characters)")]);
        let body = |field: &str, value: Value| json!({"user": {field: value}});
        let post = Method::POST;
        let put = Method::PUT;
        let rows: Vec<Row<'_>> = vec![
            // Who asks comes before what is asked for.
            (&nobody, Method::GET, "/api/user", None, 401, json!({"token": ["is missing"]})),
            (
                &nobody,
                post.clone(),
                "/api/articles",
                Some(json!("x")),
                401,
                json!({"token": ["is missing"]}),
            ),
            (
                &nobody,
                Method::DELETE,
                "/api/articles/none",
                None,
                401,
                json!({"token": ["is missing"]}),
            ),
            // Registration: all at once.
            (
                &nobody,
                post.clone(),
                "/api/users",
                Some(json!({"user": {}})),
                422,
                json!({"email": blank, "password": blank, "username": blank}),
            ),
            (&nobody, post.clone(), "/api/users", Some(json!({})), 422, json!({"user": blank})),
            (
                &nobody,
                post.clone(),
                "/api/users",
                Some(json!({"user": {"username": "  ", "email": null, "password": ""}})),
                422,
                json!({"email": blank, "password": blank, "username": blank}),
            ),
            (
                &nobody,
                post.clone(),
                "/api/users",
                Some(json!({"user": {"username": 1, "email": [], "password": {}}})),
                422,
                json!({"email": ["must be a string"], "password": ["must be a string"], "username": ["must be a string"]}),
            ),
            (
                &nobody,
                post.clone(),
                "/api/users",
                Some(
                    json!({"user": {"username": long(65), "email": "a@b@c", "password": "1234567"}}),
                ),
                422,
                json!({"email": ["is invalid"], "password": ["is too short (minimum is 8 characters)"], "username": too_long(64)}),
            ),
            (
                &nobody,
                post.clone(),
                "/api/users",
                Some(
                    json!({"user": {"username": "a\u{7}b", "email": "a b@c", "password": long(1_025)}}),
                ),
                422,
                json!({"email": ["is invalid"], "password": too_long(1_024), "username": ["is invalid"]}),
            ),
            (
                &nobody,
                post.clone(),
                "/api/users",
                Some(json!({"user": {"username": "a\0b", "email": "@c", "password": PASSWORD}})),
                422,
                json!({"email": ["is invalid"], "username": ["is invalid", "is invalid"]}),
            ),
            (
                &nobody,
                post.clone(),
                "/api/users",
                Some(
                    json!({"user": {"username": "ann", "email": "ANN@EXAMPLE.COM", "password": PASSWORD}}),
                ),
                409,
                json!({"email": ["has already been taken"], "username": ["has already been taken"]}),
            ),
            (
                &nobody,
                post.clone(),
                "/api/users",
                Some(
                    json!({"user": {"username": "Ann", "email": "ann@example.com", "password": PASSWORD}}),
                ),
                409,
                json!({"email": ["has already been taken"]}),
            ),
            (
                &nobody,
                post.clone(),
                "/api/users",
                Some(
                    json!({"user": {"username": "ann", "email": "new@example.com", "password": PASSWORD}}),
                ),
                409,
                json!({"username": ["has already been taken"]}),
            ),
            // Signing in: nobody learns which of both is wrong.
            (
                &nobody,
                post.clone(),
                "/api/users/login",
                Some(json!({"user": {"email": mail("ann"), "password": "wrong"}})),
                401,
                json!({"credentials": ["invalid"]}),
            ),
            (
                &nobody,
                post.clone(),
                "/api/users/login",
                Some(json!({"user": {"email": "no", "password": "wrong"}})),
                401,
                json!({"credentials": ["invalid"]}),
            ),
            (
                &nobody,
                post.clone(),
                "/api/users/login",
                Some(json!({"user": {"email": mail("ann"), "password": long(1_025)}})),
                401,
                json!({"credentials": ["invalid"]}),
            ),
            (
                &nobody,
                post.clone(),
                "/api/users/login",
                Some(json!({"user": {"email": " "}})),
                422,
                json!({"email": blank, "password": blank}),
            ),
            // What one says of oneself.
            (
                &ann,
                put.clone(),
                "/api/user",
                Some(json!({"user": {"email": null, "username": "", "password": " "}})),
                422,
                json!({"email": blank, "username": blank, "password": blank}),
            ),
            (
                &ann,
                put.clone(),
                "/api/user",
                Some(body("bio", json!(long(4_097)))),
                422,
                json!({"bio": too_long(4_096)}),
            ),
            (
                &ann,
                put.clone(),
                "/api/user",
                Some(body("image", json!(5))),
                422,
                json!({"image": ["must be a string"]}),
            ),
            (
                &bob,
                put.clone(),
                "/api/user",
                Some(json!({"user": {"username": "ann", "email": mail("ann")}})),
                409,
                json!({"email": ["has already been taken"], "username": ["has already been taken"]}),
            ),
            (
                &bob,
                put.clone(),
                "/api/user",
                Some(json!([])),
                422,
                json!({"body": ["must be an object"]}),
            ),
            // Profiles.
            (&ann, Method::GET, "/api/profiles/none", None, 404, json!({"profile": not_found})),
            (
                &ann,
                post.clone(),
                "/api/profiles/none/follow",
                None,
                404,
                json!({"profile": not_found}),
            ),
            (
                &ann,
                post.clone(),
                "/api/profiles/ann/follow",
                None,
                422,
                json!({"username": ["can't follow yourself"]}),
            ),
            (&ann, Method::GET, "/api/profiles/a%00", None, 422, json!({"path": ["is invalid"]})),
            // Articles.
            (
                &ann,
                post.clone(),
                "/api/articles",
                Some(json!({"article": {}})),
                422,
                json!({"title": blank, "description": blank, "body": blank}),
            ),
            (
                &ann,
                post.clone(),
                "/api/articles",
                Some(
                    json!({"article": {"title": long(256), "description": long(2_049), "body": long(65_537), "tagList": "a"}}),
                ),
                422,
                json!({"title": too_long(255), "description": too_long(2_048), "body": too_long(65_536), "tagList": ["must be a list of strings"]}),
            ),
            (
                &ann,
                post.clone(),
                "/api/articles",
                Some(
                    json!({"article": {"title": "t", "description": "d", "body": "b", "tagList": vec!["x"; 21]}}),
                ),
                422,
                json!({"tagList": ["is too long (maximum is 20 items)"]}),
            ),
            (
                &ann,
                post.clone(),
                "/api/articles",
                Some(
                    json!({"article": {"title": "t", "description": "d", "body": "b", "tagList": ["a", 1]}}),
                ),
                422,
                json!({"tagList": ["must be a list of strings"]}),
            ),
            (
                &ann,
                put.clone(),
                &article,
                Some(json!({"article": {"title": null, "body": "", "tagList": null}})),
                422,
                json!({"title": blank, "body": blank, "tagList": blank}),
            ),
            (
                &bob,
                put.clone(),
                &article,
                Some(json!({"article": {"title": ""}})),
                422,
                json!({"title": blank}),
            ),
            (
                &bob,
                put.clone(),
                &article,
                Some(json!({"article": {}})),
                403,
                json!({"article": ["forbidden"]}),
            ),
            (&bob, Method::DELETE, &article, None, 403, json!({"article": ["forbidden"]})),
            (
                &bob,
                put.clone(),
                "/api/articles/none",
                Some(json!({"article": {}})),
                404,
                json!({"article": not_found}),
            ),
            (&bob, Method::DELETE, "/api/articles/none", None, 404, json!({"article": not_found})),
            (&nobody, Method::GET, "/api/articles/none", None, 404, json!({"article": not_found})),
            (
                &bob,
                post.clone(),
                "/api/articles/none/favorite",
                None,
                404,
                json!({"article": not_found}),
            ),
            (
                &nobody,
                Method::GET,
                "/api/articles?limit=0&offset=-1",
                None,
                422,
                json!({"limit": ["must be at least 1"], "offset": ["must be at least 0"]}),
            ),
            (
                &nobody,
                Method::GET,
                "/api/articles?limit=x",
                None,
                422,
                json!({"limit": ["must be an integer"]}),
            ),
            (
                &ann,
                Method::GET,
                "/api/articles/feed?limit=99999999999999999999",
                None,
                422,
                json!({"limit": ["must be an integer"]}),
            ),
            // Comments.
            (
                &ann,
                post.clone(),
                &comments,
                Some(json!({"comment": {"body": " "}})),
                422,
                json!({"body": blank}),
            ),
            (
                &ann,
                post.clone(),
                &comments,
                Some(json!({"comment": {"body": long(8_193)}})),
                422,
                json!({"body": too_long(8_192)}),
            ),
            (&ann, post.clone(), &comments, Some(json!({})), 422, json!({"comment": blank})),
            (
                &ann,
                post.clone(),
                "/api/articles/none/comments",
                Some(json!({"comment": {"body": "x"}})),
                404,
                json!({"article": not_found}),
            ),
            (
                &nobody,
                Method::GET,
                "/api/articles/none/comments",
                None,
                404,
                json!({"article": not_found}),
            ),
            (&bob, Method::DELETE, &first, None, 403, json!({"comment": ["forbidden"]})),
            (&ann, Method::DELETE, &none, None, 404, json!({"comment": not_found})),
            (&ann, Method::DELETE, &no_number, None, 422, json!({"id": ["must be an integer"]})),
            (&ann, Method::DELETE, &of_other, None, 404, json!({"comment": not_found})),
            // The surface itself.
            (
                &nobody,
                Method::GET,
                "/api/users/nothing/here",
                None,
                404,
                json!({"route": ["not found"]}),
            ),
            (&nobody, Method::PATCH, "/api/user", None, 405, json!({"method": ["not allowed"]})),
        ];
        for (person, method, path, body, status, errors) in &rows {
            let answer = person.ask(method, path, body.as_ref());
            expect_refusal(&answer, *status, errors, &format!("{method} {path} {body:?}"));
        }
        assert_eq!(ann.ask(&Method::PATCH, "/api/user", None).header("allow"), "GET,HEAD,PUT");
    });
}

#[test]
fn bodies_that_cannot_be_read_are_refused_by_type_size_and_place() {
    database::each(|database| {
        let server = database.setup().start();
        let ann = Person::of_conduit(&server, "ann");
        let send =
            |kind: Option<&str>, body: String| ann.send(&Method::PUT, "/api/user", kind, body);
        let json = Some("application/json");
        for (kind, body, status, text) in [
            (Some("text/plain"), "{}".to_owned(), 415, "send application/json"),
            (json, "{".to_owned(), 422, "is not valid JSON (line 1 column 1)"),
            (None, "{\"user\":\n x}".to_owned(), 422, "is not valid JSON (line 2 column 2)"),
            (json, String::new(), 422, "is not valid JSON (line 1 column 0)"),
            (
                json,
                r#"{"user":{"bio":"a","bio":"b"}}"#.to_owned(),
                422,
                "is not valid JSON (line 1 column 29)",
            ),
            (
                json,
                r#"{"user":{"bio":"\ud800"}}"#.to_owned(),
                422,
                "is not valid JSON (line 1 column 23)",
            ),
            (
                json,
                format!("{}1{}", "[".repeat(129), "]".repeat(129)),
                422,
                "is not valid JSON (line 1 column 128)",
            ),
        ] {
            let answer = send(kind, body);
            expect_refusal(&answer, status, &json!({"body": [text]}), text);
        }
        let large = format!("{{\"user\":{{\"bio\":\"{}\"}}}}", "x".repeat(1024 * 1024));
        send(json, large).expect_status(413);
        let fine = send(Some("Application/JSON; charset=utf-8"), r#"{"user":{"x":1}}"#.to_owned());
        fine.expect_status(200);
        assert_eq!(database.query("SELECT bio FROM conduit_users"), "", "nothing was stored");
    });
}

#[test]
fn filters_count_what_they_list_on_every_page() {
    database::each(|database| {
        let server = database.setup().start();
        let people = ["ann", "bob", "eve"].map(|name| Person::of_conduit(&server, name));
        let [ann, bob, eve] = &people;
        // Two of three have a tag, every other one is Bob's; Eve likes each third one.
        for number in 0..24 {
            let author = if number % 2 == 0 { ann } else { bob };
            let tags: &[&str] = if number % 3 == 0 { &[] } else { &["odd", "even"] };
            let slug = write(author, &format!("T{number:02}"), tags);
            if number % 3 == 1 {
                eve.post(&format!("/api/articles/{slug}/favorite"), &json!({})).expect_status(200);
            }
        }
        eve.post("/api/profiles/bob/follow", &json!({})).expect_status(200);
        let expected = |wanted: fn(u32) -> bool| {
            (0..24)
                .rev()
                .filter(|number| wanted(*number))
                .map(|number| format!("T{number:02}"))
                .collect::<Vec<_>>()
        };
        let cases: [(&str, Vec<String>); 10] = [
            ("?", expected(|_| true)),
            ("?tag=", expected(|_| true)),
            ("?tag=odd", expected(|n| n % 3 != 0)),
            ("?author=bob", expected(|n| n % 2 == 1)),
            ("?favorited=eve", expected(|n| n % 3 == 1)),
            ("?tag=odd&author=bob", expected(|n| n % 3 != 0 && n % 2 == 1)),
            ("?tag=even&favorited=eve", expected(|n| n % 3 == 1)),
            ("?author=ann&favorited=eve", expected(|n| n % 3 == 1 && n % 2 == 0)),
            ("?tag=odd&author=bob&favorited=eve", expected(|n| n % 3 == 1 && n % 2 == 1)),
            ("?tag=none", Vec::new()),
        ];
        for (query, expected) in &cases {
            for (limit, offset) in [(5, 0), (5, 5), (100, 0), (1_000, 3), (3, 1_000)] {
                let path = format!("/api/articles{query}&limit={limit}&offset={offset}");
                let answer = ann.get(&path);
                let page: Vec<_> = expected.iter().skip(offset).take(limit).cloned().collect();
                assert_eq!(titles(&answer), page, "{path}");
                assert_eq!(answer.json()["articlesCount"], expected.len(), "{path}");
            }
        }
        for query in ["?author=none", "?favorited=none", "?favorited=bob"] {
            let empty = json!({"articles": [], "articlesCount": 0});
            assert_eq!(ann.get(&format!("/api/articles{query}")).json(), empty, "{query}");
        }
        let feed = eve.get("/api/articles/feed?limit=4&offset=2");
        assert_eq!(titles(&feed), ["T19", "T17", "T15", "T13"]);
        assert_eq!(feed.json()["articlesCount"], 12);
        // A filter by one tag cuts nothing of the others.
        assert_eq!(
            ann.get("/api/articles?tag=odd").json()["articles"][0]["tagList"],
            json!(["even", "odd"])
        );
        assert_eq!(titles(&ann.get("/api/articles")).len(), 20, "the default");
    });
}

#[test]
fn what_changes_changes_and_what_is_absent_stays() {
    database::each(|database| {
        let server = database.setup().start();
        let nobody = Person::nobody(&server);
        let ann = Person::of_conduit(&server, "ann");
        let set = |person: &Person, user: Value| {
            person.put("/api/user", &json!({"user": user})).expect_status(200).json()["user"]
                .clone()
        };
        let before = set(&ann, json!({"bio": "b", "image": "i"}));
        assert_eq!(set(&ann, json!({})), before, "nothing to change changes nothing");
        assert_eq!(set(&ann, json!({"bio": "", "id": 9, "token_version": 7}))["bio"], Value::Null);
        assert_eq!(set(&ann, json!({"image": null}))["image"], Value::Null);
        assert_eq!(set(&ann, json!({"username": "Ann"}))["username"], "Ann");
        let fresh =
            set(&ann, json!({"password": "another one 8"}))["token"].as_str().unwrap().to_owned();
        expect_refusal(&ann.get("/api/user"), 401, &json!({"token": ["invalid"]}), "an old token");
        let ann = nobody.with(&format!("bEARER {fresh}"));
        ann.get("/api/user").expect_status(200);

        let slug = write(&ann, "First title", &["x"]);
        let path = format!("/api/articles/{slug}");
        let article =
            |answer: &crate::client::Answer| answer.expect_status(200).json()["article"].clone();
        let before = article(&ann.get(&path));
        let change =
            |path: &str, changes: Value| article(&ann.put(path, &json!({"article": changes})));
        let same = change(&path, json!({"title": "First title", "body": "new"}));
        assert_eq!((&same["slug"], &same["body"]), (&before["slug"], &json!("new")));
        assert_eq!(same["createdAt"], before["createdAt"]);
        assert!(same["updatedAt"].as_str() > before["updatedAt"].as_str());
        assert_eq!(same["updatedAt"].as_str().unwrap().len(), "2026-01-02T03:04:05.678901Z".len());
        assert_eq!(change(&path, json!({"tagList": []}))["tagList"], json!([]));
        assert_eq!(ann.get("/api/tags").json(), json!({"tags": []}));
        let retitled = change(&path, json!({"title": "feed", "tagList": ["z", "y"]}));
        assert!(retitled["slug"].as_str().unwrap().starts_with("feed-"), "{retitled}");
        assert_eq!(retitled["tagList"], json!(["y", "z"]));
        ann.get(&path).expect_status(404);
        assert_ne!(write(&ann, "Twice", &[]), write(&ann, "Twice", &[]));
        // With an article goes all that belongs to it.
        let path = format!("/api/articles/{}", retitled["slug"].as_str().unwrap());
        ann.post(&format!("{path}/comments"), &json!({"comment": {"body": "c"}}))
            .expect_status(201);
        ann.post(&format!("{path}/favorite"), &json!({})).expect_status(200);
        ann.delete(&path).expect_status(204);
        for table in ["conduit_article_tags", "conduit_favorites", "conduit_comments"] {
            assert_eq!(database.number(&format!("SELECT count(*) FROM {table}")), 0, "{table}");
        }
    });
}

#[test]
fn a_name_that_two_want_at_once_is_given_to_one() {
    database::each(|database| {
        let server = database.setup().start();
        let nobody = Person::nobody(&server);
        let user = json!({"user": {"username": "ann", "email": mail("ann"), "password": PASSWORD}});
        let register = || nobody.post("/api/users", &user).status;
        let mut statuses = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..6).map(|_| scope.spawn(register)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        statuses.sort_unstable();
        assert_eq!(statuses, [201, 409, 409, 409, 409, 409]);
    });
}
