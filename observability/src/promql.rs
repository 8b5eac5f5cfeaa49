//! Queries, made from the catalogue.
//!
//! Both sides of a ratio are aggregated before they are divided, because series with different labels never match.
//! Rates take `$__rate_interval`, which fits the interval at which the numbers arrive, whatever it is.

use tasker_shared::metrics::{CATALOG, Kind, Spec, spec::CORRELATION_ID};

/// What tells that a task is known.
const REQUESTED: &str = "tasker_tasks_requests_total";

/// What the process tells that samples the whole system. One that was killed is heard for minutes more where metrics are sent, and
/// would count again what its successor tells. What is not here is shown as the largest of all that is told.
const OF_SYSTEM: [&str; 11] = [
    "tasks_active",
    "steps_ready",
    "queue_depth",
    "queue_age_seconds",
    "workers_live",
    "dlq_size",
    "concurrency_permits",
    "concurrency_permits_used",
    "retention_overdue",
    "db_oldest_snapshot_age",
    "db_notification_queue_usage",
];

/// Labels of `target_info` that name a process so that a person finds it.
const PROCESS: [&str; 2] = ["host_name", "process_pid"];
/// Brings them to the series of the process.
const OF_PROCESS: &str = "* on (job, instance) group_left (host_name, process_pid) target_info";

/// A query with what is known about its values.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    pub(crate) text: String,
    pub(crate) by: Vec<&'static str>,
    pub(crate) unit: String,
    /// The metrics that it reads.
    pub(crate) reads: Vec<&'static Spec>,
    /// Whether exemplars of its series lead to traces.
    pub(crate) exemplars: bool,
    /// Whether it counts things, so that fractions mean nothing.
    pub(crate) whole: bool,
    /// Whether it estimates from series of single tasks, which live shortly.
    pub(crate) of_tasks: bool,
}

/// A query about one metric, not yet written.
#[derive(Debug, Clone)]
pub(crate) struct Of {
    spec: &'static Spec,
    view: View,
    by: Vec<&'static str>,
    only: Vec<String>,
    teller: Teller,
}

/// Who tells a metric.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Teller {
    /// Every process, of itself.
    All,
    /// The same, and each is named.
    Each,
    /// The one that samples the whole system; of those that are heard, the one that did so last.
    One,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum View {
    Rate,
    Increase,
    Mean,
    Quantile(f64),
    Sum,
    Max,
    TaskTotal,
    TaskMean,
    TaskLongest,
    EachTask,
}

/// Events per second of a counter, or measurements per second of a histogram.
pub(crate) fn rate(field: &str) -> Of {
    of(field, View::Rate, &[Kind::Counter, Kind::Histogram])
}

/// Events of a counter within the time that the dashboard shows.
pub(crate) fn increase(field: &str) -> Of {
    of(field, View::Increase, &[Kind::Counter])
}

/// The mean of what a histogram measured lately.
pub(crate) fn mean(field: &str) -> Of {
    of(field, View::Mean, &[Kind::Histogram])
}

/// A quantile of what a histogram measured lately.
pub(crate) fn quantile(share: f64, field: &str) -> Of {
    of(field, View::Quantile(share), &[Kind::Histogram])
}

/// The sum of a gauge over its series.
pub(crate) fn sum(field: &str) -> Of {
    of(field, View::Sum, &[Kind::Gauge, Kind::UpDownCounter])
}

/// The largest of a gauge's series.
pub(crate) fn max(field: &str) -> Of {
    of(field, View::Max, &[Kind::Gauge])
}

/// What a counter says of each single task within the time that the dashboard shows, even when its series have ended.
pub(crate) fn of_each_task(field: &str) -> Of {
    of(field, View::EachTask, &[Kind::Counter]).only(CORRELATION_ID, ".+-.+")
}

/// What a counter says of the task that the dashboard shows, even when its series have ended.
pub(crate) fn task_total(field: &str) -> Of {
    of(field, View::TaskTotal, &[Kind::Counter])
}

/// The mean of what a histogram says of the task that the dashboard shows.
pub(crate) fn task_mean(field: &str) -> Of {
    of(field, View::TaskMean, &[Kind::Histogram])
}

/// The bucket of the longest that a histogram says of the task that the dashboard shows.
pub(crate) fn task_longest(field: &str) -> Of {
    of(field, View::TaskLongest, &[Kind::Histogram])
}

