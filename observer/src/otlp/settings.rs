//! The `OTEL_*` variables that decide where spans go and what they carry; every mistake is collected.

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::transport::{Certificates, Protocol};
use crate::environment::{Env, PAIRS, Secrecy, SettingError, without_user};

/// How request bodies of the export are compressed.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
}

/// Bounds of a span.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct SpanLimits {
    /// `OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT`, default 128.
    pub attributes: usize,
    /// `OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT`, else `OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT`; default 1,024 bytes.
    pub value_bytes: usize,
    /// `OTEL_SPAN_EVENT_COUNT_LIMIT`, default 32.
    pub events: usize,
}

impl Default for SpanLimits {
    fn default() -> Self {
        Self { attributes: 128, value_bytes: 1_024, events: 32 }
    }
}

/// Where spans go, and how.
#[derive(Clone, Eq, PartialEq)]
pub struct OtlpSettings {
    /// `OTEL_EXPORTER_OTLP_[TRACES_]PROTOCOL`. Default gRPC.
    pub protocol: Protocol,
    /// `OTEL_EXPORTER_OTLP_[TRACES_]ENDPOINT` with its scheme and, over HTTP, its path. Default `http://localhost:4317`, and
    /// `http://localhost:4318/v1/traces` over HTTP.
    pub endpoint: String,
    /// `OTEL_EXPORTER_OTLP_[TRACES_]CERTIFICATE`, `CLIENT_CERTIFICATE` and `CLIENT_KEY`: what is in these files.
    pub certificates: Certificates,
    /// `OTEL_EXPORTER_OTLP_[TRACES_]HEADERS`, decoded. Values are secrets: never printed.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// `OTEL_EXPORTER_OTLP_[TRACES_]TIMEOUT`: one call with its retries. Default 10 s.
    pub timeout: Duration,
    /// `OTEL_EXPORTER_OTLP_[TRACES_]COMPRESSION`. Default none.
    pub compression: Compression,
    /// `OTEL_BSP_SCHEDULE_DELAY`: the longest a span waits for company. Default 1 s.
    pub schedule_delay: Duration,
    /// `OTEL_BSP_MAX_QUEUE_SIZE` in spans. Default 16,384.
    pub max_queue_size: NonZeroUsize,
    /// `OTEL_BSP_MAX_EXPORT_BATCH_SIZE` in spans. Default 512.
    pub max_export_batch_size: NonZeroUsize,
    /// `OTEL_BSP_EXPORT_TIMEOUT`: after it an export is given up, whatever hangs. Default 30 s.
    pub export_timeout: Duration,
    /// Bounds of each span.
    pub limits: SpanLimits,
}

impl fmt::Debug for OtlpSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| format!("{name}=***")).collect();
        f.debug_struct("OtlpSettings")
            .field("protocol", &self.protocol)
            .field("endpoint", &without_user(&self.endpoint))
            .field("certificates", &self.certificates)
            .field("headers", &names)
            .field("timeout", &self.timeout)
            .field("compression", &self.compression)
            .finish_non_exhaustive()
    }
}

