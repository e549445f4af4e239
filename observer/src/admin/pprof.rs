//! Profiles on request: `/debug/pprof/…`, as `go tool pprof` and browsers ask for them.

use std::rc::Rc;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use http::header::{CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use saola_observability::closed::Role;
use tokio::time::sleep_until;

use super::{Admin, Answer, body_of, query, text};
use crate::profile::{Pprof, SharedWindow, Symbols, Window, collapsed, gzip, lock, svg};

/// How a profile is written.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
enum Format {
    Pprof,
    Collapsed,
    Svg,
}

/// What was asked for.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
struct Wanted {
    seconds: u64,
    worker: Option<u32>,
    format: Format,
}

impl Wanted {
    fn parse(query: &str, default: Self) -> Result<Self, &'static str> {
        let mut wanted = default;
        for (key, value) in query::pairs(query)? {
            match key {
                "seconds" => {
                    let seconds = value.parse().ok().filter(|seconds| (1..=300).contains(seconds));
                    wanted.seconds = seconds.ok_or("seconds must be 1 to 300\n")?;
                }
                "worker" => wanted.worker = Some(query::worker(value)?),
                "format" => {
                    wanted.format = match value {
                        "pprof" => Format::Pprof,
                        "collapsed" => Format::Collapsed,
                        "svg" => Format::Svg,
                        _ => return Err("format must be pprof, collapsed or svg\n"),
                    };
                }
                _ => {}
            }
        }
        Ok(wanted)
    }
}

/// Ends the collecting when the answer is made, and when the client leaves before.
struct Collecting(Rc<Admin>);

impl Drop for Collecting {
    fn drop(&mut self) {
        self.0.reader.borrow_mut().profiles.forget_asked();
    }
}

impl Admin {
    /// `/debug/pprof/`.
    pub(super) fn pprof_index() -> Answer {
        let mut answer =
            body_of(StatusCode::OK, HeaderValue::from_static("text/html; charset=utf-8"), INDEX);
        answer.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        answer
    }

    /// `/debug/pprof/profile` and `/debug/pprof/flamegraph`, which differ in their defaults.
    pub(super) async fn profile(self: Rc<Self>, query: String, is_graph: bool) -> Answer {
        if self.profile_hz == 0 {
            return text(
                StatusCode::NOT_IMPLEMENTED,
                "profiles are off: start the server with --profile-hz 100\n",
            );
        }
        let default = if is_graph {
            Wanted { seconds: 10, worker: None, format: Format::Svg }
        } else {
            Wanted { seconds: 30, worker: None, format: Format::Pprof }
        };
        let wanted = match Wanted::parse(&query, default) {
            Ok(wanted) => wanted,
            Err(reason) => return text(StatusCode::BAD_REQUEST, reason),
        };
        if let Some(worker) = wanted.worker
            && !self.has_slot(worker)
        {
            return text(StatusCode::NOT_FOUND, format!("no worker {worker}\n"));
        }
        let end = Instant::now() + Duration::from_secs(wanted.seconds);
        let asked = self.reader.borrow_mut().profiles.ask(wanted.worker, end);
        let window = match asked {
            Ok(window) => window,
            Err(busy_until) => return busy(busy_until),
        };
        let collecting = Collecting(Rc::clone(&self));
        sleep_until(end.into()).await;
        // The samples of the last moment are still in the rings.
        self.reader.borrow_mut().take_samples();
        drop(collecting);
        self.written(&window, wanted).await
    }

    fn has_slot(&self, worker: u32) -> bool {
        let mut reader = self.reader.borrow_mut();
        let slots = reader.rings.slots();
        slots.iter().any(|slot| slot.role() == Role::Worker && slot.number() == worker)
    }

    /// Names are looked up off the loop: the first look-up reads the program's line tables.
    async fn written(&self, window: &SharedWindow, wanted: Wanted) -> Answer {
        let window = lock(window).take();
        let (symbols, hz) = (Arc::clone(&self.symbols), self.profile_hz);
        let title = format!("{} · {} s", self.service, wanted.seconds);
        let made = tokio::task::spawn_blocking(move || {
            let mut symbols = symbols.lock().unwrap_or_else(PoisonError::into_inner);
            render(&window, wanted.format, hz, &mut symbols, &title)
        });
        match made.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => text(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("cannot write the profile: {error}\n"),
            ),
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "cannot write the profile\n"),
        }
    }
}

fn busy(until: Instant) -> Answer {
    let mut answer = text(StatusCode::SERVICE_UNAVAILABLE, "a profile is running\n");
    let seconds = until.saturating_duration_since(Instant::now()).as_secs() + 1;
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    answer
}

fn render(
    window: &Window,
    format: Format,
    hz: u32,
    symbols: &mut Symbols,
    title: &str,
) -> std::io::Result<Answer> {
    let answer = match format {
        Format::Pprof => {
            attachment("profile.pb.gz", gzip(&Pprof::encode(window, hz, symbols, "span_id"))?)
        }
        Format::Collapsed => text(StatusCode::OK, collapsed(window, symbols)),
        Format::Svg => {
            let kind = HeaderValue::from_static("image/svg+xml");
            let mut answer = body_of(StatusCode::OK, kind, svg(window, symbols, title)?);
            let policy = HeaderValue::from_static(POLICY);
            answer.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
            answer
        }
    };
    Ok(answer)
}

/// A file for `go tool pprof`.
pub(super) fn attachment(name: &str, bytes: Vec<u8>) -> Answer {
    let kind = HeaderValue::from_static("application/octet-stream");
    let mut answer = body_of(StatusCode::OK, kind, bytes);
    if let Ok(name) = HeaderValue::try_from(format!("attachment; filename=\"{name}\"")) {
        answer.headers_mut().insert(CONTENT_DISPOSITION, name);
    }
    answer
}

/// The picture's own script and styles, and nothing from anywhere.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'";
const INDEX: &str = "\
<!doctype html><title>Profiles</title><h1>Profiles</h1><ul>
<li><a href=\"flamegraph?seconds=10\">flamegraph?seconds=10</a>: where the CPU goes, as a picture
<li><a href=\"profile?seconds=30\">profile?seconds=30</a>: the same for <code>go tool pprof</code>; worker=N for one worker
<li><a href=\"profile?seconds=10&amp;format=collapsed\">profile?seconds=10&amp;format=collapsed</a>: one stack a line
<li><a href=\"heap\">heap</a>: what the heap of a worker holds; worker=N for another than the first. Only in builds that can: it says how
</ul>
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_strictly() {
        let default = Wanted { seconds: 30, worker: None, format: Format::Pprof };
        assert_eq!(Wanted::parse("", default), Ok(default));
        let all = Wanted { seconds: 5, worker: Some(2), format: Format::Svg };
        assert_eq!(Wanted::parse("seconds=5&worker=2&format=svg&debug=1", default), Ok(all));
        for bad in [
            "seconds=0",
            "seconds=-1",
            "seconds=abc",
            "seconds=301",
            "seconds=",
            "format=png",
            "worker=x",
            "seconds=1&seconds=2",
        ] {
            assert!(Wanted::parse(bad, default).is_err(), "{bad}");
        }
    }
}
