//! Names, helps, labels and bounds are checked when the program is compiled: a wrong one does not build.

use crate::names;

/// The rules for a counter; others use [`name`].
pub(super) const fn counter(name_text: &str, help_text: &str, labels: &[&str]) {
    letters(name_text);
    assert!(ends_with(name_text, "_total"), "the name of a counter must end with _total");
    units(name_text);
    help(help_text);
    label_names(labels);
}

/// The rules for every other metric.
pub(super) const fn name(name_text: &str, help_text: &str, labels: &[&str]) {
    letters(name_text);
    assert!(!ends_with(name_text, "_total"), "only the name of a counter ends with _total");
    assert!(
        // The one that OpenTelemetry's conventions name so; there is no histogram of that name.
        (!ends_with(name_text, "_count") || same(name_text, names::DB_CLIENT_CONNECTION_COUNT))
            && !ends_with(name_text, "_sum")
            && !ends_with(name_text, "_bucket")
            && !ends_with(name_text, "_created"),
        "_count, _sum, _bucket and _created are suffixes of the exposition, not of a name"
    );
    units(name_text);
    help(help_text);
    label_names(labels);
}

/// Bounds of a histogram.
pub(super) const fn bounds(bounds: &[f64]) {
    assert!(
        !bounds.is_empty() && bounds.len() <= 64,
        "a histogram has 1 to 64 bounds; +Inf is added"
    );
    let mut at = 0;
    while at < bounds.len() {
        assert!(bounds[at].is_finite(), "bounds are finite; +Inf is added");
        assert!(at == 0 || bounds[at - 1] < bounds[at], "bounds ascend");
        at += 1;
    }
}

const fn letters(text: &str) {
    assert!(is_word(text), "the name of a metric is [a-z][a-z0-9_]*");
}

const fn units(text: &str) {
    const WRONG: [&str; 9] = [
        "_ms",
        "_milliseconds",
        "_micros",
        "_nanos",
        "_minutes",
        "_kb",
        "_mb",
        "_percent",
        "_microseconds",
    ];
    let mut at = 0;
    while at < WRONG.len() {
        assert!(
            !ends_with(text, WRONG[at]) && !ends_before_total(text, WRONG[at]),
            "metrics use base units: seconds, bytes, ratios"
        );
        at += 1;
    }
}

const fn help(text: &str) {
    assert!(
        !text.is_empty() && ends_with(text, "."),
        "the help of a metric is a sentence with a full stop"
    );
}

const fn label_names(labels: &[&str]) {
    let mut at = 0;
    while at < labels.len() {
        assert!(is_word(labels[at]), "a label name is [a-z][a-z0-9_]*");
        assert!(
            !same(labels[at], "le") && !same(labels[at], "worker") && !same(labels[at], "quantile"),
            "the labels le, worker and quantile are not the program's to set"
        );
        let mut before = 0;
        while before < at {
            assert!(!same(labels[at], labels[before]), "label names are distinct");
            before += 1;
        }
        at += 1;
    }
}

const fn is_word(text: &str) -> bool {
    let bytes = text.as_bytes();
    if bytes.is_empty() || !bytes[0].is_ascii_lowercase() {
        return false;
    }
    let mut at = 0;
    while at < bytes.len() {
        if !bytes[at].is_ascii_lowercase() && !bytes[at].is_ascii_digit() && bytes[at] != b'_' {
            return false;
        }
        at += 1;
    }
    true
}

const fn same(left: &str, right: &str) -> bool {
    left.len() == right.len() && ends_with(left, right)
}

const fn ends_with(text: &str, end: &str) -> bool {
    stands_at_end(text.as_bytes(), text.len(), end.as_bytes())
}

const fn ends_before_total(text: &str, end: &str) -> bool {
    ends_with(text, "_total") && stands_at_end(text.as_bytes(), text.len() - 6, end.as_bytes())
}

const fn stands_at_end(text: &[u8], length: usize, end: &[u8]) -> bool {
    if end.len() > length {
        return false;
    }
    let mut at = 0;
    while at < end.len() {
        if text[length - end.len() + at] != end[at] {
            return false;
        }
        at += 1;
    }
    true
}