impl OtlpSettings {
    /// Reads all variables through `lookup`; `None` when no endpoint is set and no exporter is asked for.
    ///
    /// A variable for traces beats the general one; an empty one counts as not set.
    ///
    /// # Errors
    ///
    /// Every variable that cannot be used, also when nothing would be exported.
    pub fn from_env(
        lookup: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, Vec<SettingError>> {
        let mut env = Env { lookup, errors: Vec::new() };
        let is_disabled = env.boolean("OTEL_SDK_DISABLED");
        let exporter = env.one_of("OTEL_TRACES_EXPORTER", &["otlp", "none"]);
        let is_on = match exporter.as_deref() {
            Some("none") => false,
            Some(_) => true,
            None => env.find("ENDPOINT").is_some(),
        };
        let is_on = is_on && !is_disabled;
        let protocol = env.protocol();
        let settings = Self {
            protocol,
            endpoint: env.endpoint(protocol),
            certificates: env.certificates(),
            headers: env.headers(),
            timeout: env.exporter_duration("TIMEOUT", 10_000),
            compression: env.compression(),
            schedule_delay: env.duration("OTEL_BSP_SCHEDULE_DELAY", 1_000),
            max_queue_size: env.count("OTEL_BSP_MAX_QUEUE_SIZE", 16_384),
            max_export_batch_size: env.count("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512),
            export_timeout: env.duration("OTEL_BSP_EXPORT_TIMEOUT", 30_000),
            limits: env.limits(),
        };
        if env.errors.is_empty() { Ok(is_on.then_some(settings)) } else { Err(env.errors) }
    }

    /// What is worth a warning at start: signals that are asked for and not exported this way.
    pub fn warnings(lookup: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
        [
            ("OTEL_METRICS_EXPORTER", "metrics are scraped"),
            ("OTEL_LOGS_EXPORTER", "logs are read from stdout"),
        ]
        .into_iter()
        .filter(|(variable, _)| lookup(variable).as_deref() == Some("otlp"))
        .map(|(variable, instead)| format!("{variable}=otlp has no effect: {instead}"))
        .collect()
    }
}

impl Env<'_> {
    /// The variable for traces, else the general one; with its name.
    pub(super) fn find(&self, suffix: &str) -> Option<(String, String)> {
        ["OTEL_EXPORTER_OTLP_TRACES_", "OTEL_EXPORTER_OTLP_"].into_iter().find_map(|prefix| {
            let variable = format!("{prefix}{suffix}");
            self.get(&variable).map(|value| (variable, value))
        })
    }

    fn exporter_duration(&mut self, suffix: &str, default: u32) -> Duration {
        let variable = self.find(suffix).map(|(variable, _)| variable).unwrap_or_default();
        self.duration(&variable, default)
    }

    fn limits(&mut self) -> SpanLimits {
        let default = SpanLimits::default();
        let general = "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT";
        let value_bytes = self.parsed(general, default.value_bytes, NUMBER);
        let (span, count) =
            ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT");
        SpanLimits {
            attributes: self.parsed(count, default.attributes, NUMBER),
            value_bytes: self.parsed(span, value_bytes, NUMBER),
            events: self.parsed("OTEL_SPAN_EVENT_COUNT_LIMIT", default.events, NUMBER),
        }
    }

    fn compression(&mut self) -> Compression {
        match self.find("COMPRESSION") {
            None => Compression::None,
            Some((_, value)) if value == "none" => Compression::None,
            Some((_, value)) if value == "gzip" => Compression::Gzip,
            Some((variable, value)) => {
                self.refuse(&variable, &value, "gzip or none");
                Compression::None
            }
        }
    }

    fn headers(&mut self) -> Vec<(HeaderName, HeaderValue)> {
        let Some((variable, _)) = self.find("HEADERS") else { return Vec::new() };
        let mut headers = Vec::new();
        for (key, value) in self.pairs(&variable, Secrecy::Secret) {
            match (HeaderName::from_str(&key), HeaderValue::from_str(&value)) {
                (Ok(name), Ok(mut value)) => {
                    value.set_sensitive(true);
                    headers.push((name, value));
                }
                _ => self.refuse(&variable, "***", PAIRS),
            }
        }
        headers
    }
}

const NUMBER: &str = "a whole number";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::otlp::Resource;

    fn read(pairs: &[(&str, &str)]) -> Result<Option<OtlpSettings>, Vec<SettingError>> {
        OtlpSettings::from_env(&|name| {
            pairs.iter().find(|pair| pair.0 == name).map(|pair| pair.1.to_owned())
        })
    }

    fn on(pairs: &[(&str, &str)]) -> OtlpSettings {
        read(pairs).expect("no mistakes").expect("export is on")
    }

    fn refused(pairs: &[(&str, &str)]) -> Vec<String> {
        read(pairs).expect_err("a mistake").iter().map(|error| error.variable.clone()).collect()
    }

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317");

