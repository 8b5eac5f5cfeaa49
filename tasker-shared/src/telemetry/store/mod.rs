//! The series store: what the SDK recorded since the last look goes in, exact cumulative series come out.
//!
//! A correlation id as a label would grow without bound. Here the series of the most recent ids are held; those of
//! an older or idle id end. What was never exported of them is counted under `correlation_id="overflow"`, so that
//! the values last sent always add up to what was recorded. Totals without ids are kept beside them and never end.

mod absorb;
mod batch;
mod family;
#[cfg(test)]
mod tests;
mod value;

pub(super) use batch::Batch;
pub(super) use family::{Family, Labels, Shape, Total};
pub(super) use value::{Exemplar, Number, Value};

use super::sampler::Sampler;
use opentelemetry::{InstrumentationScope, KeyValue, StringValue};
use std::{collections::HashMap, time::Duration};

/// The id of what exceeds the bound.
const OVERFLOW: &str = "overflow";
/// The label that the SDK gives to what exceeds its own limit.
const SDK_OVERFLOW: &str = "otel.metric.overflow";

/// How much is held.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Whether series carry correlation ids.
    pub(super) correlation: bool,
    /// How many ids have series.
    pub(super) ids: usize,
    /// When the series of an id end that is not heard of.
    pub(super) idle: Duration,
}

/// Everything that was recorded. Times are nanoseconds since 1970, given by the caller.
#[derive(Debug)]
pub(super) struct Store {
    bounds: Bounds,
    sampler: Option<Sampler>,
    scopes: Vec<InstrumentationScope>,
    families: Vec<Family>,
    index: HashMap<(usize, String), usize>,
    shared: HashMap<Place, Series>,
    overflow: HashMap<Place, Series>,
    ids: HashMap<StringValue, Group>,
    ended: HashMap<(StringValue, Place), Ended>,
    collections: u64,
    batches: u64,
    exported_at: u64,
    overflowed: u64,
}

/// A family and a label set in it.
type Place = (u32, u32);

/// The series of one id.
#[derive(Debug, Default)]
struct Group {
    collection: u64,
    at: u64,
    series: HashMap<Place, Series>,
}

/// One cumulative series.
#[derive(Debug, Clone)]
struct Series {
    value: Value,
    /// Where its explicit zero is.
    start: u64,
    /// The batch that first had it.
    announced: Option<u64>,
    exemplar: Option<Exemplar>,
}

/// A series whose end has yet to be told.
#[derive(Debug)]
struct Ended {
    series: Series,
    batch: Option<u64>,
}

/// What was recorded for one label set since the last collection.
struct Point {
    family: usize,
    id: Option<StringValue>,
    labels: Vec<KeyValue>,
    delta: Value,
    /// A measurement that was really made.
    seen: f64,
}

impl Store {
    /// An empty store; counting begins at `now`. Exemplars are kept for traces that `sampler` keeps.
    pub(super) fn new(bounds: Bounds, sampler: Option<Sampler>, now: u64) -> Self {
        Self {
            bounds,
            sampler,
            scopes: Vec::new(),
            families: Vec::new(),
            index: HashMap::new(),
            shared: HashMap::new(),
            overflow: HashMap::new(),
            ids: HashMap::new(),
            ended: HashMap::new(),
            collections: 0,
            batches: 0,
            exported_at: now,
            overflowed: 0,
        }
    }

    /// The families, for reading.
    pub(super) fn families(&self) -> &[Family] {
        &self.families
    }

    /// How many series are held, gauges included.
    pub(super) fn series(&self) -> usize {
        let of_ids: usize = self.ids.values().map(|group| group.series.len()).sum();
        let gauges: usize = self.families.iter().map(|family| family.current.len()).sum();
        self.shared.len() + self.overflow.len() + self.ended.len() + of_ids + gauges
    }

    /// How many series were counted under `overflow` since the last call.
    pub(super) fn take_overflowed(&mut self) -> u64 {
        std::mem::take(&mut self.overflowed)
    }

    fn count(&mut self, point: Point, now: u64) {
        let exemplar = point.id.as_ref().and_then(|id| self.exemplar(id, point.seen, now));
        let family = &mut self.families[point.family];
        let beyond_sdk = family.by_correlation && point.labels.iter().any(|label| label.key.as_str() == SDK_OVERFLOW);
        let label_set = family.place(point.labels, &point.delta, self.exported_at);
        family.count(label_set, &point.delta, exemplar);
        let place = (u32::try_from(point.family).unwrap_or(u32::MAX), label_set);
        let begun = self.exported_at;
        let series = match point.id {
            Some(id) if self.bounds.correlation => self.of_id(id, place, now),
            None if beyond_sdk && self.bounds.correlation => {
                self.overflowed += 1;
                &mut self.overflow
            }
            _ => &mut self.shared,
        };
        let series = series.entry(place).or_insert_with(|| Series::new(&point.delta, begun));
        series.value.add(&point.delta);
        series.exemplar = exemplar.or(series.exemplar);
    }

    /// The series of `id`; one that ended and is not yet forgotten goes on where it was.
    fn of_id(&mut self, id: StringValue, place: Place, now: u64) -> &mut HashMap<Place, Series> {
        let again = if self.ended.is_empty() { None } else { self.ended.remove(&(id.clone(), place)) };
        let group = self.ids.entry(id).or_default();
        group.collection = self.collections;
        group.at = now;
        if let Some(ended) = again {
            group.series.insert(place, ended.series);
        }
        &mut group.series
    }

    fn exemplar(&self, id: &StringValue, value: f64, at: u64) -> Option<Exemplar> {
        let trace = uuid::Uuid::try_parse(id.as_str()).ok()?.into_bytes();
        let kept = self.sampler?.keeps(opentelemetry::trace::TraceId::from_bytes(trace), None);
        kept.then_some(Exemplar { value, trace, at })
    }

    /// Ends the series of idle ids, and of the oldest beyond the bound.
    fn evict(&mut self, now: u64) {
        let idle = value::nanos(self.bounds.idle);
        let mut gone: Vec<StringValue> =
            self.ids.iter().filter(|(_, group)| group.at + idle < now).map(|(id, _)| id.clone()).collect();
        gone.drain(..).for_each(|id| self.end(id));
        let excess = self.ids.len().saturating_sub(self.bounds.ids);
        if excess == 0 {
            return;
        }
        let mut oldest: Vec<(u64, &str, &StringValue)> =
            self.ids.iter().map(|(id, group)| (group.collection, id.as_str(), id)).collect();
        oldest.select_nth_unstable_by(excess - 1, |a, b| (a.0, a.1).cmp(&(b.0, b.1)));
        gone.extend(oldest[..excess].iter().map(|(_, _, id)| (*id).clone()));
        gone.drain(..).for_each(|id| self.end(id));
        self.ids.shrink_to(2 * self.bounds.ids);
    }

    fn end(&mut self, id: StringValue) {
        let Some(group) = self.ids.remove(&id) else { return };
        for (place, series) in group.series {
            if series.announced.is_some() {
                self.ended.insert((id.clone(), place), Ended { series, batch: None });
            } else {
                self.fold(place, &series.value);
            }
        }
    }

    /// Counts under `overflow` what nobody was told of.
    fn fold(&mut self, place: Place, value: &Value) {
        self.overflowed += 1;
        let start = self.exported_at;
        self.overflow.entry(place).or_insert_with(|| Series::new(value, start)).value.add(value);
    }
}

impl Series {
    fn new(like: &Value, start: u64) -> Self {
        Self { value: like.zero(), start, announced: None, exemplar: None }
    }
}
