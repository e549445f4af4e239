//! What each path answers.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_LENGTH};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::Full;
use saola_observability::closed::{Role, SlotState};
use saola_observability::reader::Reader as Slots;
use saola_observability::{InFlightEntry, RingName, clock};
use serde_json::{Value, json};

use super::{Admin, Answer, body_of, query, text};
use crate::lost::LostSpans;
use crate::otlp::Traces;
use crate::reader::Lag;
use crate::status::{Status, seconds};

impl Admin {
    pub(super) fn metrics(&self, method: &Method, headers: &HeaderMap) -> Answer {
        let header = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let made = self.scraper.answer(method.as_str(), header(ACCEPT), header(ACCEPT_ENCODING));
        let mut answer = Answer::new(Full::new(Bytes::from_owner(made.body)));
        *answer.status_mut() =
            StatusCode::from_u16(made.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        for (name, value) in made.headers {
            answer.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(made.length));
        answer
    }

    pub(super) fn health(&self) -> Answer {
        let mut reader = self.reader.borrow_mut();
        let now = clock::monotonic_ns();
        let is_alive = reader.rings.slots().iter().any(|slot| {
            let age = now.saturating_sub(slot.seen().heartbeat_ns);
            slot.role() == Role::Supervisor && Duration::from_nanos(age) <= SILENT
        });
        if is_alive {
            text(StatusCode::OK, "ok\n")
        } else {
            text(StatusCode::SERVICE_UNAVAILABLE, "supervisor gone\n")
        }
    }

    pub(super) fn ready(&self) -> Answer {
        let mut reader = self.reader.borrow_mut();
        let workers = reader.rings.slots().iter().filter(|slot| slot.role() == Role::Worker);
        let states: Vec<_> =
            workers.filter(|slot| slot.is_live()).map(|slot| slot.seen().state).collect();
        let word = [
            (SlotState::Ready, "ready\n"),
            (SlotState::Starting, "starting\n"),
            (SlotState::Draining, "stopping\n"),
        ];
        let word = word.into_iter().find(|(state, _)| states.contains(state));
        match word {
            Some((SlotState::Ready, word)) => text(StatusCode::OK, word),
            Some((_, word)) => text(StatusCode::SERVICE_UNAVAILABLE, word),
            None => text(StatusCode::SERVICE_UNAVAILABLE, "no_workers\n"),
        }
    }

    pub(super) fn status(&self) -> Answer {
        let mut slots = self.slots.borrow_mut();
        let status = match &mut *slots {
            Some(slots) => Status::read(slots, &self.service),
            none => Slots::open(&self.run_dir)
                .and_then(|slots| Status::read(none.insert(slots), &self.service)),
        };
        let status = match status {
            Ok(status) => status,
            Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        };
        let mut document = status.json();
        document.insert("version".to_owned(), Value::from(self.version.as_str()));
        document.insert("observer".to_owned(), self.own_status());
        json_of(&Value::Object(document))
    }

    /// What only the observer knows.
    fn own_status(&self) -> Value {
        let reader = self.reader.borrow();
        let lags = reader.rings.lags();
        let sum = |of: fn(&Lag) -> u64| lags.iter().map(of).sum::<u64>();
        let rings: Vec<_> = lags.iter().map(ring).collect();
        let traces = reader.traces.as_ref().map(traces);
        let pushes = self.pushes.as_ref().map(|pushes| {
            json!({
                "last_push_unix_seconds": pushes.last_push_ns().map(seconds),
                "last_error": pushes.last_error(),
            })
        });
        json!({
            "pid": std::process::id(),
            "lag_bytes": { "log": sum(|lag| lag.log), "otlp": sum(|lag| lag.otlp) },
            "rings": rings,
            "lines_written": reader.lines.written(),
            "lines_dropped": reader.lines.lost(),
            "rings_damaged": reader.rings.damaged(),
            "traces": traces,
            "profiles": pushes,
        })
    }

    pub(super) fn requests(&self, query: &str) -> Answer {
        let wanted = match Wanted::parse(query) {
            Ok(wanted) => wanted,
            Err(reason) => return text(StatusCode::BAD_REQUEST, reason),
        };
        let now = clock::monotonic_ns();
        let mut reader = self.reader.borrow_mut();
        let slots = reader.rings.slots().iter_mut();
        let mut found: Vec<(u32, InFlightEntry)> = slots
            .filter(|slot| slot.role() == Role::Worker && slot.is_live())
            .flat_map(|slot| {
                let number = slot.number();
                slot.in_flight().into_iter().map(move |entry| (number, entry))
            })
            .filter(|(_, entry)| wanted.has(entry, now))
            .collect();
        found.sort_by_key(|(_, entry)| entry.start_ns);
        let requests: Vec<_> = found
            .iter()
            .take(MOST_REQUESTS)
            .map(|(worker, entry)| shown(*worker, entry, now))
            .collect();
        json_of(&json!({
            "schema": 1,
            "requests": requests,
            "truncated": found.len() > MOST_REQUESTS,
        }))
    }
}

fn ring(lag: &Lag) -> Value {
    let name = match lag.ring {
        RingName::Owner => "owner",
        RingName::Shared => "shared",
    };
    json!({
        "of": lag.role.as_str(),
        "slot": lag.worker,
        "ring": name,
        "lag_bytes": { "log": lag.log, "otlp": lag.otlp },
    })
}

fn traces(traces: &Traces) -> Value {
    let tally = traces.tally();
    let dropped = LostSpans::ALL
        .iter()
        .map(|reason| (reason.as_str().to_owned(), Value::from(tally.dropped(*reason))));
    json!({
        "queue": traces.queued(),
        "exported": tally.exported(),
        "dropped": dropped.collect::<serde_json::Map<_, _>>(),
        "last_export_unix_seconds": tally.last_export_ns().map(seconds),
        "last_error": tally.last_error(),
    })
}

/// What `/debug/requests` was asked for.
#[derive(Default, PartialEq, Debug)]
struct Wanted {
    route: Option<String>,
    least: Option<Duration>,
}

impl Wanted {
    fn parse(query: &str) -> Result<Self, &'static str> {
        let mut wanted = Self::default();
        for (key, value) in query::pairs(query)? {
            match key {
                "route" => {
                    let route = crate::environment::percent_decoded(value).ok_or(BAD_ROUTE)?;
                    wanted.route = Some(route);
                }
                "min_ms" => {
                    let milliseconds = value.parse::<u32>().map_err(|_| BAD_MIN_MS)?;
                    wanted.least = Some(Duration::from_millis(milliseconds.into()));
                }
                _ => {}
            }
        }
        Ok(wanted)
    }

