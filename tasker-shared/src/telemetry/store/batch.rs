//! What is sent: batches of OTLP requests, and what follows when one arrives or is refused.
//!
//! A batch is repeated unchanged until it arrives or is refused: whoever has stored a part of it already stores the
//! same samples again, which changes nothing.

use super::{
    Ended, OVERFLOW, Place, Series, Store,
    family::{Family, Labels, Shape},
    value::{Exemplar, Number, Value},
};
use crate::metrics::spec::CORRELATION_ID;
use opentelemetry::KeyValue;
use opentelemetry_proto::{
    tonic::{
        collector::metrics::v1::ExportMetricsServiceRequest,
        metrics::v1::{
            AggregationTemporality, DataPointFlags, Exemplar as WrittenExemplar, Gauge, Histogram, HistogramDataPoint,
            Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, exemplar, metric::Data, number_data_point,
        },
        resource::v1::Resource,
    },
    transform::common::tonic::Attributes,
};
use std::collections::{HashMap, VecDeque};

/// Points of one request: receivers limit a message to 4 MiB.
const POINTS_PER_REQUEST: usize = 2_000;
/// A new series' zero is not put further back than this, so that receivers do not refuse it as too old.
const OLDEST_ZERO: u64 = 600 * 1_000_000_000;
const MILLISECOND: u64 = 1_000_000;

/// Requests that belong to one point in time.
#[derive(Debug)]
pub(in crate::telemetry) struct Batch {
    number: u64,
    time: u64,
    /// What is still to be sent.
    pub(in crate::telemetry) requests: VecDeque<ExportMetricsServiceRequest>,
}

impl Batch {
    /// When it was made, in nanoseconds since 1970.
    pub(in crate::telemetry) fn time(&self) -> u64 {
        self.time
    }
}

impl Store {
    /// Everything that is known at `now`.
    pub(in crate::telemetry) fn batch(&mut self, resource: &Resource, now: u64) -> Batch {
        let time = now.max(self.exported_at + 4 * MILLISECOND);
        self.batches += 1;
        let mut points = Points { time, batch: self.batches, by_family: HashMap::new() };
        for (place, series) in &mut self.shared {
            points.series(&self.families, *place, None, series);
        }
        for (place, series) in &mut self.overflow {
            points.series(&self.families, *place, Some(OVERFLOW), series);
        }
        for (id, group) in &mut self.ids {
            let text = id.to_string();
            for (place, series) in &mut group.series {
                points.series(&self.families, *place, Some(&text), series);
            }
        }
        for ((id, place), ended) in &mut self.ended {
            points.ended(&self.families, *place, &id.to_string(), ended);
        }
        for (index, family) in self.families.iter_mut().enumerate() {
            points.gauges(index, family);
        }
        self.exported_at = time;
        let requests = self.requests(resource, points);
        Batch { number: self.batches, time, requests }
    }

    /// The batch has arrived.
    pub(in crate::telemetry) fn arrived(&mut self, batch: &Batch) {
        self.ended.retain(|_, ended| ended.batch != Some(batch.number));
        for family in &mut self.families {
            family.sent.retain(|_, ended| *ended != Some(batch.number));
        }
    }

    /// The batch was refused: what it announced is announced anew, and begins where it was refused.
    pub(in crate::telemetry) fn refused(&mut self, batch: &Batch) {
        let unknown = |series: &Series| series.announced == Some(batch.number);
        let of_ids = self.ids.values_mut().flat_map(|group| group.series.values_mut());
        for series in self.shared.values_mut().chain(self.overflow.values_mut()).chain(of_ids) {
            if unknown(series) {
                series.announced = None;
                series.start = batch.time;
            }
        }
        let never_told: Vec<_> = self.ended.extract_if(|_, ended| unknown(&ended.series)).collect();
        for ((_, place), ended) in never_told {
            self.fold(place, &ended.series.value);
        }
    }

    fn requests(&self, resource: &Resource, points: Points) -> VecDeque<ExportMetricsServiceRequest> {
        let mut packing = Packing { resource, requests: VecDeque::new(), scopes: HashMap::new(), points: 0 };
        for (index, written) in points.by_family {
            let family = &self.families[index];
            for (data, points) in written.into_data(family.shape) {
                packing.add(&self.scopes, family, data, points);
            }
        }
        packing.flush(&self.scopes);
        packing.requests
    }
}

