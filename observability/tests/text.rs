//! What a scraper gets, read by a parser that is not ours, for any label value; and who may share a scrape.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of a test stand outside of it")]

use std::collections::BTreeMap;

use prometheus_parse::{Scrape, Value};
use proptest::strategy::{Strategy, ValueTree};
use saola_observability::metrics::{Counter, CounterVec, Histogram};
use saola_observability::reader::Reader;
use saola_observability::scraper::Scraper;
use saola_observability::{Choice, Epoch, RunDir, Shape, SpanId, TraceId};

static BY: CounterVec<2> = CounterVec::new("test_by_total", "By \\ \"label\".", ["a", "b"]);
static PLAIN: Counter = Counter::new("test_plain_total", "Plain.");
static WRAPS: Counter = Counter::new("test_wraps_total", "Wraps.");
static MONEY: Counter<f64> = Counter::new("test_money_total", "Money.");
static TIMES: Histogram = Histogram::new("test_seconds", "Times.", &[0.005, 1.0]).exemplars();

struct Server {
    epoch: Option<Epoch>,
    folder: tempfile::TempDir,
    _run_dir: RunDir,
}

impl Server {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let choice = Choice {
            given: Some(folder.path().join("run")),
            slots_at_peak: 1,
            ..Choice::default()
        };
        let mut run_dir = RunDir::choose(&choice).unwrap().dir;
        run_dir.lock("0").unwrap();
        let epoch = Epoch::create(&run_dir, Shape::default()).unwrap();
        epoch.publish().unwrap();
        Self { epoch: Some(epoch), folder, _run_dir: run_dir }
    }

    fn scraper(&self) -> Scraper {
        Scraper::new(self.folder.path().join("run"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(epoch) = self.epoch.take() {
            epoch.remove();
        }
    }
}

fn body(scraper: &Scraper, accept: &str) -> String {
    let answer = scraper.answer("GET", Some(accept), None);
    assert_eq!(answer.status, 200);
    String::from_utf8(answer.body.to_vec()).unwrap()
}

/// One test, because a process attaches one slot at a time.
#[test]
fn a_scrape_says_what_was_counted() {
    let server = Server::start();
    let scraper = server.scraper();
    any_label_value_reads_back(&scraper);
    label_sets_are_never_merged(&scraper);
    numbers_are_exact(&scraper);
    open_metrics_has_its_own_lines(&scraper);
    every_request_has_its_answer(&scraper);
    many_scrapers_at_once_agree(&server);
}

fn any_label_value_reads_back(scraper: &Scraper) {
    let mut seen = BTreeMap::new();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let cases = ("\\PC{0,12}", "[\\\\\"\n,}{= a]{0,6}");
    for _ in 0..300 {
        let (a, b) = cases.new_tree(&mut runner).unwrap().current();
        BY.with([&a, &b]).inc();
        *seen.entry((a, b)).or_insert(0_u32) += 1;
    }
    let mut reader = Reader::open(&server_path(scraper)).unwrap();
    let families = reader.read().unwrap();
    let family = families.list().iter().find(|family| family.name == "test_by_total").unwrap();
    for ((a, b), count) in &seen {
        let wanted = [("a", a), ("b", b)].map(|(name, value)| (name.to_owned(), value.clone()));
        let series = family.series.iter().find(|series| series.label_pairs() == wanted);
        assert!(
            series.is_some_and(|series| (series.value.as_f64() - f64::from(*count)).abs() < 0.5),
            "{a:?} {b:?}"
        );
    }
    // By the grammar of both formats, which is one for a sample's name, labels and value.
    for accept in ["text/plain", "application/openmetrics-text;version=1.0.0"] {
        let text = body(scraper, accept);
        let read: BTreeMap<(String, Vec<(String, String)>), String> =
            text.lines().filter(|line| !line.starts_with('#')).map(sample).collect();
        for ((a, b), count) in &seen {
            let labels = [("a", a), ("b", b)].map(|(name, value)| (name.to_owned(), value.clone()));
            let value = read.get(&("test_by_total".to_owned(), labels.to_vec()));
            assert_eq!(value, Some(&count.to_string()), "{accept}: {a:?} {b:?}");
        }
    }
    // A parser of somebody else's; it does not know escapes in values with commas and braces, so it reads those without.
    let text = body(scraper, "text/plain");
    let scrape = Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).unwrap();
    for ((a, b), count) in seen.iter().filter(|((a, b), _)| is_plain(a) && is_plain(b)) {
        let sample = scrape.samples.iter().find(|sample| {
            sample.metric == "test_by_total"
                && sample.labels.get("a") == Some(a)
                && sample.labels.get("b") == Some(b)
        });
        let value = sample.map(|sample| sample.value.clone());
        assert_eq!(value, Some(Value::Counter(f64::from(*count))), "{a:?} {b:?}");
    }
}

