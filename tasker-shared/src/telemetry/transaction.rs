//! Database transactions and what they did to queues, as spans below the stations'.
//!
//! A batch of many tasks shares one transaction. Its spans are written once, in the trace of the first task that is
//! kept; the stations of the other tasks link to it.

use super::{Span, Spans, Trace, context::child_id};
use crate::storage::{Moved, Transaction};
use opentelemetry::trace::{SpanId, SpanKind};

/// The span of the transaction below a station's span.
pub fn transaction_id(station: SpanId) -> SpanId {
    child_id(station, 0)
}

impl Spans<'_> {
    /// Writes the transaction that `station` made, and its queue operations.
    pub fn transaction(&mut self, trace: Trace, station: SpanId, transaction: &Transaction) {
        let parent = transaction_id(station);
        let whole = Span {
            name: "transaction",
            span_id: parent,
            parent: Some(station),
            start: transaction.began,
            end: transaction.ended,
            kind: SpanKind::Client,
        };
        self.record(trace, whole, |about| {
            about
                .text("db.system.name", "postgresql")
                .text("db.operation.name", transaction.name)
                .number("tasker.statements", i64::from(transaction.statements));
        });
        for (number, passage) in (1..).zip(&transaction.passages) {
            let (name, kind) = match passage.moved {
                Moved::Sent => ("send", SpanKind::Producer),
                Moved::Received => ("receive", SpanKind::Client),
                Moved::Settled => ("settle", SpanKind::Client),
            };
            let (start, end) = (passage.began, passage.ended);
            let operation = Span { name, span_id: child_id(station, number), parent: Some(parent), start, end, kind };
            self.record(trace, operation, |about| {
                about
                    .text("messaging.system", "pgmq")
                    .text("messaging.operation.type", name)
                    .text("messaging.operation.name", name)
                    .text("messaging.destination.name", passage.queue.as_str())
                    .number("messaging.batch.message_count", i64::try_from(passage.messages).unwrap_or(i64::MAX));
            });
        }
    }
}
