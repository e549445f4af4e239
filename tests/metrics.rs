//! A strict reader of the Prometheus text format 0.0.4: what a scraper would refuse or misread fails the test.

use std::collections::{BTreeMap, BTreeSet};

/// One scrape.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    samples: Vec<Sample>,
    types: BTreeMap<String, String>,
}

#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
    text: String,
}

impl Sample {
    pub(crate) fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    /// The value, which must be a whole number.
    pub(crate) fn count(&self) -> u64 {
        self.text
            .parse()
            .unwrap_or_else(|_| panic!("{} is {}, no whole number", self.name, self.text))
    }

    /// Name and labels.
    fn series(&self) -> String {
        format!("{}{:?}", self.name, self.labels)
    }
}

impl Metrics {
    /// Reads a scrape.
    ///
    /// # Panics
    ///
    /// If it breaks a rule of the format or of names.md.
    pub(crate) fn parse(text: &str) -> Self {
        Self::try_parse(text).unwrap_or_else(|why| panic!("{why}\nin the scrape:\n{text}"))
    }

    pub(crate) fn try_parse(text: &str) -> Result<Self, String> {
        if !text.ends_with('\n') {
            return Err("the last line has no end".to_owned());
        }
        let mut metrics = Self { samples: Vec::new(), types: BTreeMap::new() };
        let mut family = String::new();
        let mut helped = BTreeSet::new();
        let mut seen = BTreeSet::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').ok_or(format!("no help: {line}"))?;
                check(
                    helped.insert(name.to_owned()) && !help.is_empty(),
                    "help once, with a text",
                    line,
                )?;
                check(!metrics.types.contains_key(name), "help stands before the type", line)?;
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').ok_or(format!("no type: {line}"))?;
                check(["counter", "gauge", "histogram"].contains(&kind), "a known type", line)?;
                check(
                    kind != "counter" || name.ends_with("_total"),
                    "a counter ends in _total",
                    line,
                )?;
                check(
                    metrics.types.insert(name.to_owned(), kind.to_owned()).is_none(),
                    "one type a family",
                    line,
                )?;
                name.clone_into(&mut family);
            } else {
                let sample = sample(line)?;
                let kind = metrics.types.get(&family).map_or("", String::as_str);
                let stem = sample.name.strip_prefix(&family);
                let fits = match kind {
                    "histogram" => matches!(stem, Some("_bucket" | "_sum" | "_count")),
                    _ => stem == Some(""),
                };
                check(fits, "samples follow the type of their family", line)?;
                check(seen.insert(sample.series()), "a series stands once", line)?;
                check(kind != "counter" || sample.value >= 0.0, "a counter is not negative", line)?;
                metrics.samples.push(sample);
            }
        }
        metrics.check_histograms()?;
        Ok(metrics)
    }

    /// The sum of a family's whole numbers over all labels.
    pub(crate) fn sum(&self, name: &str) -> u64 {
        self.of(name).map(Sample::count).sum()
    }

    /// The sum over the series with these labels; 0 when there is none.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let fits =
            |sample: &&Sample| labels.iter().all(|(label, value)| sample.label(label) == *value);
        self.of(name).filter(fits).map(Sample::count).sum()
    }

    /// The samples of one name.
    pub(crate) fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| sample.name == name)
    }

    /// Every series that may never fall, with its value.
    pub(crate) fn cumulative(&self) -> BTreeMap<String, f64> {
        let is_cumulative = |sample: &&Sample| {
            let stem = |end| sample.name.strip_suffix(end).and_then(|stem| self.types.get(stem));
            let is_of_histogram = ["_bucket", "_sum", "_count"]
                .into_iter()
                .any(|end| stem(end).is_some_and(|kind| kind == "histogram"));
            is_of_histogram || self.types.get(&sample.name).is_some_and(|kind| kind == "counter")
        };
        self.samples
            .iter()
            .filter(is_cumulative)
            .map(|sample| (sample.series(), sample.value))
            .collect()
    }

    fn check_histograms(&self) -> Result<(), String> {
        for (family, _) in self.types.iter().filter(|(_, kind)| *kind == "histogram") {
            let mut rows: BTreeMap<String, Vec<(f64, u64)>> = BTreeMap::new();
            for bucket in self.of(&format!("{family}_bucket")) {
                let le = bucket.label("le");
                check(
                    le == "+Inf" || le.contains('.'),
                    "a bound prints with a fraction",
                    &bucket.series(),
                )?;
                let mut labels = bucket.labels.clone();
                labels.remove("le");
                rows.entry(format!("{labels:?}")).or_default().push((number(le)?, bucket.count()));
            }
            let counts = format!("{family}_count");
            for (labels, row) in rows {
                let is_sorted =
                    row.is_sorted_by(|left, right| left.0 < right.0 && left.1 <= right.1);
                check(is_sorted, "buckets rise", &format!("{family} {labels} {row:?}"))?;
                let (last, count) = row.last().copied().unwrap_or_default();
                let counted =
                    self.of(&counts).find(|sample| format!("{:?}", sample.labels) == labels);
                check(
                    last.is_infinite() && counted.is_some_and(|sample| sample.count() == count),
                    "+Inf is the count",
                    &labels,
                )?;
            }
        }
        Ok(())
    }
}

