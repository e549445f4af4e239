//! The API document, its page, and pages of other sites.

use hyper::{Method, Request};
use serde_json::Value;

use crate::app::database::Database;
use crate::app::person::Person;

#[test]
fn the_document_lists_the_routes_and_their_methods() {
    let database = Database::sqlite();
    let server = database.setup().start();
    let nobody = Person::nobody(&server);
    let document = nobody.get("/openapi.json").expect_status(200).json();
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() >= 26, "{:?}", paths.keys());
    for (path, operations) in paths {
        // A route is known by the methods that it says it has.
        let concrete = path.replace("{id}", "1").replace("{slug}", "x").replace("{username}", "x");
        let concrete = concrete.replace("{key}", "x").replace("{item_id}", "1");
        let methods = [Method::PATCH, Method::POST, Method::PUT];
        let mut other = methods.into_iter();
        let other = other.find(|method| operations.get(method.as_str().to_lowercase()).is_none());
        let answer = nobody.ask(&other.unwrap(), &concrete, None);
        let mut allowed: Vec<_> =
            answer.expect_status(405).header("allow").split(',').map(str::to_lowercase).collect();
        allowed.retain(|method| method != "head");
        allowed.sort();
        let mut written: Vec<_> = operations.as_object().unwrap().keys().cloned().collect();
        written.sort();
        assert_eq!(written, allowed, "{path}");
        for (method, operation) in operations.as_object().unwrap() {
            assert!(operation["summary"].is_string(), "{method} {path} says what it does");
            assert!(
                operation["responses"].as_object().is_some_and(|all| !all.is_empty()),
                "{path}"
            );
        }
    }
    for reference in references(&document) {
        let place = reference.trim_start_matches('#');
        assert!(document.pointer(place).is_some(), "{reference} leads nowhere");
    }
}

fn references(value: &Value) -> Vec<String> {
    match value {
        Value::Object(fields) => {
            let own = fields.get("$ref").and_then(Value::as_str).map(ToOwned::to_owned);
            own.into_iter().chain(fields.values().flat_map(references)).collect()
        }
        Value::Array(items) => items.iter().flat_map(references).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn the_page_needs_nothing_from_anywhere_else() {
    let database = Database::sqlite();
    let server = database.setup().start();
    let nobody = Person::nobody(&server);
    for (path, status, to) in
        [("/docs", 303, "/docs/"), ("/redoc", 307, "/docs/"), ("/scalar", 307, "/docs/")]
    {
        assert_eq!(nobody.get(path).expect_status(status).header("location"), to, "{path}");
    }
    let page = nobody.get("/docs/");
    let text = page.expect_status(200).text();
    let is_file = |part: &&str| {
        let extension = std::path::Path::new(part).extension().and_then(std::ffi::OsStr::to_str);
        matches!(extension, Some("js" | "css" | "png"))
    };
    let links: Vec<_> = text.split(['"', '\'']).filter(is_file).collect();
    assert!(links.len() >= 4, "{text}");
    for link in links {
        assert!(!link.contains("//"), "{link} is somewhere else");
        nobody.get(&format!("/docs/{}", link.trim_start_matches("./"))).expect_status(200);
    }
    let start = nobody.get("/docs/swagger-initializer.js").expect_status(200).text().to_owned();
    assert!(start.contains("/openapi.json") && !start.contains("https://"), "{start}");
}

#[test]
fn pages_of_other_sites_read_what_they_may() {
    let database = Database::sqlite();
    let ask = |origins: &str, method: &str, origin: &'static str| {
        let server = database.setup().env("ALLOWED_ORIGINS", origins).start();
        let request =
            Request::builder().method(method).uri("/api/nothing").header("origin", origin);
        let request = request.header("access-control-request-method", "PUT");
        server.send(request.body("").unwrap())
    };
    let header = |answer: &crate::client::Answer, name: &str| {
        answer.header(&format!("access-control-{name}")).to_owned()
    };
    let named = "https://a.example, http://b.example:8080";
    let allowed = ask(named, "GET", "http://b.example:8080");
    // A refusal can be read too.
    assert_eq!(allowed.expect_status(404).header("x-content-type-options"), "nosniff");
    assert_eq!(header(&allowed, "allow-origin"), "http://b.example:8080");
    assert!(allowed.header("vary").to_lowercase().contains("origin"));
    assert_eq!(header(&allowed, "allow-credentials"), "");
    assert_eq!(header(&allowed, "expose-headers"), "x-request-id,retry-after,idempotent-replayed");
    let asked = ask(named, "OPTIONS", "https://a.example");
    assert_eq!(header(asked.expect_status(200), "allow-methods"), "GET,POST,PUT,PATCH,DELETE");
    assert_eq!(header(&asked, "max-age"), "600");
    assert_eq!(
        header(&asked, "allow-headers"),
        "authorization,content-type,idempotency-key,x-request-id,traceparent"
    );
    assert_eq!(header(&ask(named, "GET", "https://c.example"), "allow-origin"), "");
    assert_eq!(header(&ask("*", "GET", "https://c.example"), "allow-origin"), "*");
    assert_eq!(header(&ask("", "GET", "https://a.example"), "allow-origin"), "");
}
