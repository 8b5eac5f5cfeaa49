//! From the SDK's collection, and from the journal, to the store.

use super::{
    Place, Point, Store,
    family::{Family, Shape},
    value::{Delta, Distribution, Number, Value},
};
use crate::{
    id::CorrelationId,
    metrics::{
        CATALOG, Journal, Kind,
        journal::Entry,
        spec::{CORRELATION_ID, METER, Spec},
    },
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, Histogram, Metric, MetricData, ResourceMetrics, Sum};

impl Store {
    /// Adds what was recorded since the last collection; counters and histograms come as deltas.
    pub(in crate::telemetry) fn absorb(&mut self, collected: &ResourceMetrics, now: u64) {
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

    /// Adds what was noted of single tasks since the last look, in the catalogue's scope.
    pub(in crate::telemetry) fn journal(
        &mut self,
        journal: &Journal,
        scope: &InstrumentationScope,
        entries: &[Entry],
        now: u64,
    ) {
        for entry in entries {
            let Some(spec) = CATALOG.get(entry.metric as usize) else { continue };
            let place = self.journaled(journal, scope, entry, spec);
            let (id, seen) = (Some(entry.id), entry.value);
            self.count(Point { place, id, delta: Delta::One(entry.value), seen }, now);
        }
        self.evict(now);
    }

    fn journaled(&mut self, journal: &Journal, scope: &InstrumentationScope, entry: &Entry, spec: &Spec) -> Place {
        let (metric, label_set) = (entry.metric as usize, entry.label_set as usize);
        if let Some(Some(known)) = self.journaled[metric].get(label_set) {
            return *known;
        }
        let scope = self.scope(scope);
        let shape = if spec.kind == Kind::Histogram { Shape::Histogram } else { Shape::Counter };
        let family = self.family(scope, spec.name, spec.unit, spec.help, shape);
        if shape == Shape::Histogram && self.families[family].bounds.is_empty() {
            let buckets = vec![0; spec.buckets.len() + 1].into();
            self.families[family].bounds = spec.buckets.to_vec();
            self.families[family].zero = Value::Histogram(Distribution { count: 0, sum: 0.0, buckets });
        }
        let labels = self.families[family].place(&journal.labels(entry), self.exported_at);
        let place = (u32::try_from(family).unwrap_or(u32::MAX), labels);
        let known = &mut self.journaled[metric];
        known.resize(known.len().max(label_set + 1), None);
        known[label_set] = Some(place);
        place
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
                let family = self.of(scope, metric, Shape::UpDownCounter);
                let points = sum.data_points().map(|point| (sorted(point.attributes()), point.value().number()));
                self.families[family].current.extend(points);
            }
            MetricData::Gauge(gauge) => {
                let family = self.of(scope, metric, Shape::Gauge);
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
        let family = self.of(scope, metric, Shape::Counter);
        for point in sum.data_points() {
            self.point(family, point.attributes(), &point.value().value(), point.value().float(), now);
        }
    }

    fn histogram<N: Numeric>(&mut self, scope: usize, metric: &Metric, histogram: &Histogram<N>, now: u64) {
        let family = self.of(scope, metric, Shape::Histogram);
        for point in histogram.data_points() {
            if self.families[family].bounds.is_empty() {
                self.families[family].bounds = point.bounds().collect();
            }
            let sum = point.sum().float();
            let seen = if point.count() == 1 { sum } else { point.max().map_or(sum, Numeric::float) };
            let buckets = point.bucket_counts().collect();
            let delta = Value::Histogram(Distribution { count: point.count(), sum, buckets });
            self.point(family, point.attributes(), &delta, seen, now);
        }
    }

    fn point<'a>(
        &mut self,
        family: usize,
        attributes: impl Iterator<Item = &'a KeyValue>,
        delta: &Value,
        seen: f64,
        now: u64,
    ) {
        let (id, labels) = split(attributes);
        if self.families[family].totals.is_empty() {
            self.families[family].zero = delta.zero();
        }
        let label_set = self.families[family].place(&labels, self.exported_at);
        let place = (u32::try_from(family).unwrap_or(u32::MAX), label_set);
        self.count(Point { place, id, delta: Delta::Many(delta), seen }, now);
    }

    fn of(&mut self, scope: usize, metric: &Metric, shape: Shape) -> usize {
        self.family(scope, metric.name(), metric.unit(), metric.description(), shape)
    }

    fn family(&mut self, scope: usize, name: &str, unit: &str, help: &str, shape: Shape) -> usize {
        let key = (scope, name.to_owned());
        if let Some(family) = self.index.get(&key) {
            return *family;
        }
        let mut family = Family::new(scope, name, unit, help, shape);
        family.meter = Some(self.scopes[scope].name()).filter(|name| *name != METER).map(str::to_owned);
        self.families.push(family);
        self.index.insert(key, self.families.len() - 1);
        self.families.len() - 1
    }
}

/// Takes the correlation id out of the labels and sorts the rest.
fn split<'a>(attributes: impl Iterator<Item = &'a KeyValue>) -> (Option<CorrelationId>, Vec<KeyValue>) {
    let mut id = None;
    let mut labels = Vec::with_capacity(4);
    for attribute in attributes {
        let own = (attribute.key.as_str() == CORRELATION_ID).then(|| attribute.value.as_str().parse().ok()).flatten();
        match own {
            Some(own) => id = Some(own),
            None => labels.push(attribute.clone()),
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