/// A line: name, labels with their escapes undone, value. An exemplar or a time behind it is left out.
fn sample(line: &str) -> ((String, Vec<(String, String)>), String) {
    let end = line.find(['{', ' ']).unwrap();
    let (name, mut rest) = line.split_at(end);
    assert!(name.chars().all(|one| one.is_ascii_alphanumeric() || one == '_'), "{line}");
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while let Some((label, value)) = rest.split_once("=\"") {
            let (value, behind) = quoted(value);
            labels.push((label.to_owned(), value));
            rest = behind;
            match rest.strip_prefix(',') {
                Some(next) => rest = next,
                None => break,
            }
        }
        rest = rest.strip_prefix('}').unwrap();
    }
    let value = rest.strip_prefix(' ').unwrap().split(' ').next().unwrap();
    ((name.to_owned(), labels), value.to_owned())
}

/// A value up to its closing quote, and what stands behind that.
fn quoted(text: &str) -> (String, &str) {
    let (mut value, mut chars) = (String::new(), text.chars());
    while let Some(one) = chars.next() {
        match one {
            '"' => return (value, chars.as_str()),
            '\\' => value.push(match chars.next() {
                Some('n') => '\n',
                Some(escaped @ ('\\' | '"')) => escaped,
                other => panic!("no such escape: {other:?} in {text}"),
            }),
            plain => value.push(plain),
        }
    }
    panic!("no end of the value: {text}")
}

fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.chars().all(char::is_alphanumeric)
}

fn server_path(scraper: &Scraper) -> std::path::PathBuf {
    scraper.run_dir().to_owned()
}

fn label_sets_are_never_merged(scraper: &Scraper) {
    for set in [["ab", "c"], ["a", "bc"], ["77kepQFQ8Kl", ""], ["!0IC=VloaY", ""]] {
        BY.with(set).inc();
    }
    let text = body(scraper, "text/plain");
    for labels in ["a=\"ab\",b=\"c\"", "a=\"a\",b=\"bc\"", "a=\"77kepQFQ8Kl\",b=\"\""] {
        assert!(text.contains(&format!("test_by_total{{{labels}}} 1\n")), "{labels}");
    }
    assert!(text.contains("test_by_total{a=\"!0IC=VloaY\",b=\"\"} 1\n"));
}

fn numbers_are_exact(scraper: &Scraper) {
    WRAPS.add(u64::MAX);
    PLAIN.add((1 << 53) + 1);
    MONEY.add(0.1);
    MONEY.add(0.2);
    MONEY.add(-1.0); // ignored
    MONEY.add(f64::NAN); // ignored
    let text = body(scraper, "text/plain");
    assert!(text.contains("test_wraps_total 18446744073709551615\n"));
    assert!(text.contains("test_plain_total 9007199254740993\n"));
    assert!(text.contains("test_money_total 0.30000000000000004\n"));
    assert!(text.contains("saola_metrics_series_dropped_total{reason=\"invalid\"} 2\n"));
    WRAPS.add(2);
    assert!(body(scraper, "text/plain").contains("test_wraps_total 1\n"));
}

fn open_metrics_has_its_own_lines(scraper: &Scraper) {
    TIMES.observe_with_exemplar(0.5, TraceId([0xab; 16]), SpanId([0xcd; 8]));
    let accept = "application/openmetrics-text;version=1.0.0";
    let (open, text) = (body(scraper, accept), body(scraper, "text/plain"));
    assert!(open.ends_with("# EOF\n"));
    assert!(open.contains("# TYPE test_plain counter\n"));
    assert!(open.contains("# UNIT test_seconds seconds\n"));
    let trace = "ab".repeat(16);
    let line = format!(
        "test_seconds_bucket{{le=\"1.0\"}} 1 # {{trace_id=\"{trace}\",span_id=\"{}\"}} 0.5 ",
        "cd".repeat(8)
    );
    assert!(open.contains(&line), "{open}");
    assert!(!text.contains("trace_id") && !text.contains("_created"));
    assert!(open.contains("\ntest_plain_created 1"));
    assert!(text.contains("# HELP test_by_total By \\\\ \"label\".\n"));
    assert!(open.contains("# HELP test_by By \\\\ \\\"label\\\".\n"));
}

fn every_request_has_its_answer(scraper: &Scraper) {
    let head = scraper.answer("HEAD", None, None);
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert!(head.length > 1_024);
    let refused = scraper.answer("DELETE", None, None);
    assert_eq!(refused.status, 405);
    assert!(refused.headers.contains(&("allow", "GET, HEAD")));
    let zipped = scraper.answer("GET", None, Some("gzip"));
    assert_eq!(zipped.headers.contains(&("content-encoding", "gzip")), cfg!(feature = "gzip"));
    assert!(zipped.headers.contains(&("vary", "Accept, Accept-Encoding")));
}

fn many_scrapers_at_once_agree(server: &Server) {
    let scraper = &server.scraper();
    let bodies: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..20).map(|_| scope.spawn(|| body(scraper, "text/plain"))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for body in &bodies {
        assert!(body.contains("test_plain_total 9007199254740993\n"));
        assert!(body.contains("# TYPE saola_scrape_duration_seconds histogram\n"));
    }
}
