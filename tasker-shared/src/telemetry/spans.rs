//! Spans of the stations, written as bytes of OTLP when their work has ended.
//!
//! A step has half a dozen spans, so they are the bulk of all telemetry: each is written once, into one buffer for the
//! whole batch, without an object in between. The fields are those of `opentelemetry.proto.trace.v1.Span`.

use super::{
    context::trace_id,
    outbox::Outbox,
    sampler::Sampler,
    tail::Tail,
    trace::{Trace, nanos},
};
use crate::{id::CorrelationId, metrics::spec::METER};
use opentelemetry::trace::{SpanId, SpanKind};
use opentelemetry_proto::tonic::trace::v1::{Span as WrittenSpan, span::SpanKind as WrittenKind};
use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint},
};
use std::{sync::Arc, time::SystemTime};
use uuid::{Uuid, fmt::Hyphenated};

/// The longest text of an error; what a handler says can be of any length.
const MAX_ERROR_BYTES: usize = 4096;
/// The trace is kept; the context came from another process, or may have.
const FLAGS: u32 = 0x0000_0101;
/// A span with its attributes is seldom longer.
const TYPICAL: usize = 512;
/// What is sent on at once, however large the batch is.
const CHUNK: usize = 256 * 1024;

/// A finished piece of work.
#[derive(Debug, Clone)]
pub struct Span {
    /// The station, or the operation below it.
    pub name: &'static str,
    /// From [`span_id`](super::context::span_id).
    pub span_id: SpanId,
    /// The span that caused it; `None` for the first of the trace.
    pub parent: Option<SpanId>,
    /// When it began.
    pub start: SystemTime,
    /// When it ended.
    pub end: SystemTime,
    /// Its role towards other spans.
    pub kind: SpanKind,
}

/// What an attribute says.
#[derive(Debug, Clone, Copy)]
pub enum Attribute<'a> {
    /// A text.
    Text(&'a str),
    /// An id, written with dashes.
    Id(Uuid),
    /// A whole number.
    Number(i64),
}

/// Takes what a span tells beyond its [head](Span).
#[derive(Debug)]
pub struct About<'a> {
    bytes: &'a mut Vec<u8>,
    end: u64,
    failed: bool,
}

impl About<'_> {
    /// Adds an attribute.
    pub fn attribute(&mut self, key: &str, value: Attribute<'_>) -> &mut Self {
        attribute(self.bytes, 9, key, value);
        self
    }

    /// Adds a text.
    pub fn text(&mut self, key: &str, text: &str) -> &mut Self {
        self.attribute(key, Attribute::Text(text))
    }

    /// Adds an id.
    pub fn id(&mut self, key: &str, id: Uuid) -> &mut Self {
        self.attribute(key, Attribute::Id(id))
    }

    /// Adds a whole number.
    pub fn number(&mut self, key: &str, number: i64) -> &mut Self {
        self.attribute(key, Attribute::Number(number))
    }

    /// Adds a link to another span, such as one of the parents of a join.
    pub fn link(&mut self, trace: CorrelationId, span: SpanId) -> &mut Self {
        let length = 18 + 10 + 5;
        open(self.bytes, 13, length);
        data(self.bytes, 1, trace.0.as_bytes());
        data(self.bytes, 2, &span.to_bytes());
        fixed32(self.bytes, 6, FLAGS);
        self
    }

    /// Marks the span as failed, and says why: as its status and as an `exception` event.
    pub fn error(&mut self, message: &str) -> &mut Self {
        self.failed = true;
        let message = start_of(message, MAX_ERROR_BYTES);
        let exception = ("exception.message", Attribute::Text(message));
        open(self.bytes, 11, 9 + field_len("exception".len()) + field_len(attribute_len(exception.0, exception.1)));
        fixed64(self.bytes, 1, self.end);
        data(self.bytes, 2, b"exception");
        attribute(self.bytes, 3, exception.0, exception.1);
        open(self.bytes, 15, field_len(message.len()) + 2);
        data(self.bytes, 2, message.as_bytes());
        encode_key(3, WireType::Varint, self.bytes);
        encode_varint(2, self.bytes);
        self
    }
}

/// Spans of one scope, as the bytes of a field `scope_spans` of `ResourceSpans`.
pub(super) type Chunk = Vec<u8>;

/// Which traces are kept, where their spans wait, and where those wait that may be kept late.
type To<'a> = (Sampler, &'a Arc<Outbox<Chunk>>, Option<&'a Arc<Tail>>);

/// Spans of one batch of work; sent on when it is dropped.
#[derive(Debug)]
pub struct Spans<'a> {
    to: Option<To<'a>>,
    written: Vec<u8>,
    scratch: Vec<u8>,
}

impl<'a> Spans<'a> {
    pub(super) const fn new(to: Option<To<'a>>) -> Self {
        Self { to, written: Vec::new(), scratch: Vec::new() }
    }

