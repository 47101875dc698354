//! Figures for Prometheus, as [`table`] lists them.
//!
//! Counters are kept by whoever does the work, once a batch and never once a row. Everything that can be looked up is
//! looked up when somebody asks ([`show`]), from what [`crate::vitals`] saw last: the page, the health answer and the
//! metrics can't say different things.

mod show;
pub mod table;

pub use show::show;

use prometheus::core::Collector;
use prometheus::{CounterVec, GaugeVec, HistogramOpts, HistogramVec, Opts, Registry, TextEncoder};
use std::collections::HashMap;
use std::sync::Arc;
use table::{Id, Kind, MICROSECONDS, Metric, TABLE};

/// The metrics of one node. Cheap to clone; clones share the figures.
#[derive(Clone)]
pub struct Metrics(Arc<Vec<Family>>);

enum Family {
    Counter(CounterVec),
    Gauge(GaugeVec),
    Histogram(HistogramVec),
}

impl Family {
    fn new(metric: &Metric) -> prometheus::Result<Self> {
        let opts = Opts::new(metric.name, metric.help());
        let labels = metric.labels;
        let family = match metric.kind {
            Kind::Counter => Self::Counter(CounterVec::new(opts, labels)?),
            Kind::Gauge => Self::Gauge(GaugeVec::new(opts, labels)?),
            Kind::Histogram => {
                let opts = HistogramOpts::from(opts).buckets(MICROSECONDS.to_vec());
                Self::Histogram(HistogramVec::new(opts, labels)?)
            }
        };
        if labels.is_empty() {
            // It is there from the beginning, as 0: what is not there can't be told from what never happens.
            match &family {
                Self::Counter(counter) => drop(counter.get_metric_with_label_values::<&str>(&[])),
                Self::Gauge(gauge) => drop(gauge.get_metric_with_label_values::<&str>(&[])),
                Self::Histogram(histogram) => drop(histogram.get_metric_with_label_values::<&str>(&[])),
            }
        }
        Ok(family)
    }

