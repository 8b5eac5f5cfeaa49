//! Whether what services tell at `/metrics` is what the catalogue declares.

use super::{
    CATALOG, Spec,
    spec::{CORRELATION_ID, Kind, SCOPE_NAME},
};
use std::collections::{BTreeMap, BTreeSet};

/// What a page has that is in no catalogue.
const OF_THE_PAGE: &str = "target_info";

/// What was found; every list holds names as Prometheus has them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conformity {
    /// Declared, and measured.
    pub present: Vec<String>,
    /// Declared, known to a service, and not measured yet.
    pub silent: Vec<String>,
    /// Declared, and not known to any service.
    pub missing: Vec<String>,
    /// Told, and not declared.
    pub unexpected: Vec<String>,
    /// Told in another form than declared, with what is different.
    pub different: Vec<String>,
    /// Told by meters of handler authors.
    pub own: Vec<String>,
}

/// What pages tell of one metric.
#[derive(Debug, Default)]
struct Told<'a> {
    kind: Option<&'a str>,
    labels: BTreeSet<&'a str>,
    samples: usize,
}

impl Conformity {
    /// Compares pages in Prometheus text, together, with the catalogue.
    pub fn of<'a>(pages: impl IntoIterator<Item = &'a str>) -> Self {
        let mut told: BTreeMap<&str, Told<'_>> = BTreeMap::new();
        for page in pages {
            read(page, &mut told);
        }
        let mut found = Self::default();
        for spec in CATALOG {
            let name = spec.prometheus_name();
            match told.remove(name.as_str()) {
                None => found.missing.push(name),
                Some(metric) => {
                    found.different.extend(difference(spec, &name, &metric));
                    let kept = if metric.samples > 0 { &mut found.present } else { &mut found.silent };
                    kept.push(name);
                }
            }
        }
        for (name, metric) in told.into_iter().filter(|(name, _)| *name != OF_THE_PAGE) {
            let kept = if metric.labels.contains(SCOPE_NAME) { &mut found.own } else { &mut found.unexpected };
            kept.push(name.to_owned());
        }
        found
    }

    /// Whether everything declared is known, and nothing else is told.
    pub fn holds(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.different.is_empty()
    }
}

fn read<'a>(page: &'a str, told: &mut BTreeMap<&'a str, Told<'a>>) {
    // the samples of a metric follow its type
    let mut family = "";
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, ""));
            family = name;
            told.entry(name).or_default().kind = Some(kind);
        } else if !line.starts_with('#') && !line.is_empty() {
            let (name, labels) = line.split_once(['{', ' ']).unwrap_or((line, ""));
            let of_family = ["", "_bucket", "_sum", "_count"]
                .iter()
                .any(|suffix| name.strip_suffix(suffix).is_some_and(|base| base == family));
            let metric = told.entry(if of_family { family } else { name }).or_default();
            metric.samples += 1;
            if line[name.len()..].starts_with('{') {
                metric.labels.extend(keys(labels));
            }
        }
    }
}

/// The keys of `a="x",b="y"} 1`.
fn keys(labels: &str) -> Vec<&str> {
    let mut keys = Vec::new();
    let mut rest = labels;
    while let Some((key, value)) = rest.split_once("=\"") {
        keys.push(key.trim_start_matches(','));
        let mut escaped = false;
        let end = value.find(|c: char| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        match end.map(|end| &value[end + 1..]) {
            Some(more) if more.starts_with(',') => rest = more,
            _ => break,
        }
    }
    keys
}

fn difference(spec: &Spec, name: &str, told: &Told<'_>) -> Option<String> {
    let kind = match spec.kind {
        Kind::Counter => "counter",
        Kind::Histogram => "histogram",
        Kind::Gauge | Kind::UpDownCounter => "gauge",
    };
    if let Some(said) = told.kind.filter(|said| *said != kind) {
        return Some(format!("{name} is a {said}, declared as {kind}"));
    }
    let declared: BTreeSet<String> = spec.labels.iter().map(|label| label.replace('.', "_")).collect();
    let more = |label: &&&str| **label != "le" && **label != CORRELATION_ID && !declared.contains(**label);
    let others: Vec<&str> = told.labels.iter().filter(more).copied().collect();
    (!others.is_empty()).then(|| format!("{name} has the label {}, which is not declared", others.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::Conformity;
    use crate::metrics::CATALOG;

    fn page(but: &str) -> String {
        let mut text = String::from("# TYPE target_info gauge\ntarget_info{service_name=\"x\"} 1\n");
        for spec in CATALOG.iter().filter(|spec| spec.prometheus_name() != but) {
            let kind = spec.kind.as_str().replace("up-down counter", "gauge");
            text.push_str(&format!("# TYPE {} {kind}\n", spec.prometheus_name()));
        }
        text
    }

    #[test]
    fn what_no_page_knows_is_missing_and_what_is_only_announced_is_silent() {
        let (first, second) = (page("tasker_tasks_requests_total"), page("tasker_queue_depth"));
        let alone = Conformity::of([first.as_str()]);
        assert_eq!(alone.missing, ["tasker_tasks_requests_total"]);
        assert!(!alone.holds());
        let measured = format!("{second}# TYPE tasker_dlq_size gauge\ntasker_dlq_size 0\n");
        let both = Conformity::of([first.as_str(), measured.as_str()]);
        assert!(both.holds(), "{both:?}");
        assert_eq!(both.present, ["tasker_dlq_size"]);
        assert_eq!(both.silent.len(), CATALOG.len() - 1);
    }

    #[test]
    fn what_is_told_otherwise_than_declared_is_named() {
        let wrong = "# TYPE tasker_queue_depth counter\ntasker_queue_depth{queue=\"a,b=\\\"c\"} 1\n\
            # TYPE tasker_steps_ready gauge\ntasker_steps_ready{namespace=\"a\",colour=\"red\"} 1\n\
            # TYPE legacy_total counter\nlegacy_total 3\n\
            # TYPE orders_total counter\norders_total{otel_scope_name=\"shop\"} 3\n";
        let found = Conformity::of([page("").as_str(), wrong]);
        assert_eq!(
            found.different,
            [
                "tasker_steps_ready has the label colour, which is not declared",
                "tasker_queue_depth is a counter, declared as gauge",
            ]
        );
        assert_eq!((found.unexpected, found.own), (vec!["legacy_total".to_owned()], vec!["orders_total".to_owned()]));
    }
}
