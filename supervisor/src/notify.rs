//! Tells the service manager how it goes (S59): datagrams to `NOTIFY_SOCKET`, never waited for.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// What the service manager gave us in the environment.
#[derive(Clone, Eq, PartialEq, Default, Debug)]
pub struct Manager {
    /// `NOTIFY_SOCKET`: a path, or `@name`.
    pub notify_socket: Option<std::ffi::OsString>,
    /// `WATCHDOG_USEC`, if `WATCHDOG_PID` is this process or is not set.
    pub watchdog: Option<Duration>,
    /// How many sockets are inherited from descriptor 3 on: `LISTEN_FDS`, if `LISTEN_PID` is this process.
    pub listen_fds: u32,
    /// Their names, in order: `LISTEN_FDNAMES`.
    pub listen_names: Vec<String>,
}

/// The line to the manager; without one nothing is said.
pub(crate) struct Notify {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
    last_ping: Option<Instant>,
    last_status: Option<(String, Instant)>,
    last_extension: Option<Instant>,
}

impl Notify {
    pub(crate) fn open(manager: &Manager) -> Self {
        let socket = manager.notify_socket.as_ref().and_then(|name| {
            let bytes = name.as_bytes();
            let address = match bytes.strip_prefix(b"@") {
                Some(name) => SocketAddr::from_abstract_name(name),
                None => SocketAddr::from_pathname(name),
            };
            let socket = UnixDatagram::unbound().ok()?;
            socket.set_nonblocking(true).ok()?;
            Some((socket, address.ok()?))
        });
        Self {
            socket,
            watchdog: manager.watchdog,
            last_ping: None,
            last_status: None,
            last_extension: None,
        }
    }

    pub(crate) fn ready(&self) {
        self.say("READY=1");
    }

    /// A reload or an upgrade has begun; `ready` ends it, also when it fails.
    pub(crate) fn reloading(&self) {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros()));
    }

    pub(crate) fn stopping(&self) {
        self.say("STOPPING=1");
    }

    /// At most one a second, and only when it changes. The loop calls this, so a hung loop stops the watchdog's pings too.
    pub(crate) fn turn(&mut self, status: &str, is_slow: bool, now: Instant) {
        if self.socket.is_none() {
            return;
        }
        let due = |last: Option<Instant>, every: Duration| {
            last.is_none_or(|last| now.saturating_duration_since(last) >= every)
        };
        if let Some(watchdog) = self.watchdog
            && due(self.last_ping, watchdog / 2)
        {
            self.last_ping = Some(now);
            self.say("WATCHDOG=1");
        }
        let is_news = self.last_status.as_ref().is_none_or(|(last, _)| last != status);
        if is_news && due(self.last_status.as_ref().map(|(_, at)| *at), Duration::from_secs(1)) {
            self.last_status = Some((status.to_owned(), now));
            self.say(&format!("STATUS={status}"));
        }
        if is_slow && due(self.last_extension, EXTENSION / 2) {
            self.last_extension = Some(now);
            self.say(&format!("EXTEND_TIMEOUT_USEC={}", EXTENSION.as_micros()));
        }
    }

    /// The longest that the loop may sleep, so that the pings come in time.
    pub(crate) fn patience(&self) -> Option<Duration> {
        self.watchdog.map(|watchdog| watchdog / 4)
    }

    fn say(&self, text: &str) {
        if let Some((socket, address)) = &self.socket {
            // Full or gone: dropped.
            let _full = socket.send_to_addr(text.as_bytes(), address);
        }
    }
}

const EXTENSION: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> Vec<String> {
        let mut all = Vec::new();
        let mut buffer = [0; 512];
        while let Ok(len) = socket.recv(&mut buffer) {
            all.push(String::from_utf8_lossy(&buffer[..len]).into_owned());
        }
        all
    }

    #[test]
    fn the_watchdog_is_fed_twice_a_period_and_the_status_said_on_change() {
        let name = format!("saola-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager_end = UnixDatagram::bind_addr(&address).unwrap();
        manager_end.set_nonblocking(true).unwrap();
        let manager = Manager {
            notify_socket: Some(format!("@{name}").into()),
            watchdog: Some(Duration::from_secs(2)),
            ..Manager::default()
        };
        let mut notify = Notify::open(&manager);
        let start = Instant::now();
        notify.ready();
        for tenths in 0..=25 {
            let status = if tenths < 15 { "1/2 workers" } else { "2/2 workers" };
            notify.turn(status, false, start + Duration::from_millis(tenths * 100));
        }
        let all = heard(&manager_end);
        assert_eq!(all[0], "READY=1");
        assert_eq!(all.iter().filter(|text| *text == "WATCHDOG=1").count(), 3);
        let statuses: Vec<_> = all.iter().filter(|text| text.starts_with("STATUS=")).collect();
        assert_eq!(statuses, ["STATUS=1/2 workers", "STATUS=2/2 workers"]);
        notify.reloading();
        assert!(heard(&manager_end)[0].starts_with("RELOADING=1\nMONOTONIC_USEC="));
    }

    #[test]
    fn without_a_manager_nothing_is_said_and_nothing_fails() {
        let mut notify = Notify::open(&Manager::default());
        notify.ready();
        notify.turn("1/1", true, Instant::now());
    }
}
