//! Which format and encoding a scraper wants (RFC 9110 sections 12.5.1 and 12.5.3). Never an error: text is for everybody.

/// The two exposition formats.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Format {
    /// Prometheus text 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The `Content-Type` of a body in this format.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Whether a body may be compressed.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Encoding {
    /// As it is.
    Identity,
    /// gzip.
    Gzip,
}

/// What was agreed on.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Negotiated {
    /// The format.
    pub format: Format,
    /// The encoding that the scraper allows.
    pub encoding: Encoding,
}

impl Negotiated {
    /// Bodies below this many bytes are not worth compressing.
    pub const GZIP_FROM_BYTES: usize = 1_024;

    /// Reads `Accept` and `Accept-Encoding`; absent and malformed ones mean plain text as it is.
    pub fn from_headers(accept: Option<&str>, accept_encoding: Option<&str>) -> Self {
        let format = accept.map_or(Format::Text, format);
        let gzip = accept_encoding.is_some_and(|value| {
            items(value).any(|item| (item.name == "gzip" || item.name == "*") && item.quality > 0.0)
        });
        let refused = accept_encoding.is_some_and(|value| {
            items(value).any(|item| item.name == "gzip" && item.quality <= 0.0)
        });
        let encoding = if gzip && !refused { Encoding::Gzip } else { Encoding::Identity };
        Self { format, encoding }
    }
}

/// OpenMetrics only if it is named, in version 1.0.0 or none, and wanted more than text.
fn format(accept: &str) -> Format {
    let best = |names: &[&str], version: &str| {
        let items = items(accept).filter(|item| names.contains(&item.name.as_str()));
        let items =
            items.filter(|item| item.version.as_deref().is_none_or(|other| other == version));
        items.map(|item| item.quality).fold(0.0, f64::max)
    };
    let open_metrics = best(&["application/openmetrics-text"], "1.0.0");
    let text = best(&["text/plain"], "0.0.4");
    if open_metrics > text { Format::OpenMetrics } else { Format::Text }
}

struct Item {
    name: String,
    version: Option<String>,
    quality: f64,
}

fn items(value: &str) -> impl Iterator<Item = Item> {
    value.split(',').map(|item| {
        let mut parts = item.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let (mut version, mut quality) = (None, 1.0);
        for part in parts {
            match part.split_once('=') {
                Some(("q", value)) => quality = value.parse().unwrap_or(0.0),
                Some(("version", value)) => version = Some(value.trim_matches('"').to_owned()),
                _ => {}
            }
        }
        Item { name, version, quality }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scraper_gets_what_it_names() {
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, expected) in [
            (Some(prometheus), Format::OpenMetrics),
            (Some("application/openmetrics-text"), Format::OpenMetrics),
            (Some("application/openmetrics-text;version=0.0.1"), Format::Text),
            (Some("application/openmetrics-text;q=0.2, text/plain"), Format::Text),
            (Some("application/openmetrics-text;q=0"), Format::Text),
            (Some("*/*"), Format::Text),
            (Some(";;=,,"), Format::Text),
            (Some("application/json"), Format::Text),
            (None, Format::Text),
        ] {
            assert_eq!(Negotiated::from_headers(accept, None).format, expected, "{accept:?}");
        }
    }

    #[test]
    fn gzip_is_used_when_it_is_allowed() {
        for (accept, expected) in [
            (Some("gzip"), Encoding::Gzip),
            (Some("deflate, gzip;q=0.5"), Encoding::Gzip),
            (Some("*"), Encoding::Gzip),
            (Some("gzip;q=0"), Encoding::Identity),
            (Some("*, gzip;q=0"), Encoding::Identity),
            (Some("br"), Encoding::Identity),
            (None, Encoding::Identity),
        ] {
            assert_eq!(Negotiated::from_headers(None, accept).encoding, expected, "{accept:?}");
        }
    }
}