    /// Writes a span if its trace is kept or may be late; `about` is not called otherwise.
    pub fn record(&mut self, trace: impl Into<Trace>, span: Span, about: impl FnOnce(&mut About<'_>)) {
        let trace = trace.into();
        let Some((sampler, _, tail)) = self.to else { return };
        let id = trace_id(trace.correlation_id);
        let kept = sampler.keeps(id, trace.caller_sampled);
        if !kept && tail.is_none() {
            return;
        }
        self.scratch.clear();
        self.scratch.reserve(TYPICAL);
        let failed = write(&mut self.scratch, trace.correlation_id, &span, about);
        if let Some(tail) = tail.filter(|_| !kept) {
            let mut written = Vec::with_capacity(self.scratch.len() + 4);
            data(&mut written, 2, &self.scratch);
            return tail.put(id, chunk(METER, &written), failed);
        }
        open(&mut self.written, 2, self.scratch.len());
        self.written.extend_from_slice(&self.scratch);
        if self.written.len() >= CHUNK {
            self.send();
        }
    }

    fn send(&mut self) {
        if let Some((_, outbox, _)) = self.to
            && !self.written.is_empty()
        {
            let chunk = chunk(METER, &self.written);
            self.written.clear();
            let weight = chunk.len();
            outbox.put(chunk, weight);
        }
    }
}

impl Drop for Spans<'_> {
    fn drop(&mut self) {
        self.send();
    }
}

/// Spans that handler authors and libraries made with the SDK.
pub(super) fn chunk_of(scope: &str, span: WrittenSpan) -> Chunk {
    let mut written = Vec::with_capacity(TYPICAL);
    let span = span.encode_to_vec();
    data(&mut written, 2, &span);
    chunk(scope, &written)
}

/// Chunks as an `ExportTraceServiceRequest`; `resource` is the encoded `Resource`.
pub(super) fn request(resource: &[u8], chunks: &[Chunk]) -> Vec<u8> {
    let spans: usize = chunks.iter().map(Vec::len).sum();
    let length = field_len(resource.len()) + spans;
    let mut request = Vec::with_capacity(length + 16);
    open(&mut request, 1, length);
    data(&mut request, 1, resource);
    chunks.iter().for_each(|chunk| request.extend_from_slice(chunk));
    request
}

fn chunk(scope: &str, spans: &[u8]) -> Chunk {
    let scope_length = field_len(scope.len());
    let length = field_len(scope_length) + spans.len();
    let mut chunk = Vec::with_capacity(length + 8);
    open(&mut chunk, 2, length);
    open(&mut chunk, 1, scope_length);
    data(&mut chunk, 1, scope.as_bytes());
    chunk.extend_from_slice(spans);
    chunk
}

