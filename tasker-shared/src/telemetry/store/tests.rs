//! What the store promises: nothing is lost, nothing is counted twice, nothing grows without bound.

use super::{
    Batch, Bounds, Family, Point, Store,
    family::Shape,
    value::{Delta, Distribution, Value},
};
use crate::id::CorrelationId;
use opentelemetry::KeyValue;
use opentelemetry_proto::tonic::{
    metrics::v1::{metric::Data, number_data_point::Value as Written},
    resource::v1::Resource,
};
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

const SECOND: u64 = 1_000_000_000;

fn store(ids: usize) -> Store {
    let bounds = Bounds { correlation: true, ids, idle: Duration::from_secs(900) };
    let mut store = Store::new(bounds, None, SECOND);
    let family = Family::new(0, "tasker.tasks.completions.total", "{task}", "", Shape::Counter);
    store.families.push(family);
    store.scopes.push(opentelemetry::InstrumentationScope::builder("tasker").build());
    store
}

fn id_of(id: usize) -> CorrelationId {
    CorrelationId(uuid::Uuid::from_u128(id as u128))
}

fn collect(store: &mut Store, measured: &[(usize, u64)], now: u64) {
    for (id, value) in measured {
        let id = Some(id_of(*id));
        let label_set = store.families[0].place(&[KeyValue::new("namespace", "orders")], now);
        store.count(Point { place: (0, label_set), id, delta: Delta::One(*value as f64), seen: 1.0 }, now);
    }
    store.evict(now);
}

/// What a receiver has stored: the samples of each series, by time; `None` is a staleness mark.
#[derive(Default)]
struct Receiver(HashMap<String, BTreeMap<u64, Option<i64>>>);

impl Receiver {
    fn store(&mut self, batch: &Batch) {
        let metrics = batch.requests.iter().flat_map(|request| &request.resource_metrics);
        for metric in metrics.flat_map(|of| &of.scope_metrics).flat_map(|of| &of.metrics) {
            let Some(Data::Sum(sum)) = &metric.data else { panic!("{metric:?}") };
            for point in &sum.data_points {
                let value = match point.value {
                    Some(Written::AsInt(value)) if point.flags == 0 => Some(value),
                    _ => None,
                };
                let samples = self.0.entry(format!("{:?}", point.attributes)).or_default();
                let last = samples.last_key_value().map(|(time, _)| *time);
                let known = samples.get(&point.time_unix_nano).copied();
                assert!(known.is_none_or(|known| known == value), "two values at one time");
                assert!(known.is_some() || last < Some(point.time_unix_nano), "a sample is out of order");
                samples.insert(point.time_unix_nano, value);
            }
        }
    }

    /// What `increase()` over everything gives: sums of what was added, with resets.
    fn increase(&self) -> i64 {
        self.0.values().map(|samples| increase(samples.values().copied().flatten())).sum()
    }

    fn live(&self) -> usize {
        self.0.values().filter(|samples| samples.values().next_back().is_some_and(Option::is_some)).count()
    }
}

fn increase(values: impl Iterator<Item = i64>) -> i64 {
    let mut values = values.peekable();
    let mut before = values.next().unwrap_or_default();
    assert_eq!(before, 0, "a series begins with an explicit zero");
    let mut sum = 0;
    for value in values {
        sum += if value < before { value } else { value - before };
        before = value;
    }
    sum
}

/// What happens to a batch.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Arrives,
    ArrivesButIsRepeated,
    IsRefused,
}

#[derive(Debug, Clone)]
enum Act {
    Collect(Vec<(usize, u64)>),
    Export(Fate),
    Wait,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let measured = prop::collection::vec((0..12_usize, 0..5_u64), 0..12);
    let fate = prop_oneof![
        4 => Just(Fate::Arrives),
        1 => Just(Fate::ArrivesButIsRepeated),
        1 => Just(Fate::IsRefused)
    ];
    let act = prop_oneof![
        6 => measured.prop_map(Act::Collect),
        4 => fate.prop_map(Act::Export),
        1 => Just(Act::Wait)
    ];
    prop::collection::vec(act, 1..40)
}

proptest! {
    #[test]
    fn what_is_sent_adds_up_to_what_was_recorded_whatever_is_evicted(acts in acts(), ids in 1..8_usize) {
        let (mut store, mut receiver, mut now, mut recorded) = (store(ids), Receiver::default(), 2 * SECOND, 0);
        for act in acts {
            now += SECOND;
            match act {
                Act::Collect(measured) => {
                    recorded += measured.iter().map(|(_, value)| *value).sum::<u64>();
                    collect(&mut store, &measured, now);
                }
                Act::Wait => now += 1_000 * SECOND,
                Act::Export(fate) => export(&mut store, &mut receiver, fate, now),
            }
            prop_assert!(store.ids.len() <= ids);
        }
        export(&mut store, &mut receiver, Fate::Arrives, now + SECOND);
        prop_assert_eq!(receiver.increase(), i64::try_from(recorded).unwrap());
        prop_assert!(receiver.live() <= ids + 1);
        let totals = store.families[0].totals.first().map_or(Value::Int(0), |total| total.value.clone());
        prop_assert_eq!(totals, Value::Int(recorded));
    }
}

