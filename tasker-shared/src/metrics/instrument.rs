//! Typed instruments: each takes exactly the labels that the catalogue gives it.
//!
//! Counters and histograms record into the OpenTelemetry SDK. Values that go up and down are held here, so that they
//! persist between exports and labels that no longer exist can be taken away; the SDK reads them when it collects.

use super::{journal::Journal, labels::LabelSet, spec::Kind, spec::Spec};
use opentelemetry::{KeyValue, metrics::Meter};
use std::{
    collections::HashMap,
    marker::PhantomData,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Where instruments record to: those of single tasks into the journal, the others into the SDK.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) meter: &'a Meter,
    pub(super) journal: &'a Arc<Journal>,
}

/// Where one instrument records to.
#[derive(Debug, Clone)]
enum To<I> {
    Nowhere,
    Sdk(I),
    Journal(Arc<Journal>, u32),
}

impl<I> To<I> {
    /// `metric` is the place in the catalogue.
    fn new(target: Option<Target<'_>>, spec: &Spec, metric: u32, build: impl FnOnce(&Meter) -> I) -> Self {
        match target {
            None => Self::Nowhere,
            Some(target) if spec.has_correlation_id() => Self::Journal(Arc::clone(target.journal), metric),
            Some(target) => Self::Sdk(build(target.meter)),
        }
    }
}

fn note(journal: &Journal, metric: u32, value: f64, labels: &impl LabelSet) {
    if let Some(id) = labels.correlation_id() {
        journal.note(metric, labels.attributes().as_ref(), id, value);
    }
}

/// Counts up.
#[derive(Debug, Clone)]
pub struct Counter<L>(To<opentelemetry::metrics::Counter<u64>>, PhantomData<fn(L)>);

impl<L: LabelSet> Counter<L> {
    pub(super) const KIND: Kind = Kind::Counter;

    #[expect(clippy::disallowed_methods, reason = "the catalogue's counters are made here")]
    pub(super) fn register(target: Option<Target<'_>>, spec: &Spec, metric: u32) -> Self {
        let to = To::new(target, spec, metric, |meter| {
            meter.u64_counter(spec.name).with_description(spec.help).with_unit(spec.unit).build()
        });
        Self(to, PhantomData)
    }

    /// Adds `value`.
    pub fn add(&self, value: u64, labels: L) {
        match &self.0 {
            To::Nowhere => {}
            To::Sdk(counter) => counter.add(value, labels.attributes().as_ref()),
            To::Journal(journal, metric) => note(journal, *metric, value as f64, &labels),
        }
    }
}

/// A distribution, in the unit that the catalogue gives it.
#[derive(Debug, Clone)]
pub struct Histogram<L> {
    to: To<opentelemetry::metrics::Histogram<f64>>,
    per_second: f64,
    labels: PhantomData<fn(L)>,
}

impl<L: LabelSet> Histogram<L> {
    pub(super) const KIND: Kind = Kind::Histogram;

    #[expect(clippy::disallowed_methods, reason = "the catalogue's histograms are made here")]
    pub(super) fn register(target: Option<Target<'_>>, spec: &Spec, metric: u32) -> Self {
        let to = To::new(target, spec, metric, |meter| {
            let builder = meter.f64_histogram(spec.name).with_description(spec.help).with_unit(spec.unit);
            builder.with_boundaries(spec.buckets.to_vec()).build()
        });
        let per_second = if spec.unit == "ms" { 1_000.0 } else { 1.0 };
        Self { to, per_second, labels: PhantomData }
    }

    /// Records `value`, in the metric's unit.
    pub fn record(&self, value: f64, labels: L) {
        match &self.to {
            To::Nowhere => {}
            To::Sdk(histogram) => histogram.record(value, labels.attributes().as_ref()),
            To::Journal(journal, metric) => note(journal, *metric, value, &labels),
        }
    }

    /// Records a duration, converted to the metric's unit with its fraction.
    pub fn record_duration(&self, duration: Duration, labels: L) {
        self.record(duration.as_secs_f64() * self.per_second, labels);
    }

