//! What a Prometheus without an OTLP receiver takes: the counters of an export, by its remote write.
//!
//! Names, labels, the flag *no recorded value* and the service as `job` and `instance` become what the OTLP receiver makes of
//! them. Histograms and gauges are left out: nothing asks for them here.

use super::sums::{number, text};
use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    metrics::v1::{Metric, metric::Data},
    resource::v1::Resource,
};
use prost::Message;
use std::collections::BTreeMap;
use tasker_shared::metrics::spec::prometheus_name;

/// The value that ends a series.
const STALE: u64 = 0x7ff0_0000_0000_0002;
/// The most bytes of one literal.
const LITERAL: usize = 1 << 16;

#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    series: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    milliseconds: i64,
}

type Labels = BTreeMap<String, String>;

/// The body of the request that writes the counters of an export.
pub(super) fn body(export: &ExportMetricsServiceRequest) -> Vec<u8> {
    let mut series: BTreeMap<Labels, Vec<Sample>> = BTreeMap::new();
    for of_resource in &export.resource_metrics {
        let target = target(of_resource.resource.as_ref());
        for metric in of_resource.scope_metrics.iter().flat_map(|scope| &scope.metrics) {
            add(metric, &target, &mut series);
        }
    }
    let series = series.into_iter().map(|(labels, mut samples)| {
        samples.sort_by_key(|sample| sample.milliseconds);
        TimeSeries { labels: labels.into_iter().map(|(name, value)| Label { name, value }).collect(), samples }
    });
    snappy(&WriteRequest { series: series.collect() }.encode_to_vec())
}

fn target(resource: Option<&Resource>) -> Labels {
    let attributes = resource.map(|resource| resource.attributes.as_slice()).unwrap_or_default();
    let of = |key: &str| attributes.iter().find(|attribute| attribute.key == key).map(text).unwrap_or_default();
    [("job", "service.name"), ("instance", "service.instance.id")]
        .map(|(l, key)| (l.to_owned(), of(key).to_owned()))
        .into()
}

fn add(metric: &Metric, target: &Labels, series: &mut BTreeMap<Labels, Vec<Sample>>) {
    let Some(Data::Sum(sum)) = metric.data.as_ref().filter(|data| matches!(data, Data::Sum(sum) if sum.is_monotonic))
    else {
        return;
    };
    for point in &sum.data_points {
        let mut labels = target.clone();
        labels.insert("__name__".to_owned(), prometheus_name(&metric.name, &metric.unit, true));
        labels.extend(point.attributes.iter().map(|label| (label.key.replace('.', "_"), text(label).to_owned())));
        let value = if point.flags == 0 { number(point) } else { f64::from_bits(STALE) };
        let milliseconds = i64::try_from(point.time_unix_nano / 1_000_000).unwrap_or(i64::MAX);
        series.entry(labels).or_default().push(Sample { value, milliseconds });
    }
}

/// Snappy's block format, of literals alone: as long as before.
fn snappy(plain: &[u8]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(plain.len() + plain.len() / LITERAL * 3 + 8);
    let mut length = plain.len();
    while length >= 0x80 {
        packed.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    packed.push(length as u8);
    for literal in plain.chunks(LITERAL) {
        // the tag of a literal whose length less one follows in two bytes
        packed.push(61 << 2);
        packed.extend_from_slice(&((literal.len() - 1) as u16).to_le_bytes());
        packed.extend_from_slice(literal);
    }
    packed
}
