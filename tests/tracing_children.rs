//! Spans and errors inside a handler: they hang under the request's span, and go where it goes.

use nix::sys::signal::{Signal, kill};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;

use crate::collector::{Collector, Got, Mode};
use crate::server::Server;
use crate::setup::Setup;

fn observed(collector: &Collector) -> Setup {
    Setup::of_example("observed")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint())
        .env("OTEL_BSP_SCHEDULE_DELAY", "50")
}

/// The span of a name, once the server has stopped and everything is out.
fn named(spans: &[Got], name: &str) -> Got {
    let found = spans.iter().find(|got| got.span.name == name);
    found.unwrap_or_else(|| panic!("no span {name} in {:?}", names(spans))).clone()
}

fn names(spans: &[Got]) -> Vec<&str> {
    spans.iter().map(|got| got.span.name.as_str()).collect()
}

fn stopped(server: &Server, collector: &Collector) -> Vec<Got> {
    assert_eq!(server.stop(), 0);
    collector.spans()
}

#[test]
fn spans_of_a_handler_hang_under_the_span_of_its_request() {
    let collector = Collector::start(Mode::Answer);
    let server = observed(&collector).start();
    let called = server.get("/order").expect_status(200).text().to_owned();
    let spans = stopped(&server, &collector);
    assert_eq!(spans.len(), 4, "{:?}", names(&spans));
    let root = named(&spans, "GET /order");
    let order = named(&spans, "price the order");
    let lookup = named(&spans, "SELECT items");
    let hash = named(&spans, "hash");
    assert_eq!(order.parent_id(), root.span_id());
    assert_eq!(lookup.parent_id(), order.span_id());
    assert_eq!(hash.parent_id(), order.span_id(), "also from the blocking pool");
    assert!(spans.iter().all(|got| got.trace_id() == root.trace_id()));
    assert_eq!(called, format!("00-{}-{}-01", root.trace_id(), lookup.span_id()));
    assert_eq!(lookup.span.kind, i32::from(SpanKind::Client));
    assert_eq!(order.span.kind, i32::from(SpanKind::Internal));
    let status = lookup.span.status.clone().unwrap_or_default();
    assert_eq!(status.code, i32::from(StatusCode::Error));
    assert_eq!(status.message, "no such item");
    assert_eq!(lookup.get("db.system.name"), "sqlite");
    assert_eq!((order.get("item"), order.get("parts")), ("7", "3"));
    assert_eq!(order.get("db_password"), "***");
    let times = |got: &Got| got.span.start_time_unix_nano..=got.span.end_time_unix_nano;
    assert!(times(&order).contains(&lookup.span.start_time_unix_nano));
}

#[test]
fn an_error_in_a_handler_is_an_event_of_its_span_and_a_line_with_its_ids() {
    let collector = Collector::start(Mode::Answer);
    let server = observed(&collector).start();
    server.get("/order").expect_status(200);
    server.get("/panic").expect_status(500);
    let line = server.until_line("it is told", |line| line.get("msg") == "out of stock");
    let spans = stopped(&server, &collector);
    let root = named(&spans, "GET /order");
    assert_eq!((line.get("trace_id"), line.get("span_id")), (&*root.trace_id(), &*root.span_id()));
    let [event] = root.span.events.as_slice() else { panic!("{:?}", root.span.events) };
    assert_eq!(event.name, "out of stock");
    let panicked = named(&spans, "GET /panic");
    let [event] = panicked.span.events.as_slice() else { panic!("{:?}", panicked.span.events) };
    assert_eq!(event.name, "exception");
    let told = format!("{:?}", event.attributes);
    assert!(told.contains("out of paper") && told.contains("exception.message"), "{told}");
    assert_eq!(named(&spans, "panics").parent_id(), panicked.span_id());
}

#[test]
fn children_follow_their_request_whether_it_is_kept_or_not() {
    let collector = Collector::start(Mode::Answer);
    let server = observed(&collector).env("OTEL_TRACES_SAMPLER", "always_off").start();
    server.get("/order").expect_status(200);
    server.get("/panic").expect_status(500);
    let spans = stopped(&server, &collector);
    assert_eq!(names(&spans), ["GET /panic", "panics"], "only what failed is kept");
}

#[test]
fn a_child_that_ends_after_its_request_goes_out_all_the_same() {
    let collector = Collector::start(Mode::Answer);
    let server = observed(&collector).start();
    server.get("/detached").expect_status(200);
    collector.until("the late one is there", |spans| names(spans).contains(&"afterwards"));
    let spans = stopped(&server, &collector);
    let late = named(&spans, "afterwards");
    assert_eq!(late.parent_id(), named(&spans, "GET /detached").span_id());
}

#[test]
fn a_request_with_too_many_children_says_how_many_are_missing() {
    let collector = Collector::start(Mode::Answer);
    let server = observed(&collector).start();
    server.get("/many").expect_status(200);
    server.until("the others are counted", |metrics| {
        metrics.value("saola_spans_dropped_total", &[("reason", "children")]) == 12
    });
    let spans = stopped(&server, &collector);
    assert_eq!(spans.len(), 129);
    let root = named(&spans, "GET /many");
    assert_eq!(root.span.events[0].name, "dropped children");
}

#[test]
fn a_killed_observer_takes_no_child_with_it() {
    let collector = Collector::start(Mode::Hang);
    let server = observed(&collector).args(["--workers", "1"]).start();
    server.get("/order").expect_status(200);
    server.until_true("an export hangs", || collector.calls() > 0);
    kill(server.until_whole(1).observer.unwrap(), Signal::SIGKILL).unwrap();
    collector.set(Mode::Answer);
    let wanted = ["GET /order", "price the order", "SELECT items", "hash"];
    collector.until("all come out of the next one", |spans| {
        wanted.iter().all(|name| names(spans).contains(name))
    });
    server.stop_at_once();
}
