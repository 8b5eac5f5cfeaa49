//! A family: one metric with all its label sets, and what it amounts to without correlation ids.

use super::value::{Delta, Exemplar, Number, Value};
use crate::metrics::spec::OVERFLOW_LABEL;
use opentelemetry::KeyValue;
use std::{collections::HashMap, sync::Arc};

/// The most label sets of one family, correlation ids aside; what exceeds them is counted under one set.
const MAX_LABEL_SETS: usize = 10_000;

/// Labels without the correlation id, sorted by key.
pub(in crate::telemetry) type Labels = Arc<[KeyValue]>;

/// What a family's points are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::telemetry) enum Shape {
    /// A sum that only grows.
    Counter,
    /// A sum that goes up and down.
    UpDownCounter,
    /// A last value.
    Gauge,
    /// A distribution.
    Histogram,
}

/// One metric.
#[derive(Debug)]
pub(in crate::telemetry) struct Family {
    pub(in crate::telemetry) scope: usize,
    /// The meter, where it is not that of the catalogue.
    pub(in crate::telemetry) meter: Option<String>,
    pub(in crate::telemetry) name: String,
    pub(in crate::telemetry) unit: String,
    pub(in crate::telemetry) help: String,
    pub(in crate::telemetry) shape: Shape,
    /// The upper bounds of a histogram's buckets.
    pub(in crate::telemetry) bounds: Vec<f64>,
    /// What a series begins with.
    pub(super) zero: Value,
    /// One entry for each label set, whatever became of the series of single tasks.
    pub(in crate::telemetry) totals: Vec<Total>,
    index: HashMap<Labels, u32>,
    /// The gauges of the last collection.
    pub(in crate::telemetry) current: HashMap<Labels, Number>,
    /// The gauges that were sent, with the batch that ended them.
    pub(super) sent: HashMap<Labels, Option<u64>>,
}

/// What all series with the same labels amount to.
#[derive(Debug)]
pub(in crate::telemetry) struct Total {
    pub(in crate::telemetry) labels: Labels,
    pub(in crate::telemetry) value: Value,
    /// When counting began, in nanoseconds since 1970.
    pub(in crate::telemetry) created: u64,
    /// The latest of each bucket; a counter has one place.
    pub(in crate::telemetry) exemplars: Vec<Option<Exemplar>>,
}

impl Family {
    pub(super) fn new(scope: usize, name: &str, unit: &str, help: &str, shape: Shape) -> Self {
        Self {
            scope,
            meter: None,
            name: name.to_owned(),
            unit: unit.to_owned(),
            help: help.to_owned(),
            shape,
            bounds: Vec::new(),
            zero: Value::Int(0),
            totals: Vec::new(),
            index: HashMap::new(),
            current: HashMap::new(),
            sent: HashMap::new(),
        }
    }

    /// Whether nothing has been measured.
    pub(in crate::telemetry) fn is_empty(&self) -> bool {
        self.totals.is_empty() && self.current.is_empty()
    }

    /// The place of a label set among the totals, made if it is new.
    pub(super) fn place(&mut self, labels: &[KeyValue], created: u64) -> u32 {
        if let Some(place) = self.index.get(labels) {
            return *place;
        }
        let full = self.totals.len() >= MAX_LABEL_SETS;
        let labels: Labels = if full { [KeyValue::new(OVERFLOW_LABEL, true)].into() } else { labels.into() };
        if let Some(place) = self.index.get(&labels) {
            return *place;
        }
        let places = if let Value::Histogram(held) = &self.zero { held.buckets.len() } else { 1 };
        let place = u32::try_from(self.totals.len()).unwrap_or(u32::MAX);
        self.index.insert(Arc::clone(&labels), place);
        self.totals.push(Total { labels, value: self.zero.clone(), created, exemplars: vec![None; places] });
        place
    }

    /// Adds to a total and keeps the exemplar in the place that its value falls into.
    pub(super) fn count(&mut self, place: u32, delta: Delta<'_>, exemplar: Option<Exemplar>) {
        let Some(total) = self.totals.get_mut(place as usize) else { return };
        total.value.take(delta, &self.bounds);
        if let Some(exemplar) = exemplar {
            let bucket = self.bounds.partition_point(|bound| *bound < exemplar.value);
            let bucket = if self.shape == Shape::Histogram { bucket } else { 0 };
            if let Some(held) = total.exemplars.get_mut(bucket) {
                *held = Some(exemplar);
            }
        }
    }
}
