//! Instants: microseconds since 1970 inside, RFC 3339 with six digits of fraction outside.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use utoipa::{PartialSchema, ToSchema};

use crate::db::{Column, Value};

/// Now, in microseconds.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// A time as clients see it: `2026-01-02T03:04:05.678901Z`. Some of them ask for the fraction.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Moment(pub(crate) i64);

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let timestamp = Timestamp::from_microsecond(self.0).unwrap_or_default();
        serializer.collect_str(&format_args!("{timestamp:.6}"))
    }
}

impl Column for Moment {
    fn from_value(value: Value) -> Option<Self> {
        i64::from_value(value).map(Self)
    }
}

impl PartialSchema for Moment {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        use utoipa::openapi::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
        let format = SchemaFormat::KnownFormat(KnownFormat::DateTime);
        ObjectBuilder::new().schema_type(Type::String).format(Some(format)).into()
    }
}

impl ToSchema for Moment {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fraction_always_has_six_digits() {
        let shown = |moment| serde_json::to_string(&Moment(moment)).unwrap();
        assert_eq!(shown(1_767_323_045_678_901), "\"2026-01-02T03:04:05.678901Z\"");
        assert_eq!(shown(1_767_323_045_000_000), "\"2026-01-02T03:04:05.000000Z\"");
    }
}