    fn collector(&self) -> Box<dyn Collector> {
        match self {
            Self::Counter(counter) => Box::new(counter.clone()),
            Self::Gauge(gauge) => Box::new(gauge.clone()),
            Self::Histogram(histogram) => Box::new(histogram.clone()),
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        // That the table makes sense is what its test is for; a metric that does not is left out of all answers.
        Self(Arc::new(TABLE.iter().filter_map(|metric| Family::new(metric).ok()).collect()))
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    fn family(&self, id: Id) -> Option<&Family> {
        self.0.get(id as usize)
    }

    /// A counter grows.
    pub fn add(&self, id: Id, labels: &[&str], by: f64) {
        if let Some(Family::Counter(counter)) = self.family(id)
            && by > 0.0
            && let Ok(counter) = counter.get_metric_with_label_values(labels)
        {
            counter.inc_by(by);
        }
    }

    /// A counter grows by so many.
    pub fn count(&self, id: Id, by: u64) {
        self.add(id, &[], figure(by));
    }

    /// A counter that is kept elsewhere has come to this.
    pub fn total(&self, id: Id, labels: &[&str], total: f64) {
        if let Some(Family::Counter(counter)) = self.family(id)
            && let Ok(counter) = counter.get_metric_with_label_values(labels)
        {
            let more = total - counter.get();
            if more > 0.0 {
                counter.inc_by(more);
            }
        }
    }

    /// A gauge stands here.
    pub fn set(&self, id: Id, labels: &[&str], value: f64) {
        if let Some(Family::Gauge(gauge)) = self.family(id)
            && let Ok(gauge) = gauge.get_metric_with_label_values(labels)
        {
            gauge.set(value);
        }
    }

    /// Something took so long.
    pub fn took(&self, id: Id, time: std::time::Duration) {
        if let Some(Family::Histogram(histogram)) = self.family(id)
            && let Ok(histogram) = histogram.get_metric_with_label_values::<&str>(&[])
        {
            histogram.observe(time.as_secs_f64() * 1e6);
        }
    }

    /// A gauge whose labels come and go begins anew.
    pub fn clear(&self, id: Id) {
        if let Some(Family::Gauge(gauge)) = self.family(id) {
            gauge.reset();
        }
    }

    /// A counter or a gauge without labels, as it stands.
    #[must_use]
    pub fn value(&self, id: Id) -> f64 {
        match self.family(id) {
            Some(Family::Counter(counter)) => {
                counter.get_metric_with_label_values::<&str>(&[]).map_or(0.0, |counter| counter.get())
            }
            Some(Family::Gauge(gauge)) => {
                gauge.get_metric_with_label_values::<&str>(&[]).map_or(0.0, |gauge| gauge.get())
            }
            _ => 0.0,
        }
    }

    /// All of it as Prometheus reads it: names begin with `prefix` and each has the label `node_id`.
    ///
    /// # Errors
    /// When a name or a label is none.
    pub fn text(&self, prefix: &str, node: u64) -> Result<String, prometheus::Error> {
        let prefix = Some(prefix.to_owned()).filter(|prefix| !prefix.is_empty());
        let labels = HashMap::from([("node_id".to_owned(), node.to_string())]);
        let registry = Registry::new_custom(prefix, Some(labels))?;
        for family in self.0.iter() {
            registry.register(family.collector())?;
        }
        TextEncoder::new().encode_to_string(&registry.gather())
    }
}

/// A number as metrics have them.
#[expect(clippy::cast_precision_loss, reason = "metrics are floating-point numbers, exact up to 2^53")]
pub(crate) fn figure(number: u64) -> f64 {
    number as f64
}

/// The first parts of each name: namespace and subsystem.
#[must_use]
pub fn prefix(namespace: &str, subsystem: &str) -> String {
    let parts = [namespace, subsystem];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("_")
}

/// The table as a page of the guide.
#[must_use]
pub fn page() -> String {
    let mut page = String::from(include_str!("metrics/page.md"));
    for metric in TABLE {
        let labels = metric.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        let (name, kind, help) = (metric.name, metric.kind.name(), metric.help());
        crate::pages::row(&mut page, &[&format!("`{name}`"), kind, &labels, &help]);
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_can_be_read() {
        let metrics = Metrics::default();
        assert_eq!(metrics.0.len(), TABLE.len(), "the table makes sense");
        metrics.count(Id::Published, 3);
        metrics.count(Id::Published, 2);
        metrics.set(Id::LagEntries, &["1"], 7.0);
        metrics.took(Id::ScanChanges, std::time::Duration::from_micros(40));
        metrics.total(Id::PluginCalls, &["fnv", "hasher"], 9.0);
        metrics.total(Id::PluginCalls, &["fnv", "hasher"], 11.0);
        let text = metrics.text("harmonylite", 42).unwrap();
        for line in [
            "# TYPE harmonylite_published counter",
            "harmonylite_published{node_id=\"42\"} 5",
            "harmonylite_lag_entries{shard=\"1\",node_id=\"42\"} 7",
            "harmonylite_scan_changes_bucket{node_id=\"42\",le=\"25\"} 0",
            "harmonylite_scan_changes_bucket{node_id=\"42\",le=\"50\"} 1",
            "harmonylite_scan_changes_sum{node_id=\"42\"} 40",
            "harmonylite_plugin_calls{kind=\"hasher\",plugin=\"fnv\",node_id=\"42\"} 11",
            "harmonylite_schema_mismatch_paused{node_id=\"42\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        metrics.clear(Id::LagEntries);
        assert!(!metrics.text("", 42).unwrap().contains("lag_entries{"));
        assert!(metrics.text("", 42).unwrap().contains("\npublished{node_id=\"42\"} 5\n"));
    }

    #[test]
    fn names_begin_with_what_is_set() {
        assert_eq!(prefix("harmonylite", ""), "harmonylite");
        assert_eq!(prefix("a", "b"), "a_b");
        assert_eq!(prefix("", "b"), "b");
        assert_eq!(prefix("", ""), "");
    }

    /// Rules and dashboard name nothing that is not served, labels included.
    #[test]
    fn what_the_examples_ask_for_is_in_the_table() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/monitoring");
        for file in ["rules.yml", "dashboard.json"] {
            let text = std::fs::read_to_string(folder.join(file)).unwrap();
            let mut asked = 0;
            for (at, _) in text.match_indices("harmonylite_") {
                let rest = &text[at + "harmonylite_".len()..];
                let name: String = rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
                let found = TABLE.iter().find(|metric| match metric.kind {
                    Kind::Histogram => {
                        ["_bucket", "_sum", "_count"].iter().any(|end| name == format!("{}{end}", metric.name))
                    }
                    _ => name == metric.name,
                });
                let Some(metric) = found else { panic!("`{name}` in {file} is not in the table") };
                for label in labels_after(&rest[name.len()..]) {
                    let known = metric.labels.contains(&label) || label == "node_id";
                    assert!(known, "`{label}` of `{name}` in {file} is not in the table");
                }
                asked += 1;
            }
            assert!(asked > 15, "{file}");
        }
    }

    /// The labels by which a metric is picked, if what follows its name picks any.
    fn labels_after(rest: &str) -> Vec<&str> {
        let picked = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or("", |(picked, _)| picked);
        let names = picked.split(',').map(|pair| pair.split(['=', '!']).next().unwrap_or_default().trim());
        names.filter(|name| !name.is_empty()).collect()
    }

    /// What a rule says of a label is said by the metrics it asks for.
    #[test]
    fn rules_speak_of_labels_that_are_there() {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/monitoring/rules.yml");
        let text = std::fs::read_to_string(file).unwrap();
        let mut spoken = 0;
        for rule in text.split("- alert: ").skip(1) {
            let alert = rule.lines().next().unwrap_or_default();
            for line in ["expr: ", "severity: ", "summary: "] {
                assert!(rule.contains(line), "{alert} has no `{line}`");
            }
            let of_metrics: Vec<&str> = TABLE
                .iter()
                .filter(|metric| rule.contains(&format!("harmonylite_{}", metric.name)))
                .flat_map(|metric| metric.labels)
                .copied()
                .collect();
            for (at, mark) in rule.match_indices("$labels.") {
                let rest = &rule[at + mark.len()..];
                let label = rest.split(|c: char| !c.is_ascii_lowercase() && c != '_').next().unwrap_or_default();
                let known = of_metrics.contains(&label) || ["node_id", "instance"].contains(&label);
                assert!(known, "`{label}` of {alert} is a label of none of its metrics");
                spoken += 1;
            }
        }
        assert!(spoken > 10);
    }

    #[test]
    fn the_page_of_the_guide_is_the_table() {
        crate::pages::compare("metrics.md", &page());
    }
}
