//! Profiles: at the profile server, with the ids of the requests they were taken of, and on the admin listener.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hyper::Request;

use crate::certificates::Authority;
use crate::client;
use crate::collector::{self, Collector};
use crate::load::{Connections, Load};
use crate::profile_server::{Mode, ProfileServer, Sample, decoded, samples};
use crate::server::Server;
use crate::setup::Setup;
use crate::supervision_load::is_long;
use crate::wait;

/// An application that burns CPU where it is told, profiled at the highest rate.
fn observed() -> Setup {
    Setup::of_example("observed").args(["--workers", "1", "--profile-hz", "250"])
}

fn pushing(profiles: &ProfileServer) -> Setup {
    observed()
        .env("PYROSCOPE_SERVER_ADDRESS", &profiles.url())
        .env("PYROSCOPE_UPLOAD_INTERVAL", "1")
}

/// Whether a sample was taken in the function of that name.
fn is_in(sample: &Sample, function: &str) -> bool {
    sample.functions.iter().any(|name| name.ends_with(function))
}

/// Burns CPU on the server until the test is over.
fn heavy_load(server: &Server) -> Load {
    Load::start(&server.address(), 1, Connections::Kept, "/heavy?ms=50")
}

#[test]
fn a_span_and_the_profile_of_its_request_point_at_each_other() {
    let (collector, profiles) =
        (Collector::start(collector::Mode::Answer), ProfileServer::start(Mode::Take));
    let server = pushing(&profiles)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint())
        .env("OTEL_BSP_SCHEDULE_DELAY", "50")
        .start();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let request = Request::get("/heavy?ms=400").header("traceparent", parent);
    let answer = server.send(request.body("").unwrap());
    let lights: Vec<_> = (0..20).map(|_| server.get("/light")).collect();
    let span = collector.span_of(answer.request_id());
    assert_eq!(span.get("pyroscope.profile.id"), span.span_id());
    let of_span = |sample: &Sample| sample.labels.get("span_id") == Some(&span.span_id());
    profiles.until_sample("its samples are at the server", of_span);
    assert_eq!(server.stop(), 0);
    // A link that is there leads somewhere, and what was sampled has one; the light ones hardly ever are.
    let sampled: BTreeSet<_> = profiles
        .samples()
        .iter()
        .filter_map(|sample| sample.labels.get("span_id").cloned())
        .collect();
    for light in &lights {
        let span = collector.span_of(light.request_id());
        let is_linked = span.get("pyroscope.profile.id") == span.span_id();
        assert_eq!(is_linked, sampled.contains(&span.span_id()), "{span:?}");
    }
    assert!(sampled.len() < lights.len());
    let of_span: Vec<_> = profiles.samples().into_iter().filter(of_span).collect();
    for sample in &of_span {
        assert_eq!(sample.labels["trace_id"], trace);
        assert_eq!(sample.labels["span_name"], "/heavy");
        assert_eq!(sample.labels["worker"], "0");
        assert!(!is_in(sample, "burn_lightly"), "{sample:?}");
    }
    let value = |samples: &[Sample]| samples.iter().map(|sample| sample.value).sum::<i64>();
    let busy: Vec<_> =
        of_span.iter().filter(|sample| is_in(sample, "burn_heavily")).cloned().collect();
    assert!(value(&busy) * 10 > value(&of_span) * 9, "the handler is where the time went");
}