    #[test]
    fn export_is_off_until_something_asks_for_it() {
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]), Ok(None));
        assert_eq!(read(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")]), Ok(None));
        assert_eq!(read(&[ENDPOINT, ("OTEL_SDK_DISABLED", "true")]), Ok(None));
        assert_eq!(on(&[("OTEL_TRACES_EXPORTER", "otlp")]).endpoint, "http://localhost:4317");
        assert_eq!(on(&[ENDPOINT]).endpoint, "http://collector:4317");
    }

    #[test]
    fn defaults_are_those_of_the_table() {
        let settings = on(&[ENDPOINT]);
        assert_eq!(settings.timeout, Duration::from_secs(10));
        assert_eq!(settings.compression, Compression::None);
        assert_eq!(settings.schedule_delay, Duration::from_secs(1));
        assert_eq!(settings.max_queue_size.get(), 16_384);
        assert_eq!(settings.max_export_batch_size.get(), 512);
        assert_eq!(settings.export_timeout, Duration::from_secs(30));
        assert_eq!(settings.limits, SpanLimits::default());
    }

    #[test]
    fn variables_for_traces_beat_general_ones() {
        let settings = on(&[
            ENDPOINT,
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "tempo:4317"),
            ("OTEL_EXPORTER_OTLP_INSECURE", "true"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "1"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "250"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Basic%20eDp5, x-tenant=a"),
            ("OTEL_BSP_SCHEDULE_DELAY", "5"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "7"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8"),
            ("OTEL_BSP_EXPORT_TIMEOUT", "9"),
            ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "10"),
            ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "11"),
            ("OTEL_SPAN_EVENT_COUNT_LIMIT", "12"),
        ]);
        assert_eq!(settings.endpoint, "http://tempo:4317");
        assert_eq!(settings.timeout, Duration::from_millis(250));
        assert_eq!(settings.compression, Compression::Gzip);
        assert_eq!(settings.headers[0].0, "authorization");
        assert_eq!(settings.headers[0].1, "Basic eDp5");
        assert_eq!(settings.headers[1].1, "a");
        assert_eq!(settings.schedule_delay, Duration::from_millis(5));
        assert_eq!(settings.max_queue_size.get(), 7);
        assert_eq!(settings.max_export_batch_size.get(), 8);
        assert_eq!(settings.export_timeout, Duration::from_millis(9));
        assert_eq!(settings.limits, SpanLimits { attributes: 11, value_bytes: 10, events: 12 });
        assert!(!format!("{settings:?}").contains("eDp5"), "headers are secrets");
    }

    #[test]
    fn every_mistake_is_collected() {
        let mistakes = refused(&[
            ("OTEL_SDK_DISABLED", "yes"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://x"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "-1"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
            ("OTEL_SPAN_EVENT_COUNT_LIMIT", "many"),
        ]);
        assert_eq!(mistakes.len(), 9, "{mistakes:?}");
    }

    #[test]
    fn the_protocol_decides_about_the_endpoint() {
        const HTTP: (&str, &str) = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
        let grpc = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc");
        let asked = ("OTEL_TRACES_EXPORTER", "otlp");
        for (pairs, protocol, endpoint) in [
            (&[asked, HTTP][..], Protocol::Http, "http://localhost:4318/v1/traces"),
            (&[asked, HTTP, grpc], Protocol::Grpc, "http://localhost:4317"),
            (&[ENDPOINT, HTTP], Protocol::Http, "http://collector:4317/v1/traces"),
            (
                &[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c/x"), HTTP],
                Protocol::Http,
                "http://c/x",
            ),
        ] {
            let settings = on(pairs);
            assert_eq!((settings.protocol, settings.endpoint.as_str()), (protocol, endpoint));
        }
    }

    #[test]
    fn without_a_scheme_it_is_https_unless_told_otherwise() {
        let bare = ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317");
        let insecure = ("OTEL_EXPORTER_OTLP_TRACES_INSECURE", "true");
        assert_eq!(on(&[bare, insecure]).endpoint, "http://collector:4317");
        let secure = read(&[bare]);
        if cfg!(feature = "tls") {
            assert_eq!(secure.unwrap().unwrap().endpoint, "https://collector:4317");
        } else {
            let errors = secure.expect_err("no TLS");
            assert!(errors[0].allowed.contains("cargo feature `tls`"), "{}", errors[0]);
            assert_eq!(refused(&[("OTEL_EXPORTER_OTLP_CERTIFICATE", "/etc/ca.pem")]).len(), 1);
        }
    }

    #[test]
    fn an_error_never_shows_a_secret() {
        let errors =
            read(&[("OTEL_EXPORTER_OTLP_HEADERS", "k=%zzsecret")]).expect_err("bad encoding");
        assert!(!errors[0].to_string().contains("secret"));
        let errors =
            read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://me:secret@c:1")]).expect_err("scheme");
        assert!(!errors[0].to_string().contains("secret"));
        let settings = on(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://me:secret@c:1")]);
        assert!(!format!("{settings:?}").contains("secret"));
    }

    #[test]
    fn the_resource_is_what_the_environment_says() {
        let defaults = Resource {
            name: "app".into(),
            version: "1".into(),
            instance: "host:80".into(),
            host: "host".into(),
            attributes: vec![],
        };
        let read = |list: &'static str, name: Option<&'static str>| {
            let lookup = move |variable: &str| match variable {
                "OTEL_RESOURCE_ATTRIBUTES" => Some(list.to_owned()),
                "OTEL_SERVICE_NAME" => name.map(str::to_owned),
                _ => None,
            };
            Resource::from_env(&lookup, defaults.clone())
        };
        let resource =
            read("service.name=a,deployment.environment.name=x%2Cy", Some("shop")).unwrap();
        assert_eq!(resource.name, "shop");
        assert_eq!(resource.attribute("deployment.environment.name"), Some("x,y"));
        assert_eq!(resource.instance, "host:80");
        assert!(read("service.name", None).is_err());
        assert!(read("=x", None).is_err());
    }
}