fn export(store: &mut Store, receiver: &mut Receiver, fate: Fate, now: u64) {
    let batch = store.batch(&Resource::default(), now);
    match fate {
        Fate::Arrives => {
            receiver.store(&batch);
            store.arrived(&batch);
        }
        Fate::ArrivesButIsRepeated => {
            receiver.store(&batch);
            collect(store, &[], now + 1);
            receiver.store(&batch);
            store.arrived(&batch);
        }
        Fate::IsRefused => store.refused(&batch),
    }
}

#[test]
fn after_100_000_ids_the_newest_are_there_and_memory_is_bounded() {
    let (mut store, mut receiver) = (store(1_000), Receiver::default());
    for round in 0..200_usize {
        let measured: Vec<(usize, u64)> = (round * 500..round * 500 + 500).map(|id| (id, 1)).collect();
        let now = (2 + round as u64) * SECOND;
        collect(&mut store, &measured, now);
        if round % 5 == 4 {
            export(&mut store, &mut receiver, Fate::Arrives, now);
        }
        assert!(store.series() <= 2 * 1_000 + 2, "{}", store.series());
    }
    assert_eq!(receiver.increase(), 100_000);
    assert!(receiver.0.keys().any(|attributes| attributes.contains(&id_of(99_999).to_string())));
    assert!(store.ids.capacity() < 8_000, "{}", store.ids.capacity());
}

#[test]
fn a_large_export_is_sent_in_several_requests_and_a_zero_stays_with_its_value() {
    let mut store = store(10_000);
    let measured: Vec<(usize, u64)> = (0..4_500).map(|id| (id, 1)).collect();
    collect(&mut store, &measured, 3 * SECOND);
    let batch = store.batch(&Resource::default(), 4 * SECOND);
    let sizes: Vec<usize> = batch.requests.iter().map(prost::Message::encoded_len).collect();
    assert_eq!(sizes.len(), 5);
    assert!(sizes.iter().all(|size| *size < 1024 * 1024), "{sizes:?}");
    for request in &batch.requests {
        let Some(Data::Sum(sum)) = &request.resource_metrics[0].scope_metrics[0].metrics[0].data else { panic!() };
        assert!(sum.data_points.len().is_multiple_of(2));
        assert!(sum.data_points.chunks(2).all(|pair| pair[0].attributes == pair[1].attributes));
    }
}

#[test]
fn an_id_that_is_not_heard_of_ends_and_a_distribution_is_added_bucket_by_bucket() {
    let mut store = store(10);
    let delta = |buckets: [u64; 3]| {
        let count = buckets.iter().sum();
        Value::Histogram(Distribution { count, sum: 1.5, buckets: buckets.into() })
    };
    store.families[0].shape = Shape::Histogram;
    store.families[0].bounds = vec![1.0, 2.0];
    store.families[0].zero = delta([0, 0, 0]).zero();
    for buckets in [[1, 0, 0], [0, 2, 1]] {
        let label_set = store.families[0].place(&[], SECOND);
        let (place, id, delta) = ((0, label_set), Some(id_of(7)), delta(buckets));
        store.count(Point { place, id, delta: Delta::Many(&delta), seen: 1.0 }, 3 * SECOND);
        store.count(Point { place, id, delta: Delta::One(1.5), seen: 1.5 }, 3 * SECOND);
    }
    let expected = Value::Histogram(Distribution { count: 6, sum: 6.0, buckets: [1, 4, 1].into() });
    assert_eq!(store.ids.values().next().unwrap().series[&(0, 0)].value, expected);
    let batch = store.batch(&Resource::default(), 4 * SECOND);
    store.arrived(&batch);
    store.evict(1_000 * SECOND);
    assert!(store.ids.is_empty());
    let Some(Data::Histogram(last)) =
        store.batch(&Resource::default(), 1_001 * SECOND).requests[0].resource_metrics[0].scope_metrics[0].metrics[0]
            .data
            .clone()
    else {
        panic!()
    };
    assert_eq!(last.data_points.iter().map(|point| point.flags).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn under_pressure_the_newest_tasks_keep_their_series_from_the_first_station_to_the_last() {
    let millis = |n: u64| 1_790_000_000_000 + n;
    let id = |n: u64| {
        let time =
            uuid::Timestamp::from_unix(uuid::NoContext, millis(n) / 1_000, (millis(n) % 1_000) as u32 * 1_000_000);
        CorrelationId(uuid::Uuid::new_v7(time))
    };
    let ids: Vec<_> = (0..100).map(id).collect();
    let mut store = store(10);
    let now = |n: u64| millis(n) * 1_000_000;
    // every task is seen first, and then again at its second station, the oldest last
    for (at, id) in ids.iter().chain(ids.iter().rev()).enumerate() {
        let label_set = store.families[0].place(&[], SECOND);
        store.count(Point { place: (0, label_set), id: Some(*id), delta: Delta::One(1.0), seen: 1.0 }, now(at as u64));
        store.evict(now(at as u64));
    }
    let held = |id: &CorrelationId| store.ids.get(id).map(|group| group.series[&(0, 0)].value.clone());
    assert!(ids[90..].iter().all(|id| held(id) == Some(Value::Int(2))), "the ten newest are whole");
    assert!(ids[..90].iter().all(|id| held(id).is_none()));
}