#[test]
fn no_sample_of_32_requests_at_once_has_the_span_of_another() {
    const WORK: [(&str, &str, &str); 3] = [
        ("/heavy", "/heavy?ms=20", "burn_heavily"),
        ("/steady", "/steady?ms=20", "burn_steadily"),
        ("/pooled", "/pooled?ms=20", "burn_in_pool"),
    ];
    let wanted = if is_long() { 1_000 } else { 150 };
    // Only requests whose traces are kept are named.
    let (collector, profiles) =
        (Collector::start(collector::Mode::Answer), ProfileServer::start(Mode::Take));
    let server = pushing(&profiles)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint())
        .args(["--trace-rate-limit", "0"])
        .start();
    let loads: Vec<_> = WORK
        .iter()
        .zip([11, 11, 10])
        .map(|((_, path, _), clients)| {
            Load::start(&server.address(), clients, Connections::Kept, path)
        })
        .collect();
    let done_by = |sample: &Sample| {
        WORK.iter().find(|(_, _, function)| is_in(sample, function)).map(|(route, ..)| *route)
    };
    let mut seen = BTreeMap::new();
    wait::until_within(Duration::from_mins(1), "enough samples in each handler", || {
        seen.clear();
        for sample in profiles.samples() {
            let (Some(route), Some(span)) = (done_by(&sample), sample.labels.get("span_name"))
            else {
                continue;
            };
            assert_eq!(span, route, "{sample:?}");
            // One each 4 ms.
            *seen.entry(route).or_insert(0) += sample.value / 4_000_000;
        }
        seen.len() == WORK.len() && seen.values().sum::<i64>() >= wanted
    });
    println!("samples with the right span: {seen:?}");
    for load in loads {
        load.stop().expect_no_loss();
    }
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_push_is_what_a_profile_server_understands() {
    let profiles = ProfileServer::start(Mode::Take);
    let server = pushing(&profiles)
        .env("OTEL_SERVICE_NAME", "shop")
        .env("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        .env("PYROSCOPE_TENANT_ID", "seven")
        .start();
    let load = heavy_load(&server);
    let in_handler = profiles
        .until_sample("the handler is at the server", |sample| is_in(sample, "burn_heavily"));
    assert!(in_handler.value >= 4_000_000 && in_handler.value % 4_000_000 == 0);
    server.until("both are counted", |metrics| {
        metrics.value("saola_profile_pushes_total", &[("result", "ok")]) > 0
            && metrics.sum("saola_profile_samples_total") > 0
    });
    load.stop().expect_no_loss();
    assert_eq!(server.stop(), 0);
    let pushes = profiles.pushes();
    let first = &pushes[0];
    assert!(first.head.starts_with("POST /push.v1.PusherService/Push "), "{}", first.head);
    assert!(first.head.to_ascii_lowercase().contains("x-scope-orgid: seven"), "{}", first.head);
    let label = |name: &str| first.labels.get(name).map_or("", String::as_str);
    assert_eq!(
        (label("__name__"), label("service_name"), label("deployment_environment_name")),
        ("process_cpu", "shop", "test")
    );
    let text = |number: i64| &first.profile.string_table[usize::try_from(number).unwrap()];
    let kind = first.profile.sample_type[0];
    assert_eq!((text(kind.r#type).as_str(), text(kind.unit).as_str()), ("cpu", "nanoseconds"));
    assert_eq!(first.profile.period, 4_000_000);
}

#[test]
fn a_profile_server_that_refuses_or_hangs_costs_profiles_and_nothing_else() {
    for mode in [Mode::Refuse, Mode::Hang] {
        let profiles = ProfileServer::start(mode);
        let server = pushing(&profiles).start();
        let load = heavy_load(&server);
        server
            .until("samples are taken", |metrics| metrics.sum("saola_profile_samples_total") > 200);
        if mode == Mode::Refuse {
            server.until("it is counted", |metrics| {
                metrics.value("saola_profile_pushes_total", &[("result", "failed")]) > 0
                    && metrics
                        .value("saola_profile_samples_dropped_total", &[("reason", "push_failed")])
                        > 0
            });
            server.until_line("it is told", |line| line.is("profile push failed"));
        }
        load.stop().expect_no_loss();
        // The last push is under way to a server that says nothing: nobody waits for it for long.
        assert_eq!(server.stop(), 0);
        assert!(profiles.pushes().is_empty());
    }
}

#[test]
fn go_tool_pprof_and_browsers_get_what_they_ask_for() {
    let server = observed().start();
    let load = heavy_load(&server);
    let admin = server.admin();
    let profile = client::get(&admin, "/debug/pprof/profile?seconds=1");
    profile.expect_status(200);
    assert_eq!(profile.header("content-type"), "application/octet-stream");
    assert!(profile.header("content-disposition").starts_with("attachment"));
    let profile = decoded(profile.bytes());
    assert!(samples(&profile).iter().any(|sample| is_in(sample, "burn_heavily")));
    let graph = client::get(&admin, "/debug/pprof/flamegraph?seconds=1");
    graph.expect_status(200);
    assert_eq!(graph.header("content-type"), "image/svg+xml");
    assert!(graph.header("content-security-policy").starts_with("default-src 'none'"));
    assert!(graph.text().contains("<svg") && graph.text().contains("burn_heavily"));
    let stacks = client::get(&admin, "/debug/pprof/profile?seconds=1&format=collapsed&worker=0");
    let stacks = stacks.expect_status(200).text();
    let hottest = stacks.lines().max_by_key(|line| {
        line.rsplit_once(' ').and_then(|(_, weight)| weight.parse::<u64>().ok())
    });
    assert!(hottest.is_some_and(|line| line.contains("burn_heavily")), "{stacks}");
    client::get(&admin, "/debug/pprof/").expect_status(200);
    load.stop().expect_no_loss();
}

#[test]
fn a_profile_that_cannot_be_made_says_why() {
    let server = observed().start();
    let admin = server.admin();
    for query in [
        "seconds=0",
        "seconds=-1",
        "seconds=abc",
        "seconds=301",
        "format=png",
        "seconds=1&seconds=2",
    ] {
        let answer = client::get(&admin, &format!("/debug/pprof/profile?{query}"));
        answer.expect_status(400);
    }
    assert_eq!(
        client::get(&admin, "/debug/pprof/profile?seconds=0").text(),
        "seconds must be 1 to 300\n"
    );
    assert_eq!(
        client::get(&admin, "/debug/pprof/profile?worker=9").expect_status(404).text(),
        "no worker 9\n"
    );
    client::get(&admin, "/debug/pprof/heap").expect_status(501);
    client::get(&admin, "/debug/pprof/nothing").expect_status(404);
    server.get("/debug/pprof/").expect_status(404);
    // Two at once; on a busy machine they may come one behind the other, and then both are served.
    let refused = wait::until_some("one of two is refused", || {
        let ask = || client::get(&admin, "/debug/pprof/profile?seconds=1&format=collapsed");
        let both = std::thread::scope(|scope| {
            let other = scope.spawn(ask);
            [ask(), other.join().unwrap()]
        });
        assert!(both.iter().any(|answer| answer.status == 200));
        both.into_iter().find(|answer| answer.status == 503)
    });
    assert_eq!(refused.text(), "a profile is running\n");
    assert!((1..=2).contains(&refused.header("retry-after").parse::<u64>().unwrap()));
    let off = Setup::of_example("observed").args(["--profile-hz", "0"]).start();
    let answer = client::get(&off.admin(), "/debug/pprof/profile?seconds=1");
    assert!(answer.expect_status(501).text().contains("--profile-hz"));
}

#[test]
fn a_push_over_tls_reaches_whom_the_system_trusts_and_nobody_else() {
    let authority = Authority::new();
    let (trusted, stranger) =
        (ProfileServer::start_secure(&authority), ProfileServer::start_secure(&Authority::new()));
    for (profiles, is_taken) in [(&trusted, true), (&stranger, false)] {
        let server = pushing(profiles).env("SSL_CERT_FILE", &authority.file()).start();
        let result = if is_taken { "ok" } else { "failed" };
        server.until("a push has met its fate", |metrics| {
            metrics.value("saola_profile_pushes_total", &[("result", result)]) > 0
        });
        assert_eq!(profiles.pushes().is_empty(), !is_taken);
    }
}

#[test]
fn a_stripped_program_says_that_its_profiles_will_be_poor_and_another_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("observed");
    let whole = Setup::example("observed");
    let mut strip = std::process::Command::new("strip");
    match strip.arg("-o").arg(&program).arg(&whole).status() {
        Ok(status) => assert!(status.success()),
        Err(error) => {
            eprintln!("not tried: no strip here: {error}");
            return;
        }
    }
    let server = Setup::new().program(&program).args(["--workers", "1"]).start();
    let line = server.until_line("it says so", |line| line.is("profiles will be poor"));
    assert_eq!((line.get("level"), line.get("reason")), ("warn", "stripped"));
    server.get("/light").expect_status(200);
    let server = observed().start();
    heavy_load(&server).until_more(20);
    assert_eq!(server.stop(), 0);
    assert!(server.lines_of("profiles will be poor").is_empty());
}

#[test]
fn a_system_without_any_authority_is_told_why_no_profile_is_pushed() {
    let profiles = ProfileServer::start(Mode::Take);
    let nothing = tempfile::NamedTempFile::new().unwrap();
    let file = nothing.path().to_str().unwrap();
    let server =
        pushing(&profiles).env("SSL_CERT_FILE", file).env("SSL_CERT_DIR", "/nowhere").start();
    let line = server.until_line("it says so", |line| line.is("profile push is off"));
    assert!(line.get("error").contains("SSL_CERT_FILE"), "{}", line.text);
    server.get("/light").expect_status(200);
}
