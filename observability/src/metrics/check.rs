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

#[cfg(test)]
mod tests {
    use super::*;

    /// What the compiler says where the declaration stands, as the panic that it is when it is made at run time.
    fn refusal(declare: impl FnOnce() + std::panic::UnwindSafe) -> Option<String> {
        let payload = std::panic::catch_unwind(declare).err()?;
        Some(payload.downcast_ref::<&str>().map(|text| (*text).to_owned()).unwrap_or_default())
    }

    #[test]
    fn each_rule_refuses_with_its_own_words() {
        const LETTERS: &str = "the name of a metric is [a-z][a-z0-9_]*";
        const UNITS: &str = "metrics use base units: seconds, bytes, ratios";
        const SUFFIX: &str =
            "_count, _sum, _bucket and _created are suffixes of the exposition, not of a name";
        const TOTAL: &str = "only the name of a counter ends with _total";
        const HELP: &str = "the help of a metric is a sentence with a full stop";
        const LABEL: &str = "a label name is [a-z][a-z0-9_]*";
        const OURS: &str = "the labels le, worker and quantile are not the program's to set";
        let names = [("", LETTERS), ("A", LETTERS), ("aB", LETTERS), ("1a", LETTERS)]
            .into_iter()
            .chain([("_a", LETTERS), ("a-b", LETTERS), ("a.b", LETTERS), ("\u{e4}", LETTERS)])
            .chain([("a_total", TOTAL), ("a_count", SUFFIX), ("a_sum", SUFFIX)])
            .chain([("a_bucket", SUFFIX), ("a_created", SUFFIX)])
            .chain([("a_ms", UNITS), ("a_milliseconds", UNITS), ("a_microseconds", UNITS)])
            .chain([("a_micros", UNITS), ("a_nanos", UNITS), ("a_minutes", UNITS)])
            .chain([("a_kb", UNITS), ("a_mb", UNITS), ("a_percent", UNITS)]);
        for (text, words) in names {
            assert_eq!(refusal(|| name(text, "Help.", &[])).as_deref(), Some(words), "{text}");
            if words == UNITS {
                let text = format!("{text}_total");
                assert_eq!(refusal(|| counter(&text, "Help.", &[])).as_deref(), Some(UNITS));
            }
        }
        let without = refusal(|| counter("a", "Help.", &[]));
        assert_eq!(without.as_deref(), Some("the name of a counter must end with _total"));
        for help in ["", "Help", "Help. "] {
            assert_eq!(refusal(|| name("a", help, &[])).as_deref(), Some(HELP), "{help}");
        }
        for (label, words) in [("", LABEL), ("X", LABEL), ("__x", LABEL), ("a b", LABEL)]
            .into_iter()
            .chain([("le", OURS), ("worker", OURS), ("quantile", OURS)])
        {
            assert_eq!(refusal(|| name("a", "Help.", &[label])).as_deref(), Some(words), "{label}");
        }
        let twice = refusal(|| name("a", "Help.", &["x", "y", "x"]));
        assert_eq!(twice.as_deref(), Some("label names are distinct"));
    }

    #[test]
    fn bounds_are_finite_ascend_and_are_not_too_many() {
        const COUNT: &str = "a histogram has 1 to 64 bounds; +Inf is added";
        const FINITE: &str = "bounds are finite; +Inf is added";
        let many: Vec<f64> = (0..65).map(f64::from).collect();
        let cases: [(&[f64], &str); 8] = [
            (&[], COUNT),
            (&many, COUNT),
            (&[f64::NAN], FINITE),
            (&[1.0, f64::INFINITY], FINITE),
            (&[f64::NEG_INFINITY, 1.0], FINITE),
            (&[2.0, 1.0], "bounds ascend"),
            (&[1.0, 1.0], "bounds ascend"),
            (&[0.0, -0.0], "bounds ascend"),
        ];
        for (given, words) in cases {
            assert_eq!(refusal(|| bounds(given)).as_deref(), Some(words), "{given:?}");
        }
    }

    #[test]
    fn what_keeps_to_the_rules_is_taken() {
        counter("a_total", "Help.", &["x", "y"]);
        counter("a_seconds_total", "Help.", &[]);
        name("a1_ratio", "Help.", &["x_1"]);
        name(names::DB_CLIENT_CONNECTION_COUNT, "Help.", &[]);
        let many: Vec<f64> = (-1..63).map(f64::from).collect();
        bounds(&many);
        bounds(&[-1.0]);
    }
}
