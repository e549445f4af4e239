//! Who may do what: each object's routes by each kind of caller, and fields that nobody may set.

use hyper::Method;
use serde_json::json;

use crate::app::database;
use crate::app::person::Person;

#[test]
fn each_object_lets_in_whom_it_should_and_nobody_else() {
    database::each(|database| {
        let server = database.setup().start();
        let nobody = Person::nobody(&server);
        let (ann, bob) = (Person::of_conduit(&server, "ann"), Person::of_conduit(&server, "bob"));
        let (eve, joe) = (Person::of_blog(&server, "eve"), Person::of_blog(&server, "joe"));
        let article = json!({"article": {"title": "t", "description": "d", "body": "b"}});
        let comment = json!({"comment": {"body": "c"}});
        let post = json!({"title": "t", "content": "c"});
        let draft = json!({"title": "t", "content": "c", "published": false});
        let written = ann.post("/api/articles", &article).expect_status(201).json();
        let slug = written["article"]["slug"].as_str().unwrap();
        let path = format!("/api/articles/{slug}");
        ann.post(&format!("{path}/comments"), &comment).expect_status(201);
        eve.post("/posts", &post).expect_status(201);
        eve.post("/posts", &draft).expect_status(201);
        let (delete, get, put) = (Method::DELETE, Method::GET, Method::PUT);
        // Nobody, another user, the owner; what takes away comes last.
        let conduit = [
            (&get, path.clone(), None, [200, 200, 200]),
            (&get, format!("{path}/comments"), None, [200, 200, 200]),
            (&put, path.clone(), Some(&article), [401, 403, 200]),
            (&Method::POST, format!("{path}/favorite"), None, [401, 200, 200]),
            (&delete, format!("{path}/favorite"), None, [401, 200, 200]),
            (&Method::POST, format!("{path}/comments"), Some(&comment), [401, 201, 201]),
            (&delete, format!("{path}/comments/1"), None, [401, 403, 204]),
            (&delete, path.clone(), None, [401, 403, 204]),
        ];
        for (method, path, body, statuses) in conduit {
            for (person, status) in [&nobody, &bob, &ann].into_iter().zip(statuses) {
                let answer = person.ask(method, &path, body);
                assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
            }
        }
        let blog = [
            (&get, "/users/1", None, [401, 200, 200]),
            (&get, "/posts/1", None, [401, 200, 200]),
            (&get, "/posts/2", None, [401, 404, 200]),
            (&put, "/posts/1", Some(&post), [401, 403, 200]),
            (&put, "/posts/2", Some(&draft), [401, 404, 200]),
            (&delete, "/posts/2", None, [401, 404, 204]),
            (&delete, "/posts/1", None, [401, 403, 204]),
        ];
        for (method, path, body, statuses) in blog {
            for (person, status) in [&nobody, &joe, &eve].into_iter().zip(statuses) {
                let answer = person.ask(method, path, body);
                assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
            }
        }
    });
}

#[test]
fn fields_that_are_not_theirs_change_nothing() {
    database::each(|database| {
        let server = database.setup().start();
        let (ann, bob) = (Person::of_conduit(&server, "ann"), Person::of_conduit(&server, "bob"));
        let rows = |sql: &str| database.query(sql);
        let users = rows(
            "SELECT id, email, username, token_version, created_at FROM conduit_users ORDER BY id",
        );
        let change = json!({"user": {
            "id": 2, "token": "x", "token_version": 9, "password_hash": "x", "email_key": "x", "created_at": 0,
        }});
        ann.put("/api/user", &change).expect_status(200);
        assert_eq!(
            rows(
                "SELECT id, email, username, token_version, created_at FROM conduit_users ORDER BY id"
            ),
            users
        );
        let article = json!({"article": {
            "title": "t", "description": "d", "body": "b", "id": 77, "slug": "mine", "author_id": 2,
            "author": {"username": "bob"}, "favoritesCount": 9, "favorited": true, "createdAt": "1970-01-01T00:00:00Z",
        }});
        let written = ann.post("/api/articles", &article).expect_status(201).json();
        assert_eq!(written["article"]["author"]["username"], "ann");
        assert_eq!(written["article"]["favoritesCount"], 0);
        assert_eq!(rows("SELECT id, author_id FROM conduit_articles"), "1|1");
        let path = format!("/api/articles/{}", written["article"]["slug"].as_str().unwrap());
        let comment = json!({"comment": {"body": "c", "id": 50, "author_id": 1, "article_id": 9}});
        bob.post(&format!("{path}/comments"), &comment).expect_status(201);
        assert_eq!(rows("SELECT id, article_id, author_id FROM conduit_comments"), "1|1|2");
        let eve = Person::of_blog(&server, "eve");
        let post = json!({"title": "t", "content": "c", "id": 5, "user_id": 9, "created_at": 0, "votes": 3});
        eve.post("/posts", &post).expect_status(201);
        assert_eq!(rows("SELECT id, user_id FROM blog_posts"), "1|1");
    });
}
