//! Pushing profiles to Pyroscope, or to whatever relays to it: the client of the `pyroscope` crate over our own windows.
//!
//! The client has threads of its own: a server that is away, slow or hangs costs windows, nothing else. It tells what became
//! of a push only as a log message, so a logger listens (O65); a test pins the messages to the version.

mod witness;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Uri;
use pyroscope::backend::{Backend, BackendImpl, ReportBatch, ReportData, ThreadTag};
use pyroscope::pyroscope::{PyroscopeAgent, PyroscopeAgentBuilder, PyroscopeAgentRunning};
use saola_observability::clock;

use super::{Pprof, SharedWindow, Symbols, Window, lock};
use crate::environment::{Env, SettingError, without_user};
use crate::lost::LostSamples;
use crate::metrics;
use crate::otlp::{NO_TLS, Resource};
pub(crate) use witness::Witness;

/// Where profiles go.
#[derive(Clone, Eq, PartialEq)]
pub struct ProfileSettings {
    /// `PYROSCOPE_SERVER_ADDRESS`: Pyroscope itself, or a collector that relays.
    pub address: String,
    /// `PYROSCOPE_BASIC_AUTH_USER` and `_PASSWORD`. Secrets: never printed.
    pub basic_auth: Option<(String, String)>,
    /// `PYROSCOPE_TENANT_ID`.
    pub tenant: Option<String>,
    /// `PYROSCOPE_UPLOAD_INTERVAL`. Default 10 s.
    pub interval: Duration,
    /// `SAOLA_PROFILE_SPAN_LABEL`: the label of the span id. Default `span_id`; servers of the 1.x line know `profile_id`.
    pub span_label: String,
}

impl fmt::Debug for ProfileSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProfileSettings")
            .field("address", &without_user(&self.address))
            .field("interval", &self.interval)
            .field("span_label", &self.span_label)
            .finish_non_exhaustive()
    }
}

impl ProfileSettings {
    /// Reads the variables through `lookup`; `None` when no address is set.
    ///
    /// # Errors
    ///
    /// Every variable that cannot be used.
    pub fn from_env(
        lookup: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, Vec<SettingError>> {
        let mut env = Env { lookup, errors: Vec::new() };
        let address = env.get("PYROSCOPE_SERVER_ADDRESS");
        if let Some(address) = &address {
            check(&mut env, address);
        }
        let interval = env.parsed("PYROSCOPE_UPLOAD_INTERVAL", 10_u64, SECONDS);
        if !(1..=60).contains(&interval) {
            env.refuse("PYROSCOPE_UPLOAD_INTERVAL", &interval.to_string(), SECONDS);
        }
        let user = env.get("PYROSCOPE_BASIC_AUTH_USER");
        let password = env.get("PYROSCOPE_BASIC_AUTH_PASSWORD");
        let span_label = env.one_of("SAOLA_PROFILE_SPAN_LABEL", &["span_id", "profile_id"]);
        let settings = address.map(|address| Self {
            address,
            basic_auth: user.map(|user| (user, password.unwrap_or_default())),
            tenant: env.get("PYROSCOPE_TENANT_ID"),
            interval: Duration::from_secs(interval),
            span_label: span_label.unwrap_or_else(|| "span_id".to_owned()),
        });
        if env.errors.is_empty() { Ok(settings) } else { Err(env.errors) }
    }
}

/// The client would panic at an address that cannot have a path.
fn check(env: &mut Env<'_>, address: &str) {
    let uri =
        address.parse::<Uri>().ok().filter(|uri| uri.host().is_some_and(|host| !host.is_empty()));
    match uri.as_ref().and_then(Uri::scheme_str) {
        Some("http") => {}
        Some("https") if cfg!(feature = "tls") => {}
        Some("https") => env.refuse("PYROSCOPE_SERVER_ADDRESS", &without_user(address), NO_TLS),
        _ => env.refuse(
            "PYROSCOPE_SERVER_ADDRESS",
            &without_user(address),
            "a URL such as http://localhost:4040",
        ),
    }
}

const SECONDS: &str = "seconds, a whole number from 1 to 60";

/// The push client could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PushError {
    /// The crate says why.
    #[error("cannot start the profile client: {0}")]
    Agent(#[from] pyroscope::PyroscopeError),
    /// Most often a system without any certificate authority.
    #[error("cannot make HTTP requests, are there certificate authorities (SSL_CERT_FILE)? {0}")]
    Http(#[from] reqwest::Error),
}

/// The running push client.
pub(crate) struct Push {
    agent: PyroscopeAgent<PyroscopeAgentRunning>,
    witness: Arc<Witness>,
}

impl fmt::Debug for Push {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Push")
    }
}

impl Push {
    /// Starts the client; it takes `window` away once an interval.
    pub(crate) fn start(
        settings: &ProfileSettings,
        resource: &Resource,
        hz: u32,
        window: SharedWindow,
    ) -> Result<Self, PushError> {
        // The client builds one like this on a thread of its own, and would panic there, also for an address without TLS.
        drop(reqwest::Client::builder().build()?);
        let witness = Witness::listen();
        let source = Source {
            window,
            hz,
            symbols: Mutex::new(Symbols::default()),
            span_label: settings.span_label.clone(),
            witness: Arc::clone(&witness),
        };
        let version = env!("CARGO_PKG_VERSION");
        let labels = labels(resource);
        let labels = labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let mut builder = PyroscopeAgentBuilder::new(
            &settings.address,
            &resource.name,
            hz,
            "saola",
            version,
            BackendImpl::new(Box::new(source)),
        )
        .tags(labels)
        .upload_interval(settings.interval);
        if let Some((user, password)) = &settings.basic_auth {
            builder = builder.basic_auth(user, password);
        }
        if let Some(tenant) = &settings.tenant {
            builder = builder.tenant_id(tenant.clone());
        }
        Ok(Self { agent: builder.build()?.start()?, witness })
    }