/// Writes a span; answers with whether it failed.
fn write(bytes: &mut Vec<u8>, trace: CorrelationId, span: &Span, about: impl FnOnce(&mut About<'_>)) -> bool {
    let start = nanos(span.start);
    let end = nanos(span.end).max(start);
    data(bytes, 1, trace.0.as_bytes());
    data(bytes, 2, &span.span_id.to_bytes());
    if let Some(parent) = span.parent {
        data(bytes, 4, &parent.to_bytes());
    }
    data(bytes, 5, span.name.as_bytes());
    encode_key(6, WireType::Varint, bytes);
    encode_varint(WrittenKind::from(span.kind.clone()) as u64, bytes);
    fixed64(bytes, 7, start);
    fixed64(bytes, 8, end);
    fixed32(bytes, 16, FLAGS);
    let mut more = About { bytes, end, failed: false };
    about(&mut more);
    more.failed
}

fn attribute(bytes: &mut Vec<u8>, tag: u32, key: &str, value: Attribute<'_>) {
    open(bytes, tag, attribute_len(key, value));
    data(bytes, 1, key.as_bytes());
    open(bytes, 2, value_len(value));
    match value {
        Attribute::Text(text) => data(bytes, 1, text.as_bytes()),
        Attribute::Id(id) => data(bytes, 1, id.hyphenated().encode_lower(&mut [0; Hyphenated::LENGTH]).as_bytes()),
        Attribute::Number(number) => {
            encode_key(3, WireType::Varint, bytes);
            encode_varint(number.cast_unsigned(), bytes);
        }
    }
}

fn attribute_len(key: &str, value: Attribute<'_>) -> usize {
    field_len(key.len()) + field_len(value_len(value))
}

fn value_len(value: Attribute<'_>) -> usize {
    match value {
        Attribute::Text(text) => field_len(text.len()),
        Attribute::Id(_) => field_len(Hyphenated::LENGTH),
        Attribute::Number(number) => 1 + encoded_len_varint(number.cast_unsigned()),
    }
}

/// A field below 16 with so many bytes in it: its key, their number, and they.
fn field_len(length: usize) -> usize {
    1 + encoded_len_varint(length as u64) + length
}

fn open(bytes: &mut Vec<u8>, tag: u32, length: usize) {
    encode_key(tag, WireType::LengthDelimited, bytes);
    encode_varint(length as u64, bytes);
}

fn data(bytes: &mut Vec<u8>, tag: u32, value: &[u8]) {
    open(bytes, tag, value.len());
    bytes.extend_from_slice(value);
}

fn fixed64(bytes: &mut Vec<u8>, tag: u32, value: u64) {
    encode_key(tag, WireType::SixtyFourBit, bytes);
    bytes.extend_from_slice(&value.to_le_bytes());
}

fn fixed32(bytes: &mut Vec<u8>, tag: u32, value: u32) {
    encode_key(tag, WireType::ThirtyTwoBit, bytes);
    bytes.extend_from_slice(&value.to_le_bytes());
}

/// The start of a text, at most so many bytes, ending between two characters.
fn start_of(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            context::{Station, span_id},
            outbox::Outbox,
            sampler::Sampler,
        },
        MAX_ERROR_BYTES, Span, Spans, request,
    };
    use crate::id::{CorrelationId, StepId};
    use opentelemetry::trace::SpanKind;
    use opentelemetry_proto::tonic::{
        collector::trace::v1::ExportTraceServiceRequest,
        common::v1::any_value::Value,
        resource::v1::Resource,
        trace::v1::{Span as WrittenSpan, span::SpanKind as WrittenKind, status::StatusCode},
    };
    use prost::Message as _;
    use std::time::{Duration, UNIX_EPOCH};

    fn execute(step: StepId) -> Span {
        Span {
            name: Station::Execute.as_str(),
            span_id: span_id(step.0, 1, Station::Execute),
            parent: Some(span_id(step.0, 1, Station::Claim)),
            start: UNIX_EPOCH + Duration::from_secs(10),
            end: UNIX_EPOCH + Duration::from_secs(12),
            kind: SpanKind::Consumer,
        }
    }

    fn read(write: impl FnOnce(&mut Spans<'_>)) -> Vec<WrittenSpan> {
        let outbox = Outbox::new(1 << 20, 1 << 20);
        let mut spans = Spans::new(Some((Sampler::new(1.0, true), &outbox, None)));
        write(&mut spans);
        drop(spans);
        let resource = Resource::default().encode_to_vec();
        let request = ExportTraceServiceRequest::decode(&*request(&resource, &outbox.take(1 << 20))).unwrap();
        request.resource_spans.into_iter().flat_map(|of| of.scope_spans).flat_map(|of| of.spans).collect()
    }

    #[test]
    fn a_span_is_read_as_it_was_meant() {
        let (trace, step, parent) = (CorrelationId::generate(), StepId::generate(), StepId::generate());
        let joined = span_id(parent.0, 1, Station::Process);
        let spans = read(|spans| {
            spans.record(trace, execute(step), |about| {
                about.id("step.id", step.0).text("step.name", "zahle ✓").number("tasker.attempt", -3);
                about.link(trace, joined).error("no such account");
            });
            spans.record(trace, execute(parent), |_| {});
        });
        let [span, other] = spans.as_slice() else { panic!("{spans:?}") };
        assert_eq!(span.trace_id, trace.0.as_bytes());
        assert_eq!(span.span_id, execute(step).span_id.to_bytes());
        assert_eq!(span.parent_span_id, execute(step).parent.unwrap().to_bytes());
        assert_eq!((span.name.as_str(), span.kind()), ("execute", WrittenKind::Consumer));
        assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (10_000_000_000, 12_000_000_000));
        let told: Vec<_> = span.attributes.iter().map(|a| (a.key.as_str(), a.value.clone().unwrap().value)).collect();
        assert_eq!(
            told,
            [
                ("step.id", Some(Value::StringValue(step.to_string()))),
                ("step.name", Some(Value::StringValue("zahle ✓".to_owned()))),
                ("tasker.attempt", Some(Value::IntValue(-3))),
            ]
        );
        assert_eq!(span.links[0].span_id, joined.to_bytes());
        let status = span.status.clone().unwrap();
        assert_eq!((status.code(), status.message.as_str()), (StatusCode::Error, "no such account"));
        assert_eq!((span.events[0].name.as_str(), span.events[0].time_unix_nano), ("exception", 12_000_000_000));
        assert_eq!(other.span_id, execute(parent).span_id.to_bytes());
        assert!(other.attributes.is_empty() && other.status.is_none());
    }

    #[test]
    fn a_long_error_is_cut_between_two_characters() {
        let message = "ü".repeat(MAX_ERROR_BYTES);
        let spans = read(|spans| {
            spans.record(CorrelationId::generate(), execute(StepId::generate()), |about| {
                about.error(&message);
            });
        });
        let said = &spans[0].status.as_ref().unwrap().message;
        assert_eq!(said.len(), MAX_ERROR_BYTES);
        assert!(message.starts_with(said));
    }

    #[test]
    fn a_trace_that_is_not_kept_writes_nothing() {
        let outbox = Outbox::new(1 << 20, 1 << 20);
        let mut spans = Spans::new(Some((Sampler::new(0.0, true), &outbox, None)));
        spans.record(CorrelationId::generate(), execute(StepId::generate()), |_| panic!("the trace is not kept"));
        drop(spans);
        assert!(outbox.take(1 << 20).is_empty());
    }
}
