//! What is secret stands in no line, span, profile, metric or answer, and not in the memory that workers leave.

use hyper::Request;

use crate::client;
use crate::collector::{Collector, Mode};
use crate::output::thread;
use crate::profile_server::{self, ProfileServer};
use crate::server::Server;
use crate::setup::Setup;
use crate::wait;

/// One for each place where a secret may stand.
const CANARIES: [&str; 10] = [
    "canary-query",
    "canary-authorization",
    "canary-proxy",
    "canary-cookie",
    "canary-header",
    "canary-body",
    "canary-otlp",
    "canary-pyroscope",
    "canary-value", // in a statement of the application
    "hunter2",      // the field `db_password` of a span of the application
];

#[test]
fn a_secret_is_nowhere() {
    let (collector, profiles) =
        (Collector::start(Mode::Answer), ProfileServer::start(profile_server::Mode::Take));
    let server = Setup::of_example("observed")
        .args(["--workers", "1", "--profile-hz", "250", "--log-level", "trace"])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint())
        .env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20canary-otlp")
        .env("OTEL_BSP_SCHEDULE_DELAY", "50")
        .env("PYROSCOPE_SERVER_ADDRESS", &profiles.url())
        .env("PYROSCOPE_BASIC_AUTH_USER", "user")
        .env("PYROSCOPE_BASIC_AUTH_PASSWORD", "canary-pyroscope")
        .env("PYROSCOPE_UPLOAD_INTERVAL", "1")
        .start();
    server.until_observed(1);
    ask_with_secrets(&server);
    let address = server.address();
    let running = thread(move || client::get(&address, "/heavy?ms=1500&token=canary-query").status);
    let mut places = Vec::new();
    wait::until("a request runs", || {
        let seen = server.admin_get("/debug/requests");
        places.push(("/debug/requests", seen.text().to_owned()));
        !seen.json()["requests"].as_array().unwrap().is_empty()
    });
    for path in ["/metrics", "/status", "/", "/debug/pprof/flamegraph?seconds=1"] {
        places.push((path, server.admin_get(path).expect_status(200).text().to_owned()));
    }
    places.extend(commands(&server));
    assert_eq!(running.join().unwrap(), 200);
    collector
        .until("spans have come", |spans| spans.iter().any(|got| got.span.name.contains("/order")));
    wait::until("profiles have come", || !profiles.pushes().is_empty());
    places.push(("slot files", memory(&server)));
    assert_eq!(server.stop(), 0);
    places.push(("stdout", server.stdout().lines().join("\n")));
    places.push(("stderr", server.stderr().lines().join("\n")));
    places.push(("spans", format!("{:?}", collector.spans())));
    // The head of a push carries the password, to the one it is for.
    let pushed =
        profiles.pushes().into_iter().map(|push| format!("{:?}{:?}", push.labels, push.profile));
    places.push(("profiles", pushed.collect()));
    for (place, text) in &places {
        assert!(!text.is_empty() || *place == "stderr", "{place} says something");
        for canary in CANARIES {
            assert!(!text.contains(canary), "{canary} stands in {place}");
        }
    }
    let told = |text: &str| places.iter().any(|(_, place)| place.contains(text));
    assert!(told("db_password") && told("***"), "the field is there, and what it says is not");
    assert!(told("SELECT price FROM items WHERE buyer = ?"), "so is the statement");
}

#[test]
fn settings_that_are_secret_are_not_printed() {
    let check = Setup::new()
        .bare()
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://me:canary-url@localhost:4317")
        .env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=canary-header")
        .env("PYROSCOPE_SERVER_ADDRESS", "http://me:canary-url@localhost:4040")
        .env("PYROSCOPE_BASIC_AUTH_PASSWORD", "canary-password");
    let ended = check.args(["check", "--print"]).run();
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(
        !ended.stdout.contains("canary") && !ended.stderr.contains("canary"),
        "{}",
        ended.stdout
    );
}

/// Sends all that a client may keep to itself.
fn ask_with_secrets(server: &Server) {
    for path in ["/order", "/heavy?ms=300&token=canary-query", "/panic", "/nope"] {
        let path = format!(
            "{path}{}q=canary-query#canary-query",
            if path.contains('?') { '&' } else { '?' }
        );
        let request = Request::get(path)
            .header("authorization", "Bearer canary-authorization")
            .header("proxy-authorization", "Basic canary-proxy")
            .header("cookie", "session=canary-cookie")
            .header("x-api-key", "canary-header")
            .body("canary-body")
            .unwrap();
        server.send(request);
    }
}

/// What the commands say that read a server's memory.
fn commands(server: &Server) -> Vec<(&'static str, String)> {
    let all: [&'static [&'static str]; 5] = [
        &["top", "--once"],
        &["top", "--json"],
        &["log", "--no-follow"],
        &["log", "--no-follow", "--log-format", "json"],
        &["log", "--no-follow", "--group", "trace"],
    ];
    let run = |args: &'static [&'static str]| {
        let command = Setup::of_example("observed").in_folder_of(server);
        let ended = command.args(args.iter().copied()).run();
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        (args[0], ended.stdout)
    };
    all.map(run).into()
}

/// Every byte of the slot files.
fn memory(server: &Server) -> String {
    let files = server.files().into_iter().filter(|path| path.is_file());
    let bytes = files.flat_map(|path| std::fs::read(path).unwrap_or_default());
    String::from_utf8_lossy(&bytes.collect::<Vec<_>>()).into_owned()
}
