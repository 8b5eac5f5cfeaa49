//! Database transactions and what they did to queues, as spans below the stations'.
//!
//! A batch of many tasks shares one transaction. Its spans are written once, in the trace of the first task that is
//! kept; the stations of the other tasks link to it.

use super::{Span, Trace, Tracing, context::child_id};
use crate::{
    metrics::values::LabelValue as _,
    storage::{Moved, Transaction},
};
use opentelemetry::{
    KeyValue,
    trace::{SpanId, SpanKind},
};

/// The span of the transaction below a station's span.
pub fn transaction_id(station: SpanId) -> SpanId {
    child_id(station, 0)
}

impl Tracing {
    /// Writes the transaction that `station` made, and its queue operations.
    pub fn transaction(&self, trace: Trace, station: SpanId, transaction: &Transaction) {
        let parent = transaction_id(station);
        self.record(trace, || Span {
            name: "transaction",
            span_id: parent,
            parent: Some(station),
            links: Vec::new(),
            start: transaction.began,
            end: transaction.ended,
            kind: SpanKind::Client,
            error: None,
            attributes: vec![
                KeyValue::new("db.system.name", "postgresql"),
                KeyValue::new("db.operation.name", transaction.name),
                KeyValue::new("tasker.statements", i64::from(transaction.statements)),
            ],
        });
        for (number, passage) in (1..).zip(&transaction.passages) {
            let (name, kind, operation) = match passage.moved {
                Moved::Sent => ("send", SpanKind::Producer, "send"),
                Moved::Received => ("receive", SpanKind::Client, "receive"),
                Moved::Settled => ("settle", SpanKind::Client, "settle"),
            };
            self.record(trace, || Span {
                name,
                span_id: child_id(station, number),
                parent: Some(parent),
                links: Vec::new(),
                start: passage.began,
                end: passage.ended,
                kind,
                error: None,
                attributes: vec![
                    KeyValue::new("messaging.system", "pgmq"),
                    KeyValue::new("messaging.operation.type", operation),
                    KeyValue::new("messaging.operation.name", operation),
                    KeyValue::new("messaging.destination.name", passage.queue.value()),
                    KeyValue::new("messaging.batch.message_count", i64::try_from(passage.messages).unwrap_or(i64::MAX)),
                ],
            });
        }
    }
}
