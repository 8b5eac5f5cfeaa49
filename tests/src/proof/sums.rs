//! What all samples ever sent add up to: the last value of every series, where one that begins anew is another one.

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{KeyValue, any_value},
    metrics::v1::{NumberDataPoint, metric::Data, number_data_point::Value},
    resource::v1::Resource,
};
use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Arc, Mutex, PoisonError},
};

/// The counter whose samples are kept whole.
const COMPLETIONS: &str = "tasker.tasks.completions.total";

/// One sample as Prometheus has it: milliseconds since 1970 and the value; `None` ends the series.
pub(super) type Sample = (i64, Option<f64>);

/// See above; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Sums(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// Of each metric and series the last value, by its start.
    metrics: HashMap<String, HashMap<u64, Vec<Last>>>,
    completions: HashMap<u64, Vec<Sample>>,
}

#[derive(Debug)]
struct Last {
    start: u64,
    time: u64,
    value: f64,
}

impl Sums {
    /// Adds an export that has arrived.
    pub(super) fn add(&self, request: ExportMetricsServiceRequest) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for of_resource in request.resource_metrics {
            let instance = instance(of_resource.resource.as_ref());
            for metric in of_resource.scope_metrics.into_iter().flat_map(|scope| scope.metrics) {
                match metric.data {
                    Some(Data::Sum(sum)) if sum.is_monotonic => {
                        for point in sum.data_points {
                            let value = (point.flags == 0).then(|| number(&point));
                            let series = series(instance, &point.attributes);
                            inner.point(&metric.name, series, point.start_time_unix_nano, point.time_unix_nano, value);
                        }
                    }
                    Some(Data::Histogram(histogram)) => {
                        for point in histogram.data_points {
                            let value = (point.flags == 0).then_some(point.count as f64);
                            let series = series(instance, &point.attributes);
                            inner.point(&metric.name, series, point.start_time_unix_nano, point.time_unix_nano, value);
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    /// The sum over everything sent of a counter, or of a histogram's count.
    pub(super) fn total(&self, name: &str) -> f64 {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |series: &HashMap<u64, Vec<Last>>| series.values().flatten().map(|last| last.value).sum::<f64>();
        inner.metrics.get(name).map(of).unwrap_or_default()
    }

    /// How many series the completions have, and the sum of what `of` makes of each.
    pub(super) fn completions(&self, of: impl Fn(&[Sample]) -> f64) -> (usize, f64) {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (inner.completions.len(), inner.completions.values().map(|samples| of(samples)).sum())
    }
}

impl Inner {
    fn point(&mut self, name: &str, series: u64, start: u64, time: u64, value: Option<f64>) {
        if name == COMPLETIONS {
            let millis = i64::try_from(time / 1_000_000).unwrap_or(i64::MAX);
            self.completions.entry(series).or_default().push((millis, value));
        }
        // the end of a series is no value, and one that was told too early goes on as it was
        let Some(value) = value else { return };
        let lasts = self.metrics.entry(name.to_owned()).or_default().entry(series).or_default();
        match lasts.iter_mut().find(|last| last.start == start) {
            Some(last) if time >= last.time => (last.time, last.value) = (time, value),
            Some(_) => {}
            None => lasts.push(Last { start, time, value }),
        }
    }
}

pub(super) fn number(point: &NumberDataPoint) -> f64 {
    match point.value {
        Some(Value::AsInt(value)) => value as f64,
        Some(Value::AsDouble(value)) => value,
        None => 0.0,
    }
}

fn instance(resource: Option<&Resource>) -> u64 {
    let attributes = resource.map(|resource| resource.attributes.as_slice()).unwrap_or_default();
    let names = ["service.instance.id", "service.name"];
    let mut hasher = DefaultHasher::new();
    for attribute in attributes.iter().filter(|attribute| names.contains(&attribute.key.as_str())) {
        text(attribute).hash(&mut hasher);
    }
    hasher.finish()
}

/// Names a series by its labels.
fn series(instance: u64, attributes: &[KeyValue]) -> u64 {
    let mut labels: Vec<(&str, &str)> = attributes.iter().map(|a| (a.key.as_str(), text(a))).collect();
    labels.sort_unstable();
    let mut hasher = DefaultHasher::new();
    (instance, labels).hash(&mut hasher);
    hasher.finish()
}

pub(super) fn text(attribute: &KeyValue) -> &str {
    match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text,
        _ => "",
    }
}
