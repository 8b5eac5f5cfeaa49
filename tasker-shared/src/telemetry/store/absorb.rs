//! From the SDK's collection to the store.

use super::{
    Point, Store,
    family::{Family, Shape},
    value::{Distribution, Number, Value},
};
use crate::metrics::spec::{CORRELATION_ID, METER};
use opentelemetry::{InstrumentationScope, KeyValue, StringValue};
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, Histogram, Metric, MetricData, ResourceMetrics, Sum};

impl Store {
    /// Adds what was recorded since the last collection; counters and histograms come as deltas.
    pub(in crate::telemetry) fn absorb(&mut self, collected: &ResourceMetrics, now: u64) {
        self.collections += 1;
        self.families.iter_mut().for_each(|family| family.current.clear());
        for scope in collected.scope_metrics() {
            let index = self.scope(scope.scope());
            for metric in scope.metrics() {
                match metric.data() {
                    AggregatedMetrics::F64(data) => self.metric(index, metric, data, now),
                    AggregatedMetrics::U64(data) => self.metric(index, metric, data, now),
                    AggregatedMetrics::I64(data) => self.metric(index, metric, data, now),
                }
            }
        }
        self.evict(now);
    }

    fn scope(&mut self, scope: &InstrumentationScope) -> usize {
        let known = self.scopes.iter().position(|known| known == scope);
        known.unwrap_or_else(|| {
            self.scopes.push(scope.clone());
            self.scopes.len() - 1
        })
    }

    fn metric<N: Numeric>(&mut self, scope: usize, metric: &Metric, data: &MetricData<N>, now: u64) {
        match data {
            MetricData::Sum(sum) if sum.is_monotonic() => self.counter(scope, metric, sum, now),
            MetricData::Sum(sum) => {
                let family = self.family(scope, metric, Shape::UpDownCounter);
                let points = sum.data_points().map(|point| (sorted(point.attributes()), point.value().number()));
                self.families[family].current.extend(points);
            }
            MetricData::Gauge(gauge) => {
                let family = self.family(scope, metric, Shape::Gauge);
                let points = gauge.data_points().map(|point| (sorted(point.attributes()), point.value().number()));
                self.families[family].current.extend(points);
            }
            MetricData::Histogram(histogram) => self.histogram(scope, metric, histogram, now),
            MetricData::ExponentialHistogram(_) => {
                tracing::debug!(metric = metric.name(), "an exponential histogram is not exported");
            }
        }
    }

    fn counter<N: Numeric>(&mut self, scope: usize, metric: &Metric, sum: &Sum<N>, now: u64) {
        let family = self.family(scope, metric, Shape::Counter);
        for point in sum.data_points() {
            let (id, labels) = split(point.attributes());
            let delta = point.value().value();
            self.count(Point { family, id, labels, seen: point.value().float(), delta }, now);
        }
    }

    fn histogram<N: Numeric>(&mut self, scope: usize, metric: &Metric, histogram: &Histogram<N>, now: u64) {
        let family = self.family(scope, metric, Shape::Histogram);
        for point in histogram.data_points() {
            if self.families[family].bounds.is_empty() {
                self.families[family].bounds = point.bounds().collect();
            }
            let (id, labels) = split(point.attributes());
            let sum = point.sum().float();
            let seen = if point.count() == 1 { sum } else { point.max().map_or(sum, Numeric::float) };
            let buckets = point.bucket_counts().collect();
            let delta = Value::Histogram(Distribution { count: point.count(), sum, buckets });
            self.count(Point { family, id, labels, seen, delta }, now);
        }
    }

    fn family(&mut self, scope: usize, metric: &Metric, shape: Shape) -> usize {
        let key = (scope, metric.name().to_owned());
        if let Some(family) = self.index.get(&key) {
            return *family;
        }
        let mut family = Family::new(scope, metric.name(), metric.unit(), metric.description(), shape);
        family.meter = Some(self.scopes[scope].name()).filter(|name| *name != METER).map(str::to_owned);
        self.families.push(family);
        self.index.insert(key, self.families.len() - 1);
        self.families.len() - 1
    }
}

/// Takes the correlation id out of the labels and sorts the rest.
fn split<'a>(attributes: impl Iterator<Item = &'a KeyValue>) -> (Option<StringValue>, Vec<KeyValue>) {
    let mut id = None;
    let mut labels = Vec::with_capacity(4);
    for attribute in attributes {
        match &attribute.value {
            opentelemetry::Value::String(text) if attribute.key.as_str() == CORRELATION_ID => id = Some(text.clone()),
            _ => labels.push(attribute.clone()),
        }
    }
    if !labels.is_sorted_by(|a, b| a.key <= b.key) {
        labels.sort_by(|a, b| a.key.cmp(&b.key));
    }
    (id, labels)
}

fn sorted<'a>(attributes: impl Iterator<Item = &'a KeyValue>) -> super::Labels {
    let mut labels: Vec<KeyValue> = attributes.cloned().collect();
    labels.sort_by(|a, b| a.key.cmp(&b.key));
    labels.into()
}

trait Numeric: Copy {
    fn float(self) -> f64;
    fn value(self) -> Value;
    fn number(self) -> Number;
}

impl Numeric for u64 {
    fn float(self) -> f64 {
        self as f64
    }
    fn value(self) -> Value {
        Value::Int(self)
    }
    fn number(self) -> Number {
        Number::Int(i64::try_from(self).unwrap_or(i64::MAX))
    }
}

impl Numeric for i64 {
    fn float(self) -> f64 {
        self as f64
    }
    fn value(self) -> Value {
        Value::Int(u64::try_from(self).unwrap_or(0))
    }
    fn number(self) -> Number {
        Number::Int(self)
    }
}

impl Numeric for f64 {
    fn float(self) -> f64 {
        self
    }
    fn value(self) -> Value {
        Value::Float(self)
    }
    fn number(self) -> Number {
        Number::Float(self)
    }
}