/// Fails if a counter of `before` fell or vanished.
pub(crate) fn assert_no_fall(before: &Metrics, after: &Metrics) {
    let now = after.cumulative();
    for (series, value) in before.cumulative() {
        // process_* are the processes' own: a new process starts at 0.
        if series.starts_with("process_") {
            continue;
        }
        let next = now.get(&series).unwrap_or_else(|| panic!("{series} was {value} and vanished"));
        assert!(*next >= value, "{series} fell from {value} to {next}");
    }
}

fn check(holds: bool, rule: &str, at: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("broken: {rule}: {at}")) }
}

fn number(text: &str) -> Result<f64, String> {
    match text {
        "+Inf" => Ok(f64::INFINITY),
        "-Inf" => Ok(f64::NEG_INFINITY),
        "NaN" => Ok(f64::NAN),
        other => {
            let is_plain =
                other.bytes().all(|byte| byte.is_ascii_digit() || b"+-.e".contains(&byte));
            other.parse().ok().filter(|_| is_plain).ok_or(format!("{other:?} is no number"))
        }
    }
}

fn sample(line: &str) -> Result<Sample, String> {
    let end = line.find(['{', ' ']).ok_or(format!("no sample: {line}"))?;
    let (name, mut rest) = line.split_at(end);
    let is_name = |text: &str| {
        let is_inside = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        !text.is_empty()
            && text.bytes().all(is_inside)
            && !text.starts_with(|c: char| c.is_ascii_digit())
    };
    check(is_name(name), "a name of letters, digits and _", line)?;
    let mut labels = BTreeMap::new();
    if let Some(mut inside) = rest.strip_prefix('{') {
        loop {
            let (label, behind) =
                inside.split_once("=\"").ok_or(format!("a label without a value: {line}"))?;
            let (value, behind) =
                label_value(behind).ok_or(format!("a label that does not end: {line}"))?;
            check(
                is_name(label) && labels.insert(label.to_owned(), value).is_none(),
                "a label once",
                line,
            )?;
            let Some(next) = behind.strip_prefix(',') else {
                let end = behind.strip_prefix('}');
                rest = end.ok_or(format!("labels that do not end: {line}"))?;
                break;
            };
            inside = next;
        }
    }
    let text = rest.strip_prefix(' ').ok_or(format!("no value: {line}"))?;
    Ok(Sample { name: name.to_owned(), labels, value: number(text)?, text: text.to_owned() })
}

/// The value up to its quote, and what follows the quote.
fn label_value(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return text.split_at_checked(at + 1).map(|(_, rest)| (value, rest)),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                same @ ('\\' | '"') => same,
                _ => return None,
            }),
            same => value.push(same),
        }
    }
    None
}

mod facts {
    use super::*;

    #[test]
    fn the_reader_of_metrics_refuses_what_a_scraper_would_misread() {
        let good = "# HELP a_total Help.\n# TYPE a_total counter\na_total{x=\"1\"} 1\na_total{x=\"2\"} 2\n";
        assert_eq!(Metrics::parse(good).sum("a_total"), 3);
        let wrong = [
            "a_total 1\n",
            "# TYPE a_total counter\na_total 1",
            "# TYPE a_total counter\na_total 1\na_total 1\n",
            "# TYPE a_total counter\na_total -1\n",
            "# TYPE a_total counter\na_total{x=1} 1\n",
            "# TYPE a_total counter\na_total{x=\"1} 1\n",
            "# TYPE a_total counter\nb_total 1\n",
            "# TYPE a counter\na 1\n",
            "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 1\n",
            "# TYPE h histogram\nh_bucket{le=\"1.0\"} 2\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 1\n",
            "# TYPE h histogram\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 2\n",
        ];
        for text in wrong {
            assert!(Metrics::try_parse(text).is_err(), "{text}");
        }
    }
}
