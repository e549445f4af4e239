//! A run directory as a collector of the `prometheus` crate, for programs that already have a registry of it (F70).
//!
//! For text use [`crate::scraper::Scraper`]: that crate prints bounds as `1`, ours as `1.0`, and mixing the two gives two
//! series. Exemplars are not carried.

use std::sync::{Mutex, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use crate::reader::{Families, FamilyRead, Reader, SeriesRead, Shown, ValueRead};

/// Collects the metrics of a whole server into a registry of the `prometheus` crate.
///
/// ```no_run
/// use saola_observability::prometheus::ServerCollector;
/// use saola_observability::reader::Reader;
///
/// let reader = Reader::open(std::path::Path::new("/dev/shm/saola-1000/shop")).unwrap();
/// let registry = prometheus::Registry::new();
/// registry.register(Box::new(ServerCollector::new(reader).unwrap())).unwrap();
/// let families = registry.gather();
/// ```
pub struct ServerCollector {
    reader: Mutex<Reader>,
    description: Desc,
}

impl ServerCollector {
    /// A collector of what a reader reads.
    ///
    /// # Errors
    ///
    /// None in practice: its description is a constant; the crate checks it all the same.
    pub fn new(reader: Reader) -> Result<Self, prometheus::Error> {
        // One description: a registry takes an empty list only once.
        let (name, help) = ("saola_run_directory", "All metrics of a saola server.");
        let description = Desc::new(
            name.to_owned(),
            help.to_owned(),
            Vec::new(),
            std::collections::HashMap::new(),
        )?;
        Ok(Self { reader: Mutex::new(reader), description })
    }
}

impl Collector for ServerCollector {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.description]
    }

    /// Empty while the server is gone.
    fn collect(&self) -> Vec<MetricFamily> {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        reader.read().map(families).unwrap_or_default()
    }
}

/// The families as that crate's structures. Empty ones are left out: its encoder refuses them.
pub fn families(families: &Families) -> Vec<MetricFamily> {
    let known = families.list().iter().filter(|family| family.is_known);
    known.map(family).filter(|family| !family.get_metric().is_empty()).collect()
}

fn family(read: &FamilyRead) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(read.name.clone());
    family.set_help(read.help.clone());
    family.set_field_type(match read.shown {
        Shown::Counter => MetricType::COUNTER,
        Shown::Gauge => MetricType::GAUGE,
        Shown::Histogram => MetricType::HISTOGRAM,
    });
    family.set_metric(read.series.iter().filter_map(|series| metric(read, series)).collect());
    family
}

fn metric(family: &FamilyRead, series: &SeriesRead) -> Option<Metric> {
    let mut metric = Metric::from_label(series.label_pairs().into_iter().map(label).collect());
    match (&series.value, family.shown) {
        (ValueRead::Absent, _) => return None,
        (ValueRead::Histogram(buckets, sum), _) => {
            metric.set_histogram(histogram(&family.bounds, buckets, *sum));
        }
        (value, Shown::Counter) => {
            let mut counter = Counter::default();
            counter.set_value(value.as_f64());
            metric.set_counter(counter);
        }
        (value, Shown::Gauge | Shown::Histogram) => {
            let mut gauge = Gauge::default();
            gauge.set_value(value.as_f64());
            metric.set_gauge(gauge);
        }
    }
    Some(metric)
}

fn label((name, value): (String, String)) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name);
    pair.set_value(value);
    pair
}

fn histogram(bounds: &[f64], buckets: &[u64], sum: f64) -> Histogram {
    let mut count = 0_u64;
    let mut list = Vec::new();
    let bounds = bounds.iter().copied().chain([f64::INFINITY]);
    for (bound, part) in bounds.zip(buckets) {
        count = count.wrapping_add(*part);
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound);
        bucket.set_cumulative_count(count);
        list.push(bucket);
    }
    let mut histogram = Histogram::default();
    histogram.set_sample_count(count);
    histogram.set_sample_sum(sum);
    histogram.set_bucket(list);
    histogram
}
