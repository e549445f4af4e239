//! Who the telemetry is from: the resource attributes of the standard.

use crate::environment::{Env, Secrecy, SettingError};

/// Who the spans are from.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct Resource {
    /// `service.name`.
    pub name: String,
    /// `service.version`.
    pub version: String,
    /// `service.instance.id`, default `{hostname}:{port}`.
    pub instance: String,
    /// `host.name`.
    pub host: String,
    /// All other attributes of `OTEL_RESOURCE_ATTRIBUTES`, in their order.
    pub attributes: Vec<(String, String)>,
}

impl Resource {
    /// `defaults` with what `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` say instead.
    ///
    /// # Errors
    ///
    /// The attribute list is malformed.
    pub fn from_env(
        lookup: &dyn Fn(&str) -> Option<String>,
        defaults: Self,
    ) -> Result<Self, Vec<SettingError>> {
        let mut env = Env { lookup, errors: Vec::new() };
        let mut resource = defaults;
        for (key, value) in env.pairs("OTEL_RESOURCE_ATTRIBUTES", Secrecy::Open) {
            match key.as_str() {
                "service.name" => resource.name = value,
                "service.version" => resource.version = value,
                "service.instance.id" => resource.instance = value,
                "host.name" => resource.host = value,
                _ => resource.attributes.push((key, value)),
            }
        }
        if let Some(name) = env.get("OTEL_SERVICE_NAME") {
            resource.name = name;
        }
        if env.errors.is_empty() { Ok(resource) } else { Err(env.errors) }
    }

    /// All attributes with what Saola adds, each once; those without a value are left out.
    pub(super) fn all(&self) -> Vec<(&str, &str)> {
        let own = [
            ("service.name", self.name.as_str()),
            ("service.version", &self.version),
            ("service.instance.id", &self.instance),
            ("host.name", &self.host),
            ("process.runtime.name", "rust"),
            ("telemetry.sdk.name", "saola"),
            ("telemetry.sdk.language", "rust"),
            ("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
        ];
        let given = self.attributes.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let mut all: Vec<(&str, &str)> = Vec::new();
        for (key, value) in given.chain(own).filter(|(_, value)| !value.is_empty()) {
            match all.iter_mut().find(|(known, _)| *known == key) {
                // The last one counts.
                Some((_, former)) => *former = value,
                None => all.push((key, value)),
            }
        }
        all
    }

    /// The value of an attribute that has no field of its own.
    pub fn attribute(&self, key: &str) -> Option<&str> {
        self.attributes.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}