struct Points {
    time: u64,
    batch: u64,
    by_family: HashMap<usize, Written>,
}

/// The points of one family.
#[derive(Default)]
struct Written {
    numbers: Vec<NumberDataPoint>,
    histograms: Vec<HistogramDataPoint>,
}

impl Points {
    /// A series that goes on; a new one begins with an explicit zero, so that its first value is an increase.
    fn series(&mut self, families: &[Family], place: Place, id: Option<&str>, series: &mut Series) {
        let attributes = attributes(families, place, id);
        if series.announced.is_none() {
            series.announced = Some(self.batch);
            series.start = series.start.max(self.time.saturating_sub(OLDEST_ZERO));
            self.value(families, place, &attributes, series.start, series.start, &series.value.zero(), None);
        }
        let exemplar = series.exemplar.take();
        self.value(families, place, &attributes, series.start, self.time, &series.value, exemplar);
    }

    /// A series that ends: its last value, and a mark that no more is known. The marks are earlier than the batch, so
    /// that a series of the same name can begin at the batch's time.
    fn ended(&mut self, families: &[Family], place: Place, id: &str, ended: &mut Ended) {
        ended.batch = Some(self.batch);
        let attributes = attributes(families, place, Some(id));
        let series = &ended.series;
        self.value(families, place, &attributes, series.start, self.time - 2 * MILLISECOND, &series.value, None);
        self.unknown(families[place.0 as usize].shape, place.0 as usize, attributes, self.time - MILLISECOND);
    }

    fn gauges(&mut self, index: usize, family: &mut Family) {
        let batch = self.batch;
        for (labels, value) in &family.current {
            family.sent.insert(Labels::clone(labels), None);
            self.by_family.entry(index).or_default().numbers.push(NumberDataPoint {
                attributes: Attributes::from(labels.iter().cloned()).0,
                time_unix_nano: self.time,
                value: Some(match value {
                    Number::Int(value) => number_data_point::Value::AsInt(*value),
                    Number::Float(value) => number_data_point::Value::AsDouble(*value),
                }),
                ..NumberDataPoint::default()
            });
        }
        for (labels, ended) in family.sent.iter_mut().filter(|(labels, _)| !family.current.contains_key(*labels)) {
            *ended = Some(batch);
            let attributes = labels.iter().cloned().collect();
            self.unknown(family.shape, index, attributes, self.time - MILLISECOND);
        }
    }

    fn unknown(&mut self, shape: Shape, family: usize, attributes: Vec<KeyValue>, time: u64) {
        let attributes = Attributes::from(attributes).0;
        let flags = DataPointFlags::NoRecordedValueMask as u32;
        let written = self.by_family.entry(family).or_default();
        if shape == Shape::Histogram {
            let point = HistogramDataPoint { attributes, time_unix_nano: time, flags, ..HistogramDataPoint::default() };
            written.histograms.push(point);
        } else {
            let point = NumberDataPoint { attributes, time_unix_nano: time, flags, ..NumberDataPoint::default() };
            written.numbers.push(point);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "a data point has this many fields")]
    fn value(
        &mut self,
        families: &[Family],
        place: Place,
        attributes: &[KeyValue],
        start: u64,
        time: u64,
        value: &Value,
        exemplar: Option<Exemplar>,
    ) {
        let attributes = Attributes::from(attributes.iter().cloned()).0;
        let exemplars = exemplar.iter().map(written_exemplar).collect();
        let written = self.by_family.entry(place.0 as usize).or_default();
        let number = match value {
            Value::Int(value) => number_data_point::Value::AsInt(i64::try_from(*value).unwrap_or(i64::MAX)),
            Value::Float(value) => number_data_point::Value::AsDouble(*value),
            Value::Histogram(held) => {
                written.histograms.push(HistogramDataPoint {
                    attributes,
                    start_time_unix_nano: start,
                    time_unix_nano: time,
                    count: held.count,
                    sum: Some(held.sum),
                    bucket_counts: held.buckets.to_vec(),
                    explicit_bounds: families[place.0 as usize].bounds.clone(),
                    exemplars,
                    ..HistogramDataPoint::default()
                });
                return;
            }
        };
        written.numbers.push(NumberDataPoint {
            attributes,
            start_time_unix_nano: start,
            time_unix_nano: time,
            exemplars,
            flags: 0,
            value: Some(number),
        });
    }
}

