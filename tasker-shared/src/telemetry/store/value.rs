//! What a series holds: whole numbers stay whole.

use std::time::Duration;

/// A cumulative value, or an addition to one.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::telemetry) enum Value {
    /// A count.
    Int(u64),
    /// A sum of fractions.
    Float(f64),
    /// A distribution.
    Histogram(Distribution),
}

/// A distribution over the buckets of its family.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::telemetry) struct Distribution {
    pub(in crate::telemetry) count: u64,
    pub(in crate::telemetry) sum: f64,
    pub(in crate::telemetry) buckets: Box<[u64]>,
}

impl Value {
    /// Nothing yet, in the shape of `self`.
    pub(in crate::telemetry) fn zero(&self) -> Self {
        match self {
            Self::Int(_) => Self::Int(0),
            Self::Float(_) => Self::Float(0.0),
            Self::Histogram(held) => {
                let buckets = vec![0; held.buckets.len()].into();
                Self::Histogram(Distribution { count: 0, sum: 0.0, buckets })
            }
        }
    }

    /// Adds to a value of a family with these bounds.
    pub(in crate::telemetry) fn take(&mut self, delta: Delta<'_>, bounds: &[f64]) {
        match (delta, self) {
            (Delta::Many(more), held) => held.add(more),
            (Delta::One(value), Self::Int(held)) => *held += value as u64,
            (Delta::One(value), Self::Float(held)) => *held += value,
            (Delta::One(value), Self::Histogram(held)) => {
                held.count += 1;
                held.sum += value;
                if let Some(bucket) = held.buckets.get_mut(bounds.partition_point(|bound| *bound < value)) {
                    *bucket += 1;
                }
            }
        }
    }

    /// Adds what was recorded since. Values of one family have one shape.
    pub(in crate::telemetry) fn add(&mut self, delta: &Self) {
        match (self, delta) {
            (Self::Int(held), Self::Int(more)) => *held += more,
            (Self::Float(held), Self::Float(more)) => *held += more,
            (Self::Histogram(held), Self::Histogram(more)) => {
                held.count += more.count;
                held.sum += more.sum;
                held.buckets.iter_mut().zip(&more.buckets).for_each(|(held, more)| *held += more);
            }
            (held, more) => *held = more.clone(),
        }
    }
}

/// What is added to a value.
#[derive(Debug, Clone, Copy)]
pub(in crate::telemetry) enum Delta<'a> {
    /// What was recorded since the last look.
    Many(&'a Value),
    /// One measurement.
    One(f64),
}

/// The last value of a gauge.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::telemetry) enum Number {
    /// A whole number.
    Int(i64),
    /// Any number.
    Float(f64),
}

/// One real measurement, with the trace it was made in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::telemetry) struct Exemplar {
    /// What was measured; for a counter what was added.
    pub(in crate::telemetry) value: f64,
    /// The trace.
    pub(in crate::telemetry) trace: [u8; 16],
    /// When it was collected, in nanoseconds since 1970.
    pub(in crate::telemetry) at: u64,
}

/// A duration as nanoseconds.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
