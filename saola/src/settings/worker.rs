//! The worker's part of the settings: limits, deadlines, and which traces are kept.

use std::num::NonZeroU32;
use std::time::Duration;

use http::HeaderValue;
use saola_worker::{AcceptMode, Config, HeaderMapping, Sampler};

use crate::settings::listening;
use crate::settings::mistake::Mistake;
use crate::settings::source::Environment;
use crate::settings::value::Values;

pub(crate) fn worker(
    values: &mut Values<'_>,
    env: &Environment,
    graceful_timeout: Duration,
) -> Config {
    let hour = Duration::from_hours(1);
    let request_timeout = values.time("request_timeout", Duration::from_hours(24));
    let keepalive_requests = values.number("keepalive_requests", 1, u32::MAX);
    let max_requests = values.number("max_requests", 0, u64::MAX);
    let max_requests_jitter = values.number("max_requests_jitter", 0, u64::MAX);
    if max_requests == 0 && max_requests_jitter > 0 {
        values.refuse("max_requests_jitter", "means nothing without max_requests");
    }
    let wide = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
    Config {
        accept: values.parsed("accept", "one of exclusive, tokio", AcceptMode::Exclusive, |text| {
            match text {
                "exclusive" => Some(AcceptMode::Exclusive),
                "tokio" => Some(AcceptMode::Tokio),
                _ => None,
            }
        }),
        worker_connections: values.number("worker_connections", 16, 1 << 20),
        limit_concurrency: values.number("limit_concurrency", 1, 1 << 20),
        limit_request_line: wide(values.size("limit_request_line", 64, 64 << 10)),
        limit_request_field_size: wide(values.size("limit_request_field_size", 64, 64 << 10)),
        limit_request_fields: values.number("limit_request_fields", 1, 1_000),
        limit_request_head: wide(values.size("limit_request_head", 1 << 10, 64 << 10)),
        limit_request_body: values.size("limit_request_body", 0, 1 << 40),
        header_map: header_map(values),
        proxy_allow_ips: listening::trusted(values, "proxy_allow_ips"),
        forwarded_allow_ips: listening::trusted(values, "forwarded_allow_ips"),
        tls: listening::tls(values),
        header_timeout: values.positive("header_timeout", hour),
        keepalive: values.positive("keepalive", hour),
        keepalive_requests: NonZeroU32::new(keepalive_requests).unwrap_or(NonZeroU32::MIN),
        body_timeout: values.positive("body_timeout", hour),
        body_min_rate: values.size("body_min_rate", 0, 1 << 30),
        write_timeout: values.positive("write_timeout", hour),
        request_timeout: Some(request_timeout).filter(|time| !time.is_zero()),
        graceful_timeout,
        max_requests,
        max_requests_jitter,
        blocking_threads: values.number("blocking_threads", 1, 512),
        http2: values.switch("http2"),
        http2_max_streams: values.number("http2_max_streams", 1, 10_000),
        server_header: server_header(values),
        sampler: sampler(values, env),
        trace_rate_limit: values.number("trace_rate_limit", 0, 1_000_000),
        profile_hz: values.number("profile_hz", 0, saola_observability::profile::MOST_HZ),
        slow_request: values.time("slow_request", hour),
        ..Config::default()
    }
}

fn header_map(values: &mut Values<'_>) -> HeaderMapping {
    let allowed = "one of drop, refuse, pass";
    values.parsed("header_map", allowed, HeaderMapping::Drop, |text| match text {
        "drop" => Some(HeaderMapping::Drop),
        "refuse" => Some(HeaderMapping::Refuse),
        "pass" => Some(HeaderMapping::Pass),
        _ => None,
    })
}

fn server_header(values: &mut Values<'_>) -> Option<HeaderValue> {
    values.parsed("server_header", "a header value of visible characters", None, |text| {
        if text.is_empty() { Some(None) } else { HeaderValue::from_str(text).ok().map(Some) }
    })
}

/// `OTEL_TRACES_SAMPLER` and its argument; a wrong one is a mistake, never "everything" in silence.
fn sampler(values: &mut Values<'_>, env: &Environment) -> Sampler {
    let (name, argument) = ("OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG");
    let text = env.text(name).unwrap_or_else(|| "parentbased_always_on".to_owned());
    let ratio_text = env.text(argument).unwrap_or_else(|| "1".to_owned());
    let ratio = ratio_text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    let (parent, root) = match text.strip_prefix("parentbased_") {
        Some(root) => (true, root),
        None => (false, text.as_str()),
    };
    let root = match (root, ratio) {
        ("always_on", _) => Sampler::AlwaysOn,
        ("always_off", _) => Sampler::AlwaysOff,
        ("traceidratio", Some(ratio)) => Sampler::TraceIdRatio(ratio),
        ("traceidratio", None) => {
            values.mistakes.push(Mistake::of_variable(
                argument,
                &ratio_text,
                "a number from 0 to 1",
            ));
            Sampler::AlwaysOff
        }
        _ => {
            let allowed =
                "always_on, always_off, traceidratio, or one of these behind parentbased_";
            values.mistakes.push(Mistake::of_variable(name, &text, allowed));
            Sampler::AlwaysOff
        }
    };
    if parent { Sampler::ParentBased(Box::new(root)) } else { root }
}