    /// Records the time that has passed since `start`.
    pub fn record_since(&self, start: Instant, labels: L) {
        self.record_duration(start.elapsed(), labels);
    }
}

type Cells<V> = Arc<Mutex<HashMap<Box<[KeyValue]>, V>>>;

macro_rules! held {
    ($(#[$doc:meta])* $name:ident, $value:ty, $kind:expr, $build:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub struct $name<L>(Option<Cells<$value>>, PhantomData<fn(L)>);

        impl<L: LabelSet> $name<L> {
            pub(super) const KIND: Kind = $kind;

            #[expect(clippy::disallowed_methods, reason = "the catalogue's gauges are made here")]
            pub(super) fn register(target: Option<Target<'_>>, spec: &Spec, _: u32) -> Self {
                let Some(target) = target else { return Self(None, PhantomData) };
                let cells = Cells::<$value>::default();
                let read = Arc::clone(&cells);
                let builder = target.meter.$build(spec.name).with_description(spec.help).with_unit(spec.unit);
                let _read_by_the_sdk = builder
                    .with_callback(move |observer| {
                        for (attributes, value) in read.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                            observer.observe(*value, attributes);
                        }
                    })
                    .build();
                Self(Some(cells), PhantomData)
            }

            /// Adds `change`, which may be negative; what was never set begins at zero.
            pub fn add(&self, change: $value, labels: L) {
                self.with(labels, |value| *value += change);
            }

            /// Adds one until the guard is dropped.
            pub fn hold(&self, labels: L) -> Held<$value> {
                let Some(cells) = &self.0 else { return Held(None) };
                let key: Box<[KeyValue]> = labels.attributes().as_ref().into();
                change(cells, key.clone(), |value| *value += 1 as $value);
                Held(Some((Arc::clone(cells), key)))
            }

            pub(super) fn with(&self, labels: L, update: impl FnOnce(&mut $value)) {
                if let Some(cells) = &self.0 {
                    change(cells, labels.attributes().as_ref().into(), update);
                }
            }
        }
    };
}

fn change<V: Default>(cells: &Cells<V>, key: Box<[KeyValue]>, update: impl FnOnce(&mut V)) {
    update(cells.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default());
}

macro_rules! observed {
    ($name:ident, $value:ty) => {
        impl<L: LabelSet> $name<L> {
            /// Sets the value; it stays until it is set anew, removed or replaced.
            pub fn set(&self, value: $value, labels: L) {
                self.with(labels, |held| *held = value);
            }

            /// Forgets one series: nothing is known about it any more.
            pub fn remove(&self, labels: L) {
                if let Some(cells) = &self.0 {
                    cells.lock().unwrap_or_else(PoisonError::into_inner).remove(labels.attributes().as_ref());
                }
            }

            /// Sets the whole metric: series that are not among `values` end.
            pub fn replace(&self, values: impl IntoIterator<Item = (L, $value)>) {
                if let Some(cells) = &self.0 {
                    let fresh = values.into_iter().map(|(labels, value)| (labels.attributes().as_ref().into(), value));
                    let fresh = fresh.collect();
                    *cells.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
                }
            }

            /// Forgets every series.
            pub fn clear(&self) {
                self.replace([]);
            }
        }
    };
}

held! {
    /// The last observed whole number.
    Gauge, i64, Kind::Gauge, i64_observable_gauge
}
held! {
    /// The last observed number.
    FloatGauge, f64, Kind::Gauge, f64_observable_gauge
}
held! {
    /// A number that is added to where it changes.
    UpDownCounter, i64, Kind::UpDownCounter, i64_observable_up_down_counter
}
observed!(Gauge, i64);
observed!(FloatGauge, f64);

/// One thing that is counted as present until this is dropped.
#[derive(Debug)]
#[must_use = "the count goes down when this is dropped"]
pub struct Held<V: Default + From<i8> + std::ops::SubAssign>(Option<(Cells<V>, Box<[KeyValue]>)>);

impl<V: Default + From<i8> + std::ops::SubAssign> Drop for Held<V> {
    fn drop(&mut self) {
        if let Some((cells, key)) = self.0.take() {
            change(&cells, key, |value| *value -= V::from(1));
        }
    }
}
