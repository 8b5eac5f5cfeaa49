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
use crate::{id::CorrelationId, metrics::CATALOG};
use opentelemetry::{InstrumentationScope, trace::TraceId};
use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};
use value::Delta;

/// The id of what exceeds the bound.
const OVERFLOW: &str = "overflow";

/// How far the clock of who made an id may be ahead.
const EARLIEST: u64 = 60 * 1_000_000_000;
/// How old a task may be that is still measured.
const LATEST: u64 = 90 * 86_400 * 1_000_000_000;

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
    ids: HashMap<CorrelationId, Group>,
    ended: HashMap<(CorrelationId, Place), Ended>,
    /// Where the journal's metrics and their label sets are, by their numbers there.
    journaled: Vec<Vec<Option<Place>>>,
    batches: u64,
    exported_at: u64,
    overflowed: u64,
}

/// A family and a label set in it.
type Place = (u32, u32);

/// The series of one id.
#[derive(Debug, Default)]
struct Group {
    /// When its task was made, as far as that is known.
    born: u64,
    at: u64,
    series: BTreeMap<Place, Series>,
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

/// What was recorded for one label set.
struct Point<'a> {
    place: Place,
    id: Option<CorrelationId>,
    delta: Delta<'a>,
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
            journaled: vec![Vec::new(); CATALOG.len()],
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

    fn count(&mut self, point: Point<'_>, now: u64) {
        let Point { place, id, delta, seen } = point;
        let exemplar = id.and_then(|id| self.exemplar(id, seen, now));
        let begun = self.exported_at;
        let family = &mut self.families[place.0 as usize];
        family.count(place.1, delta, exemplar);
        let fresh = || Series::new(family.zero.clone(), begun);
        let series = match id.filter(|_| self.bounds.correlation) {
            Some(id) => {
                let group = self.ids.entry(id).or_insert_with(|| Group { born: born(id, now), ..Group::default() });
                group.at = now;
                // one that ended and is not yet forgotten goes on where it was
                if !self.ended.is_empty()
                    && let Some(ended) = self.ended.remove(&(id, place))
                {
                    group.series.insert(place, ended.series);
                }
                group.series.entry(place).or_insert_with(fresh)
            }
            None => self.shared.entry(place).or_insert_with(fresh),
        };
        series.value.take(delta, &family.bounds);
        series.exemplar = exemplar.or(series.exemplar);
    }

    fn exemplar(&self, id: CorrelationId, value: f64, at: u64) -> Option<Exemplar> {
        let trace = id.0.into_bytes();
        self.sampler?.keeps(TraceId::from_bytes(trace), None).then_some(Exemplar { value, trace, at })
    }

    /// Ends the series of idle ids, and of the oldest beyond the bound.
    fn evict(&mut self, now: u64) {
        let idle = value::nanos(self.bounds.idle);
        let mut gone: Vec<CorrelationId> =
            self.ids.iter().filter(|(_, group)| group.at + idle < now).map(|(id, _)| *id).collect();
        gone.drain(..).for_each(|id| self.end(id));
        let excess = self.ids.len().saturating_sub(self.bounds.ids);
        if excess == 0 {
            return;
        }
        let mut oldest: Vec<(u64, CorrelationId)> = self.ids.iter().map(|(id, group)| (group.born, *id)).collect();
        oldest.select_nth_unstable(excess - 1);
        gone.extend(oldest[..excess].iter().map(|(_, id)| *id));
        gone.drain(..).for_each(|id| self.end(id));
        self.ids.shrink_to(2 * self.bounds.ids);
    }

    fn end(&mut self, id: CorrelationId) {
        let Some(group) = self.ids.remove(&id) else { return };
        for (place, series) in group.series {
            if series.announced.is_some() {
                self.ended.insert((id, place), Ended { series, batch: None });
            } else {
                self.fold(place, &series.value);
            }
        }
    }

    /// Counts under `overflow` what nobody was told of.
    fn fold(&mut self, place: Place, value: &Value) {
        self.overflowed += 1;
        let start = self.exported_at;
        self.overflow.entry(place).or_insert_with(|| Series::new(value.zero(), start)).value.add(value);
    }
}

/// When the task of an id was made: an id of ours tells. Any other is as old as it is known, so that what is held is
/// the same in every process: the series of the newest tasks, from their first station to their last.
fn born(id: CorrelationId, now: u64) -> u64 {
    let told = id.0.get_timestamp().filter(|_| id.0.get_version_num() == 7).map(|time| {
        let (seconds, nanos) = time.to_unix();
        seconds.saturating_mul(1_000_000_000).saturating_add(u64::from(nanos))
    });
    // a random id that looks like one of ours is told by its improbable time
    told.filter(|told| *told <= now + EARLIEST && now <= told.saturating_add(LATEST)).unwrap_or(now)
}

impl Series {
    fn new(zero: Value, start: u64) -> Self {
        Self { value: zero, start, announced: None, exemplar: None }
    }
}