    /// Who knows what became of the pushes.
    pub(crate) fn witness(&self) -> &Arc<Witness> {
        &self.witness
    }

    /// Sends the last window from a thread of its own, which may hang for as long as it likes (O66). The answer tells
    /// whether all is sent.
    #[expect(clippy::disallowed_methods, reason = "the observer never forks")]
    pub(crate) fn finish(self) -> Arc<Witness> {
        let Self { agent, witness } = self;
        let last = Arc::clone(&witness);
        let stop = std::thread::Builder::new().name("saola-profile".to_owned());
        // Without a thread the last window is lost, and counted as such by whoever asks the witness.
        let _ = stop.spawn(move || {
            // The agent ends with the process: dropping it would wait for its threads.
            let _kept = agent.stop().map(std::mem::ManuallyDrop::new);
            last.all_handed_over();
        });
        witness
    }
}

/// The labels of every series: the first table of names.
fn labels(resource: &Resource) -> Vec<(&'static str, String)> {
    let environment = resource.attribute("deployment.environment.name").unwrap_or_default();
    let all = [
        ("service_name", resource.name.as_str()),
        ("service_instance_id", &resource.instance),
        ("service_version", &resource.version),
        ("deployment_environment_name", environment),
    ];
    let known = all.into_iter().filter(|(_, value)| !value.is_empty());
    known.map(|(name, value)| (name, value.to_owned())).collect()
}

/// What the client asks for profiles. Never an error and never a panic: either would end its thread for good.
struct Source {
    window: SharedWindow,
    hz: u32,
    symbols: Mutex<Symbols>,
    span_label: String,
    witness: Arc<Witness>,
}

impl Source {
    fn encode(&self, window: &Window) -> Vec<u8> {
        let mut symbols = self.symbols.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Pprof::encode(window, self.hz, &mut symbols, &self.span_label)
    }
}

impl Backend for Source {
    fn initialize(&mut self) -> pyroscope::Result<()> {
        Ok(())
    }

    fn shutdown(self: Box<Self>) -> pyroscope::Result<()> {
        Ok(())
    }

    fn report(&mut self) -> pyroscope::Result<ReportBatch> {
        let window = lock(&self.window).take();
        let encoded = catch_unwind(AssertUnwindSafe(|| self.encode(&window)));
        let (bytes, weight) = if let Ok(bytes) = encoded {
            (bytes, window.weight())
        } else {
            metrics::samples_dropped(LostSamples::PushFailed, window.weight());
            (self.encode(&Window::new(clock::wall_ns())), 0)
        };
        self.witness.hand_over(weight);
        Ok(ReportBatch {
            profile_type: "process_cpu".to_owned(),
            data: ReportData::RawPprof(bytes),
        })
    }

    fn add_tag(&self, _: ThreadTag) -> pyroscope::Result<()> {
        Ok(())
    }

    fn remove_tag(&self, _: ThreadTag) -> pyroscope::Result<()> {
        Ok(())
    }
}
