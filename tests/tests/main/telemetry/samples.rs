//! Exported metrics as plain samples, and what they add up to.

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{KeyValue, any_value},
    metrics::v1::{Metric, metric::Data, number_data_point::Value},
};
use std::collections::BTreeMap;

/// Labels with their values as texts.
pub(super) type Labels = BTreeMap<String, String>;

/// One point. The value of a histogram is its count.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sample {
    pub(super) name: String,
    pub(super) labels: Labels,
    pub(super) start: u64,
    pub(super) time: u64,
    /// `None` marks the end of a series.
    pub(super) value: Option<f64>,
}

/// Every sample of every export, in the order of arrival.
pub(super) fn samples(exports: &[ExportMetricsServiceRequest]) -> Vec<Sample> {
    let scopes = exports.iter().flat_map(|export| &export.resource_metrics).flat_map(|of| &of.scope_metrics);
    scopes.flat_map(|scope| &scope.metrics).flat_map(of_metric).collect()
}

fn of_metric(metric: &Metric) -> Vec<Sample> {
    let sample = |attributes: &[KeyValue], start, time, flags, value| Sample {
        name: metric.name.clone(),
        labels: attributes.iter().map(|attribute| (attribute.key.clone(), text(attribute))).collect(),
        start,
        time,
        value: if flags == 0 { value } else { None },
    };
    let numbers = match &metric.data {
        Some(Data::Sum(sum)) => &sum.data_points,
        Some(Data::Gauge(gauge)) => &gauge.data_points,
        Some(Data::Histogram(histogram)) => {
            let points = histogram.data_points.iter();
            return points
                .map(|p| {
                    let (start, time) = (p.start_time_unix_nano, p.time_unix_nano);
                    sample(&p.attributes, start, time, p.flags, Some(p.count as f64))
                })
                .collect();
        }
        _ => return Vec::new(),
    };
    let value = |value: &Option<Value>| match value {
        Some(Value::AsInt(value)) => Some(*value as f64),
        Some(Value::AsDouble(value)) => Some(*value),
        None => None,
    };
    let numbers = numbers.iter();
    numbers.map(|p| sample(&p.attributes, p.start_time_unix_nano, p.time_unix_nano, p.flags, value(&p.value))).collect()
}

fn text(attribute: &KeyValue) -> String {
    match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

/// What the series of a counter (or the counts of a histogram) with these labels add up to: the last value of each
/// series, where a series that begins anew is another one.
pub(super) fn total(samples: &[Sample], name: &str, labels: &[(&str, &str)]) -> f64 {
    let fits = |sample: &&Sample| {
        sample.name == name && labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|l| l == value))
    };
    let mut last: BTreeMap<(&Labels, u64), (u64, f64)> = BTreeMap::new();
    for sample in samples.iter().filter(fits) {
        if let Some(value) = sample.value {
            let held = last.entry((&sample.labels, sample.start)).or_default();
            if sample.time >= held.0 {
                *held = (sample.time, value);
            }
        }
    }
    last.values().map(|(_, value)| value).sum()
}