/// The labels of a series, with its correlation id; sorted, as the id's key is put where it belongs.
fn attributes(families: &[Family], place: Place, id: Option<&str>) -> Vec<KeyValue> {
    let labels = &families[place.0 as usize].totals[place.1 as usize].labels;
    let at = labels.partition_point(|label| label.key.as_str() < CORRELATION_ID);
    let mut attributes: Vec<KeyValue> = labels.to_vec();
    if let Some(id) = id {
        attributes.insert(at, KeyValue::new(CORRELATION_ID, id.to_owned()));
    }
    attributes
}

fn written_exemplar(exemplar: &Exemplar) -> WrittenExemplar {
    WrittenExemplar {
        time_unix_nano: exemplar.at,
        trace_id: exemplar.trace.to_vec(),
        value: Some(exemplar::Value::AsDouble(exemplar.value)),
        ..WrittenExemplar::default()
    }
}

impl Written {
    /// In pieces that fit into a request. A zero and the value after it stay together.
    fn into_data(self, shape: Shape) -> Vec<(Data, usize)> {
        let temporality = AggregationTemporality::Cumulative.into();
        let numbers = pieces(self.numbers, |point| point.time_unix_nano).into_iter().map(|data_points| {
            let points = data_points.len();
            let data = match shape {
                Shape::Gauge => Data::Gauge(Gauge { data_points }),
                _ => Data::Sum(Sum {
                    data_points,
                    aggregation_temporality: temporality,
                    is_monotonic: shape == Shape::Counter,
                }),
            };
            (data, points)
        });
        let histograms = pieces(self.histograms, |point| point.time_unix_nano).into_iter().map(|data_points| {
            let points = data_points.len();
            (Data::Histogram(Histogram { data_points, aggregation_temporality: temporality }), points)
        });
        numbers.chain(histograms).collect()
    }
}

/// Splits where time does not go on from one point to the next, which is between two series.
fn pieces<P>(points: Vec<P>, time: impl Fn(&P) -> u64) -> Vec<Vec<P>> {
    let mut pieces: Vec<Vec<P>> = Vec::new();
    for point in points {
        match pieces.last_mut() {
            Some(piece)
                if piece.len() < POINTS_PER_REQUEST || piece.last().is_some_and(|last| time(last) < time(&point)) =>
            {
                piece.push(point);
            }
            _ => pieces.push(vec![point]),
        }
    }
    pieces
}

struct Packing<'a> {
    resource: &'a Resource,
    requests: VecDeque<ExportMetricsServiceRequest>,
    scopes: HashMap<usize, Vec<Metric>>,
    points: usize,
}

impl Packing<'_> {
    fn add(&mut self, scopes: &[opentelemetry::InstrumentationScope], family: &Family, data: Data, points: usize) {
        if self.points > 0 && self.points + points > POINTS_PER_REQUEST {
            self.flush(scopes);
        }
        self.points += points;
        self.scopes.entry(family.scope).or_default().push(Metric {
            name: family.name.clone(),
            description: family.help.clone(),
            unit: family.unit.clone(),
            data: Some(data),
            ..Metric::default()
        });
    }

    fn flush(&mut self, scopes: &[opentelemetry::InstrumentationScope]) {
        if self.points == 0 {
            return;
        }
        self.points = 0;
        let scope_metrics = std::mem::take(&mut self.scopes)
            .into_iter()
            .map(|(scope, metrics)| ScopeMetrics {
                scope: Some((&scopes[scope], None).into()),
                metrics,
                ..ScopeMetrics::default()
            })
            .collect();
        let resource_metrics =
            ResourceMetrics { resource: Some(self.resource.clone()), scope_metrics, ..ResourceMetrics::default() };
        self.requests.push_back(ExportMetricsServiceRequest { resource_metrics: vec![resource_metrics] });
    }
}