fn of(field: &str, view: View, kinds: &[Kind]) -> Of {
    let spec = CATALOG.iter().find(|spec| spec.field == field);
    let spec = spec.unwrap_or_else(|| panic!("no metric of the catalogue has the field `{field}`"));
    assert!(kinds.contains(&spec.kind), "{field} is a {}", spec.kind.as_str());
    let teller = if OF_SYSTEM.contains(&field) { Teller::One } else { Teller::All };
    Of { spec, view, by: Vec::new(), only: Vec::new(), teller }
}

impl Of {
    /// One series for each value of these labels.
    pub(crate) fn by<const N: usize>(mut self, labels: [&'static str; N]) -> Self {
        labels.iter().for_each(|label| self.knows(label));
        self.by = labels.to_vec();
        self
    }

    /// One series for each process, which is called after its host and its number there.
    pub(crate) fn of_each_process(mut self) -> Self {
        assert!(
            matches!(self.view, View::Sum | View::Max | View::Rate),
            "{}: no {:?} of a process",
            self.spec.name,
            self.view
        );
        self.teller = Teller::Each;
        self.by = PROCESS.into_iter().chain(self.by).collect();
        self
    }

    /// Only series of which `label` has a value that matches `pattern`.
    pub(crate) fn only(mut self, label: &str, pattern: &str) -> Self {
        self.knows(label);
        self.only.push(format!("{}=~\"{pattern}\"", in_prometheus(label)));
        self
    }

    fn knows(&self, label: &str) {
        assert!(self.spec.labels.contains(&label), "{} has no label `{label}`", self.spec.name);
    }

    /// The series of the metric that the dashboard's variables choose.
    fn series(&self, suffix: &str) -> String {
        let mut chosen = self.only.clone();
        if matches!(self.view, View::TaskTotal | View::TaskMean | View::TaskLongest) {
            self.knows(CORRELATION_ID);
            chosen.push(format!("{CORRELATION_ID}=\"$correlation_id\""));
        } else {
            let variables = ["namespace", "task_type"].into_iter().filter(|name| self.spec.labels.contains(name));
            chosen.extend(variables.map(|name| format!("{name}=~\"${name}\"")));
        }
        let name = format!("{}{suffix}", self.spec.prometheus_name());
        if chosen.is_empty() { name } else { format!("{name}{{{}}}", chosen.join(",")) }
    }

    fn text(&self) -> String {
        let (by, all) = (self.grouping(&[]), |suffix| self.series(suffix));
        let last = |suffix| format!("sum{by}(last_over_time({}[$__range]))", self.series(suffix));
        let per_second = |suffix| {
            let rate = format!("rate({}[$__rate_interval])", self.series(suffix));
            format!("sum{by}({})", self.told(rate))
        };
        match self.view {
            View::Rate if self.spec.kind == Kind::Histogram => per_second("_count"),
            View::Rate => per_second(""),
            View::Increase => self.counted(format!("sum{by}(increase({}[$__range]))", all(""))),
            View::Mean => format!("{} / ({} > 0)", per_second("_sum"), per_second("_count")),
            View::Quantile(share) => {
                let by = self.grouping(&["le"]);
                format!("histogram_quantile({share}, sum{by}(rate({}[$__rate_interval])))", all("_bucket"))
            }
            View::Sum => format!("sum{by}({})", self.told(all(""))),
            View::Max => format!("max{by}({})", self.told(all(""))),
            // a task that is known and has none of it has zero
            View::TaskTotal if self.by.is_empty() => {
                let known = format!("last_over_time({REQUESTED}{{{CORRELATION_ID}=\"$correlation_id\"}}[$__range])");
                format!("{} or sum({known}) * 0", last(""))
            }
            View::TaskTotal | View::EachTask => last(""),
            View::TaskLongest => {
                let by = self.grouping(&["le"]);
                format!("histogram_quantile(1, sum{by}(last_over_time({}[$__range])))", self.series("_bucket"))
            }
            View::TaskMean => format!("{} / ({} > 0)", last("_sum"), last("_count")),
        }
    }

    /// From those who tell it, with the labels that name them if these are asked for.
    fn told(&self, series: String) -> String {
        match self.teller {
            Teller::All => series,
            Teller::Each => format!("{series} {OF_PROCESS}"),
            Teller::One => {
                let name = self.spec.prometheus_name();
                let last = format!("topk by (job) (1, max by (job, instance) (timestamp({name})))");
                format!("{series} and on (job, instance) {last}")
            }
        }
    }

    /// What each series was in the whole time that the dashboard shows, to choose the largest.
    fn over_all(&self) -> String {
        let whole = |function: &str, series: String| format!("{function}({series}[$__range] @ end())");
        let by = self.grouping(&[]);
        match self.view {
            View::Max => format!("max{by}({})", whole("max_over_time", self.series(""))),
            View::Quantile(share) => {
                let by = self.grouping(&["le"]);
                format!("histogram_quantile({share}, sum{by}({}))", whole("rate", self.series("_bucket")))
            }
            View::Rate if self.spec.kind == Kind::Counter => format!("sum{by}({})", whole("rate", self.series(""))),
            view => panic!("{}: no largest series of {view:?}", self.spec.name),
        }
    }

    /// What never happened has no series: that is zero.
    fn counted(&self, query: String) -> String {
        if self.by.is_empty() { format!("{query} or vector(0)") } else { query }
    }

    fn grouping(&self, more: &[&str]) -> String {
        let labels: Vec<String> = self.by.iter().chain(more).map(|label| in_prometheus(label)).collect();
        if labels.is_empty() { String::new() } else { format!(" by ({}) ", labels.join(", ")) }
    }

    fn unit(&self) -> String {
        let per_second = self.view == View::Rate;
        match self.spec.unit {
            "By" if per_second => "Bps".to_owned(),
            _ if per_second => format!("suffix: {}/s", plural(self.spec)),
            "ms" => "ms".to_owned(),
            "s" => "s".to_owned(),
            "By" => "bytes".to_owned(),
            _ if self.spec.name.ends_with("_seconds") => "s".to_owned(),
            _ if self.spec.name.ends_with("_percent") => "percent".to_owned(),
            _ => "short".to_owned(),
        }
    }
}

/// What a metric counts, in the plural.
fn plural(spec: &Spec) -> String {
    let thing = spec.unit.trim_matches(['{', '}']);
    match thing.strip_suffix('y') {
        _ if spec.kind == Kind::Histogram || thing.is_empty() => "events".to_owned(),
        Some(stem) => format!("{stem}ies"),
        None => format!("{thing}s"),
    }
}

/// A label's name in Prometheus.
pub(crate) fn in_prometheus(label: &str) -> String {
    label.replace('.', "_")
}

impl From<Of> for Query {
    fn from(of: Of) -> Self {
        let exemplars = matches!(of.view, View::Quantile(_));
        let whole = matches!(of.view, View::Increase | View::EachTask | View::TaskTotal);
        let of_tasks = matches!(of.view, View::Rate | View::Increase) && of.spec.has_correlation_id();
        Self { text: of.text(), unit: of.unit(), by: of.by, reads: vec![of.spec], exemplars, whole, of_tasks }
    }
}

/// The share of `part` in `whole`, from 0 to 1; nothing where there is no whole.
pub(crate) fn share(part: impl Into<Query>, whole: impl Into<Query>) -> Query {
    let (part, whole) = (part.into(), whole.into());
    let divided = format!("({}) / (({}) > 0)", or_zero(&part, &whole), whole.text);
    combined(divided, "percentunit", part, whole)
}

/// How many of `part` come to one of `whole`.
pub(crate) fn per(part: impl Into<Query>, whole: impl Into<Query>) -> Query {
    let (part, whole) = (part.into(), whole.into());
    combined(format!("({}) / (({}) > 0)", part.text, whole.text), "short", part, whole)
}

/// The sum of two queries, where one of them may have no series yet.
pub(crate) fn both(one: impl Into<Query>, other: impl Into<Query>) -> Query {
    let (one, other) = (one.into(), other.into());
    let text = format!("({}) + ({})", or_zero(&one, &other), or_zero(&other, &one));
    let unit = one.unit.clone();
    combined(text, &unit, one, other)
}

/// The ten largest series of a metric that has many, by what they were in the whole time that the dashboard shows: `topk`
/// alone chooses anew at every point, and shows all that were ever among the ten.
pub(crate) fn top_ten(of: Of) -> Query {
    let (ranked, on) = (of.over_all(), of.grouping(&[]));
    let query = Query::from(of);
    Query { text: format!("{} and on{}topk(10, {ranked})", query.text, on.trim_start_matches(" by")), ..query }
}

/// A query about metrics that are not of the catalogue.
pub(crate) fn raw(text: &str, by: &[&'static str], unit: &str) -> Query {
    let (text, by, unit) = (text.to_owned(), by.to_vec(), unit.to_owned());
    Query { text, by, unit, reads: Vec::new(), exemplars: false, whole: false, of_tasks: false }
}

fn or_zero(query: &Query, like: &Query) -> String {
    if query.by.is_empty() {
        format!("{} or vector(0)", query.text)
    } else {
        format!("{} or ({}) * 0", query.text, like.text)
    }
}

fn combined(text: String, unit: &str, one: Query, other: Query) -> Query {
    assert_eq!(one.by, other.by, "both sides have the same labels");
    let mut reads = one.reads;
    for spec in other.reads {
        if !reads.iter().any(|read| read.name == spec.name) {
            reads.push(spec);
        }
    }
    // in a ratio the two estimates are off alike
    Query { text, by: one.by, unit: unit.to_owned(), reads, exemplars: false, whole: false, of_tasks: false }
}

#[cfg(test)]
mod tests {
    use super::{Query, max, mean, quantile, rate, share, sum, task_total, top_ten};

    #[test]
    fn a_rate_is_summed_over_what_nobody_asked_for() {
        let query = Query::from(rate("steps_executions").by(["namespace"]));
        let expected =
            "sum by (namespace) (rate(tasker_steps_executions_total{namespace=~\"$namespace\"}[$__rate_interval]))";
        assert_eq!((query.text.as_str(), query.unit.as_str()), (expected, "suffix: executions/s"));
    }

    #[test]
    fn a_quantile_keeps_the_bucket_bounds_and_has_exemplars() {
        let query = Query::from(quantile(0.95, "db_transaction_duration").by(["transaction"]));
        let expected = "histogram_quantile(0.95, sum by (transaction, le) \
                        (rate(tasker_db_transaction_duration_milliseconds_bucket[$__rate_interval])))";
        assert_eq!((query.text.as_str(), query.exemplars), (expected, true));
    }

    #[test]
    fn a_share_is_zero_where_the_part_has_no_series_and_nothing_where_the_whole_is_zero() {
        let query = share(sum("db_pool_connections_active"), sum("db_pool_connections_idle"));
        let expected = "(sum(tasker_db_pool_connections_active) or vector(0)) \
                        / ((sum(tasker_db_pool_connections_idle)) > 0)";
        assert_eq!(query.text, expected);
    }

    #[test]
    fn the_ten_largest_are_chosen_once_for_the_whole_time() {
        let query = top_ten(max("db_dead_tuples").by(["table"]));
        let expected = "max by (table) (tasker_db_dead_tuples) and on (table) \
                        topk(10, max by (table) (max_over_time(tasker_db_dead_tuples[$__range] @ end())))";
        assert_eq!(query.text, expected);
    }

    #[test]
    fn what_the_system_has_is_asked_of_the_process_that_sampled_it_last() {
        let query = Query::from(sum("tasks_active").by(["state"]));
        let expected = "sum by (state) (tasker_tasks_active and on (job, instance) \
                        topk by (job) (1, max by (job, instance) (timestamp(tasker_tasks_active))))";
        assert_eq!(query.text, expected);
    }

    #[test]
    fn what_each_process_has_is_called_after_its_machine() {
        let query = Query::from(max("health_dependency_up").by(["dependency"]).of_each_process());
        let expected = "max by (host_name, process_pid, dependency) (tasker_health_dependency_up \
                        * on (job, instance) group_left (host_name, process_pid) target_info)";
        assert_eq!(query.text, expected);
    }

    #[test]
    fn what_did_not_happen_to_a_known_task_is_zero_and_an_unknown_one_has_nothing() {
        let query = Query::from(task_total("tasks_failures"));
        let of = |name: &str| format!("sum(last_over_time({name}{{correlation_id=\"$correlation_id\"}}[$__range]))");
        let (failures, known) = (of("tasker_tasks_failures_total"), of("tasker_tasks_requests_total"));
        assert_eq!(query.text, format!("{failures} or {known} * 0"));
    }

    #[test]
    #[should_panic(expected = "has no label `namespace`")]
    fn a_label_that_the_metric_does_not_have_is_refused() {
        let _never = mean("db_pool_wait_duration").by(["namespace"]);
    }
}
