//! Every setting, once: help texts, the command line, the environment, the file and the README's table are made of this.

/// One setting: `--worker-connections`, `SAOLA_WORKER_CONNECTIONS`, and `worker_connections` in the file.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) name: &'static str,
    /// What stands for the value in the help.
    pub(crate) value: &'static str,
    /// As the value would be written; empty when there is none.
    pub(crate) default: &'static str,
    pub(crate) help: &'static str,
    /// May be given several times; in one text, commas separate.
    pub(crate) repeats: bool,
}

impl Setting {
    /// The long option, without its dashes.
    pub(crate) fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// The environment variable.
    pub(crate) fn variable(&self) -> String {
        format!("SAOLA_{}", self.name.to_ascii_uppercase())
    }
}

const fn one(
    name: &'static str,
    value: &'static str,
    default: &'static str,
    help: &'static str,
) -> Setting {
    Setting { name, value, default, help, repeats: false }
}

const fn many(
    name: &'static str,
    value: &'static str,
    default: &'static str,
    help: &'static str,
) -> Setting {
    Setting { name, value, default, help, repeats: true }
}

/// The settings, in the order of the help.
pub(crate) const SETTINGS: &[Setting] = &[
    Setting {
        name: "bind",
        value: "ADDR",
        default: "127.0.0.1:8000",
        help: "Where to listen: host:port, :port, [::1]:port, unix:/path, unix:@name, fd://N, systemd, systemd:NAME; repeatable. With $PORT set: 0.0.0.0:$PORT",
        repeats: true,
    },
    one(
        "admin_bind",
        "ADDR|off",
        "127.0.0.1:9090",
        "Where the observer answers /metrics, /health, /ready, /status",
    ),
    one(
        "workers",
        "N|auto",
        "auto",
        "Number of workers; auto is one for each core that the process may use",
    ),
    one("max_workers", "N", "", "Most workers that SIGTTIN may ask for; default 4 for each core"),
    one(
        "run_dir",
        "DIR",
        "",
        "Where the slot files are; default the first of $RUNTIME_DIRECTORY, $XDG_RUNTIME_DIR/saola, /dev/shm/saola-UID, /tmp/saola-UID",
    ),
    one(
        "name",
        "NAME",
        "",
        "Name of the server in titles, lines and telemetry; default that of the executable",
    ),
    one("backlog", "N", "4096", "Connections that may wait on a socket"),
    one(
        "reuse_port",
        "on|off",
        "off",
        "Whether each worker has a socket of its own on every TCP address; a restart changes it",
    ),
    one(
        "timeout",
        "TIME",
        "30s",
        "A worker whose event loop has not turned for this long is killed; 0 is never",
    ),
    one("boot_timeout", "TIME", "60s", "Longest time from fork to ready"),
    one(
        "graceful_timeout",
        "TIME",
        "30s",
        "Longest time that a stopping worker may finish open requests",
    ),
    one("abort_grace", "TIME", "2s", "Time between SIGABRT and SIGKILL for a worker that hangs"),
    one(
        "pre_stop_delay",
        "TIME",
        "0s",
        "Full service after SIGTERM, while load balancers learn of it; at most 300s",
    ),
    one(
        "hook",
        "FILE",
        "",
        "A program that is run for each event of the server, with its name as argument",
    ),
    one("pidfile", "FILE", "", "A file that holds the pid while the server runs"),
    one("umask", "MODE", "0077", "Permissions that new files do not get, in octal"),
    one("chdir", "DIR", "", "Where the server goes before it opens anything"),
    one("socket_mode", "MODE", "0660", "Permissions of unix sockets with a path, in octal"),
    one("socket_user", "USER", "", "Owner of unix sockets with a path, by name or number"),
    one("socket_group", "GROUP", "", "Group of unix sockets with a path, by name or number"),
    one(
        "user",
        "USER",
        "",
        "User of workers and observer, by name or number; needs root, and a run_dir that this user can reach",
    ),
    one("group", "GROUP", "", "Group of workers and observer; default the first of user"),
    one(
        "max_requests",
        "N",
        "0",
        "Requests after which a worker is replaced, its successor first; 0 is never",
    ),
    one(
        "max_requests_jitter",
        "N",
        "0",
        "Most requests that chance adds to max_requests, for each worker anew",
    ),
    one(
        "max_lifetime",
        "TIME",
        "0s",
        "Age at which a worker is replaced, its successor first; 0 is never",
    ),
    one("min_lifetime", "TIME", "1s", "Least age at which a worker is replaced for its requests"),
    one(
        "max_memory",
        "BYTES",
        "0",
        "Private memory over which a worker is replaced, its successor first; 0 is no limit",
    ),
    one(
        "max_memory_hard",
        "BYTES",
        "0",
        "Private memory over which a worker drains at once; 0 is no limit",
    ),
    one("max_old_generations", "N", "2", "Generations that may drain beside the one that serves"),
    one(
        "give_up",
        "TIME",
        "0s",
        "Longest time without any worker before the server ends with 3; 0 is never",
    ),
    one(
        "upgrade_probation",
        "TIME",
        "5s",
        "Time that the old workers of an upgrade stand by, should the new ones fail",
    ),
    one("worker_connections", "N", "4096", "Connections of one worker"),
    one("limit_concurrency", "N", "1024", "Requests of one worker at once; one more gets 503"),
    one("limit_request_line", "BYTES", "8192", "Longest request line; longer gets 414"),
    one("limit_request_fields", "N", "100", "Most header fields; more get 431"),
    one("limit_request_field_size", "BYTES", "8192", "Longest header field; longer gets 431"),
    one("limit_request_head", "BYTES", "64KiB", "Longest request head; longer gets 431"),
    one(
        "limit_request_body",
        "BYTES",
        "1MiB",
        "Longest request body; longer gets 413; 0 is unlimited",
    ),
    one(
        "header_map",
        "drop|refuse|pass",
        "drop",
        "What becomes of header fields whose name has an underscore; refuse is 400",
    ),
    many(
        "forwarded_allow_ips",
        "NET",
        "127.0.0.1,::1",
        "Proxies whose Forwarded and X-Forwarded-* are believed, or *; those of others are taken away; repeatable",
    ),
    many(
        "proxy_protocol",
        "[ADDR=]off|v1|v2|auto",
        "off",
        "Whether connections begin with a PROXY header, on all listeners or on that of ADDR; repeatable",
    ),
    many(
        "proxy_allow_ips",
        "NET",
        "127.0.0.1,::1",
        "Balancers whose PROXY headers are read, or *; others are closed; repeatable",
    ),
    many(
        "certfile",
        "FILE",
        "",
        "Certificate chain in PEM: listeners speak TLS; repeatable, the first one is for unknown names",
    ),
    many(
        "keyfile",
        "FILE",
        "",
        "Private key of each certfile, in the same order; default the certfile",
    ),
    many(
        "tls_bind",
        "ADDR",
        "",
        "Addresses of bind that speak TLS; default all but unix sockets; repeatable",
    ),
    one("tls_min", "1.2|1.3", "1.2", "Oldest version of TLS"),
    one("client_ca", "FILE", "", "Authorities, in PEM, that sign the certificates of clients"),
    one("client_auth", "off|optional|required", "off", "Whether a client needs a certificate"),
    one("header_timeout", "TIME", "10s", "Longest time for a request head"),
    one("keepalive", "TIME", "75s", "Longest idle time of a connection"),
    one(
        "keepalive_requests",
        "N",
        "1000",
        "Requests on one HTTP/1 connection, give or take a tenth",
    ),
    one(
        "request_timeout",
        "TIME",
        "30s",
        "Longest time to a response head; then 504; 0 is unlimited",
    ),
    one(
        "body_timeout",
        "TIME",
        "30s",
        "Longest time that the application waits for a byte of a request body; then 408",
    ),
    one(
        "body_min_rate",
        "BYTES",
        "500",
        "Least bytes a second of a request body waited for longer than body_timeout in all; 0 is none",
    ),
    one(
        "write_timeout",
        "TIME",
        "30s",
        "Longest time in which a client may take less than 500 bytes a second of its response",
    ),
    one("blocking_threads", "N", "8", "Threads of a worker for work that blocks"),
    one("http2", "on|off", "on", "Whether HTTP/2 is spoken"),
    one("http2_max_streams", "N", "100", "Open streams of one HTTP/2 connection"),
    one(
        "accept",
        "exclusive|tokio",
        "exclusive",
        "How connections are taken from the shared socket",
    ),
    one(
        "server_header",
        "TEXT",
        "saola",
        "The Server field of responses that have none; empty is no field",
    ),
    one(
        "telemetry",
        "off|metrics|full",
        "full",
        "What requests leave behind: nothing and no observer, for measuring; counters; everything",
    ),
    one("metrics", "on|off", "on", "Whether /metrics is answered on the main listener too"),
    one(
        "log_level",
        "LEVEL",
        "info",
        "Levels of log lines, by target as in RUST_LOG: info,shop::cart=debug",
    ),
    one(
        "log_format",
        "auto|logfmt|json|pretty",
        "auto",
        "How lines look; auto is pretty on a terminal, else logfmt",
    ),
    one("access_log", "on|errors|off", "on", "Which requests have a line"),
    Setting {
        name: "access_log_exclude",
        value: "PATH",
        default: "/health,/ready,/metrics",
        help: "Paths without a line while they answer below 400; repeatable",
        repeats: true,
    },
    one(
        "slow_request",
        "TIME",
        "1s",
        "Requests at least this long are warned about, and their traces are kept",
    ),
    one(
        "trace_level",
        "LEVEL",
        "info",
        "Levels of the spans in handlers that traces show, by target as in log_level",
    ),
    one(
        "trace_rate_limit",
        "N",
        "100",
        "Traces a second and worker that the head decision may keep; 0 is unlimited",
    ),
    one("profile_hz", "N", "100", "Profile samples a second of CPU time, at most 250; 0 is off"),
    one(
        "ring_bytes",
        "BYTES",
        "1MiB",
        "Room of one worker for records that the observer has not read: 128KiB to 4MiB, a power of two",
    ),
];