    fn has(&self, entry: &InFlightEntry, now: u64) -> bool {
        let age = Duration::from_nanos(now.saturating_sub(entry.start_ns));
        self.route.as_ref().is_none_or(|route| *route == entry.route)
            && self.least.is_none_or(|least| age >= least)
    }
}

fn shown(worker: u32, entry: &InFlightEntry, now: u64) -> Value {
    json!({
        "method": entry.method.as_str(),
        "route": entry.route,
        "path": entry.path,
        "age_ms": seconds(now.saturating_sub(entry.start_ns)) * 1_000.0,
        "phase": entry.phase.as_str(),
        "worker": worker,
        "trace_id": entry.trace.to_string(),
        "request_id": entry.request_id,
        "client": entry.client.map(|client| client.to_string()),
    })
}

fn json_of(value: &Value) -> Answer {
    body_of(StatusCode::OK, HeaderValue::from_static("application/json"), format!("{value}\n"))
}

const SILENT: Duration = Duration::from_secs(10);
const MOST_REQUESTS: usize = 1_000;
const BAD_MIN_MS: &str = "min_ms must be a number of milliseconds\n";
const BAD_ROUTE: &str = "route must be percent-encoded\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_strictly() {
        let wanted = Wanted::parse("route=%2Fitems%2F{id}&min_ms=250").unwrap();
        assert_eq!(wanted.route.as_deref(), Some("/items/{id}"));
        assert_eq!(wanted.least, Some(Duration::from_millis(250)));
        assert_eq!(Wanted::parse(""), Ok(Wanted::default()));
        for bad in ["min_ms=-1", "min_ms=abc", "min_ms=", "route=%zz", "min_ms=1&min_ms=2"] {
            assert!(Wanted::parse(bad).is_err(), "{bad}");
        }
    }
}
