//! Families as text: Prometheus 0.0.4 and OpenMetrics 1.0, chosen by the scraper's `Accept`.

mod negotiate;

use std::io::Write as _;

pub use crate::exposition::negotiate::{Encoding, Format, Negotiated};
use crate::numbers::number;
use crate::reader::{Families, FamilyRead, SeriesRead, Shown, ValueRead};

/// Writes the families in a format. [`Reader`](crate::reader::Reader) shows it at work.
pub fn text(families: &Families, format: Format) -> Vec<u8> {
    let mut out = Vec::new();
    text_into(families, format, &mut out);
    out
}

/// Writes the families in a format into a buffer that is emptied first: one that is kept between scrapes is not grown again.
pub fn text_into(families: &Families, format: Format, out: &mut Vec<u8>) {
    out.clear();
    let known = || families.list().iter().filter(|family| family.is_known);
    let lines = known().flat_map(|family| &family.series).map(|series| series.heads.line_bytes());
    out.reserve(lines.sum::<usize>() + (16 << 10));
    for family in known() {
        Writer { out, family, format, created_ns: families.created_ns() }.family();
    }
    if format == Format::OpenMetrics {
        out.extend_from_slice(b"# EOF\n");
    }
}

/// Compresses a body: level 1, because a scrape is read once.
///
/// # Errors
///
/// None in practice: it writes to memory; the encoder's signature has one.
#[cfg(feature = "gzip")]
pub fn gzip(body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(body)?;
    encoder.finish()
}

struct Writer<'w> {
    out: &'w mut Vec<u8>,
    family: &'w FamilyRead,
    format: Format,
    created_ns: u64,
}

impl Writer<'_> {
    fn family(&mut self) {
        let kind = match self.family.shown {
            Shown::Counter => "counter",
            Shown::Gauge => "gauge",
            Shown::Histogram => "histogram",
        };
        let is_open_metrics = self.format == Format::OpenMetrics;
        let full: &str = &self.family.name;
        // OpenMetrics names a counter's family without the suffix of its series.
        let is_base = is_open_metrics && self.family.shown == Shown::Counter;
        let name = if is_base { base(full) } else { full };
        self.all(&["# HELP ", name, " "]);
        self.help();
        self.all(&["\n# TYPE ", name, " ", kind, "\n"]);
        if is_open_metrics && let Some(unit) = unit(name) {
            self.all(&["# UNIT ", name, " ", unit, "\n"]);
        }
        for series in &self.family.series {
            self.series(series);
        }
    }

    fn all(&mut self, parts: &[&str]) {
        for part in parts {
            self.out.extend_from_slice(part.as_bytes());
        }
    }

    /// A help escapes backslash and line feed, in OpenMetrics the quote too.
    fn help(&mut self) {
        for byte in self.family.help.bytes() {
            match byte {
                b'\\' => self.out.extend_from_slice(b"\\\\"),
                b'\n' => self.out.extend_from_slice(b"\\n"),
                b'"' if self.format == Format::OpenMetrics => self.out.extend_from_slice(b"\\\""),
                other => self.out.push(other),
            }
        }
    }

    fn series(&mut self, series: &SeriesRead) {
        let mut heads = series.heads.iter();
        match &series.value {
            ValueRead::Absent => return,
            ValueRead::U64(value) => {
                self.head(heads.next());
                self.u64(*value);
            }
            ValueRead::F64(value) => {
                self.head(heads.next());
                self.f64(*value);
            }
            ValueRead::Histogram(buckets, sum) => {
                let mut count = 0_u64;
                for (at, bucket) in buckets.iter().enumerate() {
                    count = count.wrapping_add(*bucket);
                    self.head(heads.next());
                    self.u64(count);
                    self.exemplar(series, at);
                }
                self.head(heads.next());
                self.f64(*sum);
                self.head(heads.next());
                self.u64(count);
            }
        }
        self.created(&series.labels);
    }

    fn head(&mut self, head: Option<&[u8]>) {
        self.out.extend_from_slice(head.unwrap_or_default());
    }

    /// OpenMetrics only: the trace of a value in this bucket, behind the line's number.
    fn exemplar(&mut self, series: &SeriesRead, bucket: usize) {
        let found = series.exemplars.iter().find(|(other, _)| *other == bucket);
        let Some((_, exemplar)) = found.filter(|_| self.format == Format::OpenMetrics) else {
            return;
        };
        self.out.pop(); // the line goes on
        let _ = write!(
            self.out,
            " # {{trace_id=\"{}\",span_id=\"{}\"}} ",
            exemplar.trace, exemplar.span
        ); // writing to memory cannot fail
        number(self.out, exemplar.value);
        self.out.push(b' ');
        self.seconds(exemplar.wall_ns);
    }

    /// OpenMetrics only: since when a counter or histogram counts.
    fn created(&mut self, labels: &str) {
        if self.format != Format::OpenMetrics || self.family.shown == Shown::Gauge {
            return;
        }
        let name = base(&self.family.name);
        self.all(&[name, "_created"]);
        if !labels.is_empty() {
            self.all(&["{", labels, "}"]);
        }
        self.out.push(b' ');
        self.seconds(self.created_ns);
    }

    fn seconds(&mut self, nanoseconds: u64) {
        let (seconds, rest) = (nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000);
        let _ = writeln!(self.out, "{seconds}.{rest:09}"); // writing to memory cannot fail
    }

    fn u64(&mut self, value: u64) {
        self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
        self.out.push(b'\n');
    }

    fn f64(&mut self, value: f64) {
        number(self.out, value);
        self.out.push(b'\n');
    }
}

/// The name without the counter's suffix.
fn base(name: &str) -> &str {
    name.strip_suffix("_total").unwrap_or(name)
}

/// The unit that a name ends in, if OpenMetrics knows it.
fn unit(name: &str) -> Option<&'static str> {
    ["seconds", "bytes", "ratio"]
        .into_iter()
        .find(|unit| name.strip_suffix(unit).is_some_and(|rest| rest.ends_with('_')))
}
