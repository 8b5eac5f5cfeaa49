//! A metric as data, independent of any running meter, and its name in Prometheus.

/// What kind of measurements a metric takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Counts up for as long as the process lives.
    Counter,
    /// A value that goes up and down, added to where it changes.
    UpDownCounter,
    /// The last observed value.
    Gauge,
    /// A distribution.
    Histogram,
}

impl Kind {
    /// The word for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::UpDownCounter => "up-down counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// What a metric is.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// The field of [`Metrics`](super::Metrics).
    pub field: &'static str,
    /// The dotted OpenTelemetry name.
    pub name: &'static str,
    /// The kind of measurements.
    pub kind: Kind,
    /// The UCUM unit; empty where the name already says it.
    pub unit: &'static str,
    /// The label keys, sorted.
    pub labels: &'static [&'static str],
    /// What it tells.
    pub help: &'static str,
    /// The upper bounds of a histogram's buckets, in the unit.
    pub buckets: &'static [f64],
}

/// The meter of the catalogue.
pub const METER: &str = "tasker";

/// The label that names another meter on the page for scrapers.
pub const SCOPE_NAME: &str = "otel_scope_name";

/// The label that ties a series to one task.
pub const CORRELATION_ID: &str = "correlation_id";

/// The label of what exceeds the bound on label sets, as the SDK calls it too.
pub const OVERFLOW_LABEL: &str = "otel.metric.overflow";

impl Spec {
    /// Whether every task has series of its own.
    pub fn has_correlation_id(&self) -> bool {
        self.labels.contains(&CORRELATION_ID)
    }

    /// The name of the metric in Prometheus; a histogram's series append `_bucket`, `_sum` and `_count` to it.
    pub fn prometheus_name(&self) -> String {
        prometheus_name(self.name, self.unit, self.kind == Kind::Counter)
    }
}

/// Translates a name as Prometheus does: tokens joined by `_`, the unit's word unless it is among them, and one
/// `_total` at the end of a counter.
pub fn prometheus_name(name: &str, unit: &str, counter: bool) -> String {
    let mut tokens: Vec<&str> =
        name.split(|c: char| !c.is_ascii_alphanumeric() && c != ':').filter(|token| !token.is_empty()).collect();
    if counter {
        tokens.retain(|token| *token != "total");
    }
    if let Some(word) = unit_word(unit)
        && !tokens.contains(&word)
    {
        tokens.push(word);
    }
    if counter {
        tokens.push("total");
    }
    tokens.join("_")
}

/// The word that Prometheus appends for a unit; none for annotations such as `{task}`.
pub fn unit_word(unit: &str) -> Option<&'static str> {
    match unit {
        "ms" => Some("milliseconds"),
        "s" => Some("seconds"),
        "By" => Some("bytes"),
        "%" => Some("percent"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::prometheus_name;

    #[test]
    fn a_counter_ends_in_one_total() {
        assert_eq!(prometheus_name("tasker.tasks.requests.total", "{task}", true), "tasker_tasks_requests_total");
        assert_eq!(prometheus_name("mpsc_channel_full_events_total", "", true), "mpsc_channel_full_events_total");
    }

    #[test]
    fn a_unit_is_appended_once() {
        assert_eq!(
            prometheus_name("tasker.step.claim.duration", "ms", false),
            "tasker_step_claim_duration_milliseconds"
        );
        assert_eq!(prometheus_name("tasker.queue.age_seconds", "s", false), "tasker_queue_age_seconds");
    }
}
