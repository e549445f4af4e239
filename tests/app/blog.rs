//! The blog: what it answers, with a slash at the end and without.

use hyper::Method;
use serde_json::{Value, json};

use crate::app::database;
use crate::app::person::{PASSWORD, Person, assert_like, mail};

fn detail(text: &str) -> Value {
    json!({ "detail": text })
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn the_checks_of_the_original_pass() {
    database::each(|database| {
        let server = database.setup().start();
        let nobody = Person::nobody(&server);
        nobody.get("/").expect_status(200);
        let user = |name: &str| json!({"email": mail(name), "password": PASSWORD});
        nobody.post("/users/", &user("alice")).expect_status(201);
        nobody.post("/users/", &user("bob")).expect_status(201);
        let again = nobody.post("/users/", &user("ALICE"));
        assert_eq!(again.expect_status(409).json(), detail("Email already registered"));
        nobody.post("/users/", &json!({"email": "no", "password": "short"})).expect_status(422);
        let login = |name: &str, password: &str| {
            nobody.post_form(
                "/login",
                &format!("grant_type=password&username={}&password={password}", mail(name)),
            )
        };
        let token = |name: &str| {
            let answer = login(name, PASSWORD).expect_status(200).json();
            assert_like(&answer, &json!({"access_token": "*", "token_type": "bearer"}), "login");
            nobody.with(&format!("Bearer {}", answer["access_token"].as_str().unwrap()))
        };
        let (alice, bob) = (token("alice"), token("bob"));
        assert_eq!(
            login("alice", "wrong").expect_status(403).json(),
            detail("Invalid credentials.")
        );
        assert_eq!(
            login("nobody", "wrong").expect_status(403).json(),
            detail("Invalid credentials.")
        );
        let shown = json!({"id": 1, "email": mail("alice"), "created_at": "*"});
        assert_like(&alice.get("/users/1").expect_status(200).json(), &shown, "user");
        let refused = nobody.get("/users/1");
        assert_eq!(refused.expect_status(401).json(), detail("Could not validate credentials."));
        assert_eq!(refused.header("www-authenticate"), "Bearer");
        let post = json!({"title": "One", "content": "text"});
        let full = json!({
            "title": "One", "content": "text", "published": true, "id": 1, "created_at": "*",
            "user_id": 1, "user": shown,
        });
        assert_like(&alice.post("/posts/", &post).expect_status(201).json(), &full, "post");
        bob.post("/posts/", &post).expect_status(201);
        nobody.post("/posts/", &post).expect_status(401);
        let list = bob.get("/posts/?limit=10");
        assert_eq!(list.expect_status(200).json().as_array().unwrap().len(), 2);
        assert_like(&list.json()[1], &json!({"Post": full, "votes": 0}), "list");
        assert_like(&bob.get("/posts/1").json(), &json!({"Post": full, "votes": 0}), "one");
        let missing = bob.get("/posts/999999").expect_status(404).json();
        assert_eq!(missing, detail("Post with id 999999 was not found."));
        alice.put("/posts/1", &post).expect_status(200);
        let refused = bob.put("/posts/1", &post).expect_status(403).json();
        assert_eq!(refused, detail("You do not have permissions to update others posts!"));
        let vote =
            |voted: bool, id: i64| bob.post("/vote/", &json!({"post_id": id, "voted": voted}));
        let added = json!({"message": "Successfully added vote."});
        assert_eq!(vote(true, 1).expect_status(201).json(), added);
        assert_eq!(
            vote(true, 1).expect_status(409).json(),
            detail("User 2 has already voted on 1!")
        );
        assert_eq!(bob.get("/posts/1/").json()["votes"], 1);
        let deleted = json!({"message": "Successfully deleted vote."});
        assert_eq!(vote(false, 1).expect_status(201).json(), deleted);
        assert_eq!(vote(false, 1).expect_status(404).json(), detail("Vote does not exist!"));
        let missing = vote(true, 999_999).expect_status(404).json();
        assert_eq!(missing, detail("Post with id 999999 does not exist."));
        let refused = bob.delete("/posts/1").expect_status(403).json();
        assert_eq!(refused, detail("You do not have permissions to delete others posts!"));
        alice.delete("/posts/1").expect_status(204);
        bob.delete("/posts/2").expect_status(204);
        // One label for both spellings, and no redirect.
        let line = server.access_line(list.request_id());
        assert_eq!((line.get("path"), line.get("route")), ("/posts/", "/posts"));
    });
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn every_other_row_of_the_table_holds() {
    database::each(|database| {
        let server = database.setup().start();
        let nobody = Person::nobody(&server);
        let (ann, bob) = (Person::of_blog(&server, "ann"), Person::of_blog(&server, "bob"));
        ann.post("/posts", &json!({"title": "100% Rust_y", "content": "x"})).expect_status(201);
        ann.post("/posts", &json!({"title": "draft", "content": "x", "published": false}))
            .expect_status(201);
        let count = |person: &Person, query: &str| {
            person
                .get(&format!("/posts{query}"))
                .expect_status(200)
                .json()
                .as_array()
                .unwrap()
                .len()
        };
        // Part of the title as it is written: no wildcards, and letters are what they are.
        for (query, found) in [
            ("?search=0%25%20R", 1),
            ("?search=rust", 0),
            ("?search=_", 1),
            ("?search=%25%25", 0),
            ("?search=", 2),
        ] {
            assert_eq!(count(&ann, query), found, "{query}");
        }
        assert_eq!((count(&ann, ""), count(&bob, "")), (2, 1), "a draft is its owner's");
        assert_eq!(
            (count(&ann, "?limit=1"), count(&ann, "?skip=1"), count(&ann, "?skip=9")),
            (1, 1, 0)
        );
        bob.get("/posts/2").expect_status(404);
        ann.get("/posts/2").expect_status(200);
        bob.post("/vote", &json!({"post_id": 2, "dir": 1})).expect_status(404);
        bob.put("/posts/2", &json!({"title": "t", "content": "c"})).expect_status(404);
        // Votes in the other spellings.
        bob.post("/vote", &json!({"post_id": 1, "dir": 1})).expect_status(201);
        bob.ask(&Method::DELETE, "/vote?post_id=1", None).expect_status(200);
        bob.post("/vote", &json!({"post_id": 1, "dir": 1, "voted": true})).expect_status(201);
        bob.ask(&Method::DELETE, "/vote", Some(&json!({"post_id": 1}))).expect_status(200);
        bob.ask(&Method::DELETE, "/vote", Some(&json!({"post_id": 1}))).expect_status(404);
        let finding = |kind: &str, field: &str, text: &str| json!({"type": kind, "loc": ["body", field], "msg": text});
        let rows = [
            (
                "/vote",
                json!({"post_id": 1}),
                json!([finding("value", "voted", "must be there, or dir")]),
            ),
            (
                "/vote",
                json!({"post_id": 1, "dir": 2}),
                json!([
                    finding("value", "dir", "must be at most 1"),
                    finding("value", "voted", "must be there, or dir")
                ]),
            ),
            (
                "/vote",
                json!({"post_id": 1, "dir": 0, "voted": true}),
                json!([finding("value", "dir", "contradicts voted")]),
            ),
            (
                "/vote",
                json!({"voted": true}),
                json!([finding("missing", "post_id", "can't be blank")]),
            ),
            (
                "/posts",
                json!({"title": "", "content": 7, "published": "yes"}),
                json!([
                    finding("value", "title", "can't be blank"),
                    finding("type", "content", "must be a string"),
                    finding("type", "published", "must be true or false")
                ]),
            ),
            (
                "/posts",
                json!({"title": "x".repeat(256), "content": "x".repeat(10_001)}),
                json!([
                    finding("value", "title", "is too long (maximum is 255 characters)"),
                    finding("value", "content", "is too long (maximum is 10000 characters)")
                ]),
            ),
        ];
        for (path, body, findings) in &rows {
            let answer = ann.post(path, body);
            assert_eq!(answer.expect_status(422).json(), json!({ "detail": findings }), "{body}");
        }
        for query in ["?limit=0", "?limit=-1", "?skip=-1", "?limit=x"] {
            ann.get(&format!("/posts{query}")).expect_status(422);
        }
        ann.get(&format!("/posts?search={}", "x".repeat(256))).expect_status(422);
        ann.ask(&Method::DELETE, "/vote", None).expect_status(422);
        assert_eq!(
            ann.get("/users/9").expect_status(404).json(),
            detail("User with id 9 does not exist!")
        );
        ann.get("/users/x").expect_status(422);
        for password in ["short1", "onlyletters", "1234567890", &"a1".repeat(65)] {
            let user = json!({"email": "new@example.com", "password": password});
            nobody.post("/users", &user).expect_status(422);
        }
        nobody.post("/login", &json!({"username": "x", "password": "y"})).expect_status(415);
        nobody.send(&Method::POST, "/login", None, "username=x&password=y").expect_status(415);
        let missing = nobody.post_form("/login", "username=x").expect_status(422).json();
        assert_eq!(missing, json!({"detail": [finding("missing", "password", "can't be blank")]}));
        let refused = nobody.ask(&Method::PATCH, "/posts", None);
        assert_eq!(refused.expect_status(405).json(), detail("Method Not Allowed"));
        assert_eq!(refused.header("allow"), "GET,HEAD,POST");
        assert_eq!(nobody.get("/posts/1/2").expect_status(404).json(), detail("Not Found"));
        // Gone with its owner's row: the token too.
        database.query("DELETE FROM blog_users WHERE id = 2");
        let refused = bob.get("/posts").expect_status(401).json();
        assert_eq!(refused, detail("Could not validate credentials."));
    });
}

#[test]
fn of_votes_at_once_one_counts() {
    database::each(|database| {
        let server = database.setup().start();
        let ann = Person::of_blog(&server, "ann");
        ann.post("/posts", &json!({"title": "t", "content": "c"})).expect_status(201);
        let vote = || ann.post("/vote", &json!({"post_id": 1, "dir": 1})).status;
        let mut statuses = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..6).map(|_| scope.spawn(vote)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        statuses.sort_unstable();
        assert_eq!(statuses, [201, 409, 409, 409, 409, 409]);
        assert_eq!(database.number("SELECT count(*) FROM blog_votes"), 1);
    });
}