/// The setting of that name.
pub(crate) fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_has_the_same_table() {
        let mut expected = String::from("| setting | default | meaning |\n|---|---|---|\n");
        for Setting { name, default, help, .. } in SETTINGS {
            let default = if default.is_empty() { String::new() } else { format!("`{default}`") };
            let help = help.replace('|', "\\|");
            expected.extend([format!("| `{name}` | {default} | {help} |\n")]);
        }
        let readme = include_str!("../../../README.md");
        let (_, rest) = readme.split_once("checked against the program by a test -->\n").unwrap();
        let (table, _) = rest.split_once("<!-- end of settings -->").unwrap();
        assert!(table == expected, "the table of README.md is to be:\n{expected}");
    }

    #[test]
    fn the_page_on_limits_has_the_same_defaults() {
        let page = include_str!("../../../docs/limits.md");
        let mut rows = 0;
        for row in page.lines().filter_map(|line| line.strip_prefix("| `")) {
            let (name, rest) = row.split_once("` | ").unwrap();
            let setting = SETTINGS.iter().find(|setting| setting.name == name).expect(name);
            // The first number with its unit, or the first word.
            let words = rest.split([' ', ',']).take(2).map(|word| word.trim_matches('`'));
            let told: Vec<_> = words.collect();
            let is_told = told[0] == setting.default || told.concat() == setting.default;
            assert!(is_told, "{name} is {}, not {told:?}", setting.default);
            rows += 1;
        }
        assert!(rows > 10, "{rows} rows only");
    }

    #[test]
    fn names_are_distinct_and_plain() {
        for (at, setting) in SETTINGS.iter().enumerate() {
            assert!(
                setting
                    .name
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
            );
            assert!(
                !SETTINGS[..at].iter().any(|other| other.name == setting.name),
                "{}",
                setting.name
            );
            assert!(!setting.help.ends_with('.'), "{}", setting.name);
        }
    }
}
