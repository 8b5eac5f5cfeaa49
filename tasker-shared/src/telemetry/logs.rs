//! What becomes of log lines and live spans: standard error as text or JSON, and the collector.

use super::{
    otlp::Record,
    outbox::Outbox,
    scope::{Run, Scope},
    settings::{Format, Logs},
    spans::{Chunk, chunk_of},
    tail::Tail,
};
use opentelemetry::{
    Context, InstrumentationScope,
    logs::LogRecord as _,
    trace::{SpanContext, Status, TraceContextExt, TraceFlags, TracerProvider as _},
};
use opentelemetry_appender_tracing::layer::{OpenTelemetryTracingBridge, TracingSpanAttributes};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    logs::{LogProcessor, SdkLogRecord, SdkLoggerProvider},
    trace::{SdkTracerProvider, Span, SpanData, SpanProcessor},
};
use serde_json::{Map, Value};
use std::{fmt, io::IsTerminal as _, sync::Arc, time::Duration};
use tracing::{Event, Metadata, Subscriber, field::Field};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterExt as _, filter_fn},
    fmt::{
        FmtContext, FormatEvent, FormatFields, FormattedFields,
        format::{Format as Line, JsonFields, Writer},
        time::{FormatTime, SystemTime},
    },
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

/// Spans of libraries below the services: not told, because the exporter uses them itself.
const QUIET: &str = "info,opentelemetry=off,h2=off,hyper=off,hyper_util=off,tonic=off,tower=off,reqwest=off,rustls=off";

/// The exporter warns at every export that fails; an outage is told once, by [`Watch`](super::outage::Watch).
const EXPORTER_QUIET: &str = "opentelemetry-otlp=error";

/// Sends log lines and live spans where they belong, from now on, for the whole process.
///
/// # Errors
/// The filter is not understood, or logs already go elsewhere.
pub(super) fn install(
    settings: &Logs,
    tracer: Option<&SdkTracerProvider>,
    logger: Option<&SdkLoggerProvider>,
) -> Result<(), super::Error> {
    let directives = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let directives = directives.unwrap_or_else(|| settings.level.clone());
    let all = if directives.contains("opentelemetry") { directives } else { format!("{EXPORTER_QUIET},{directives}") };
    let filter =
        EnvFilter::try_new(&all).map_err(|source| super::Error::Filter { filter: all, reason: source.to_string() })?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colours());
    let lines = match settings.format {
        Format::Text => lines.event_format(Text(Line::default().with_ansi(colours()))).boxed(),
        Format::Json => lines.fmt_fields(JsonFields::new()).event_format(Json).boxed(),
    };
    let spans = tracer.map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("tasker"))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(EnvFilter::new(QUIET))
    });
    let records = logger.map(|provider| {
        OpenTelemetryTracingBridge::builder(provider)
            .with_tracing_span_attributes(TracingSpanAttributes::all())
            .build()
            .with_filter(EnvFilter::new(QUIET).and(filter_fn(is_open)))
    });
    tracing_subscriber::registry()
        .with(spans)
        .with(records)
        .with(lines.with_filter(filter.and(filter_fn(is_open))))
        .try_init()
        .map_err(|error| super::Error::LogsTaken(error.to_string()))
}

/// What libraries tell of passwords, headers and addresses with secrets in them, by the target and the field.
const SECRETS: [(&str, &[&str]); 2] =
    [("sqlx_postgres::options", &["value", "line"]), ("opentelemetry", &["headers", "url", "endpoint"])];

/// Whether an event can be logged whatever is in its fields.
fn is_open(metadata: &Metadata<'_>) -> bool {
    let has = |fields: &[&str]| fields.iter().any(|name| metadata.fields().field(name).is_some());
    !SECRETS.iter().any(|(target, fields)| metadata.target().starts_with(target) && has(fields))
}

/// Colours are for people: not in files and pipes, and not where `NO_COLOR` says so.
fn colours() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty())
}

/// A line for people, with the ids of the step that runs and of its trace.
struct Text(Line);

impl<S, N> FormatEvent<S, N> for Text
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let (run, span) = (Scope::with_current(Run::ids), span_ids());
        if run.is_none() && span.is_none() {
            return self.0.format_event(ctx, out, event);
        }
        let mut line = String::new();
        self.0.format_event(ctx, Writer::new(&mut line), event)?;
        write!(out, "{}", line.trim_end())?;
        for (name, id) in run.into_iter().flatten().chain(span.into_iter().flatten()) {
            write!(out, " {name}={id}")?;
        }
        writeln!(out)
    }
}

/// A line of JSON: the event's fields, those of the spans around it, and the ids of the trace.
struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = Map::new();
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        for span in ctx.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>()
                && let Ok(fields) = serde_json::from_str::<Map<String, Value>>(&fields.fields)
            {
                line.extend(fields);
            }
        }
        Scope::with_current(|run| {
            line.extend(run.ids().map(|(name, id)| (name.to_owned(), id.into())));
        });
        line.insert("timestamp".to_owned(), time.into());
        line.insert("level".to_owned(), event.metadata().level().as_str().into());
        line.insert("target".to_owned(), event.metadata().target().into());
        event.record(&mut Fields { line: &mut line, said: false });
        ids(&mut line);
        writeln!(out, "{}", Value::Object(line))
    }
}

/// The trace is named by the span that runs, or by the correlation id.
fn ids(line: &mut Map<String, Value>) {
    if let Some(span) = span_ids() {
        line.extend(span.map(|(name, id)| (name.to_owned(), id.into())));
    } else if let Some(Value::String(correlation)) = line.get("correlation_id") {
        line.insert("trace_id".to_owned(), correlation.replace('-', "").into());
    }
}

/// The span that runs, if one does.
fn span_ids() -> Option<[(&'static str, String); 2]> {
    let context = Context::current();
    let span = context.span().span_context().clone();
    let ids = || [("trace_id", span.trace_id().to_string()), ("span_id", span.span_id().to_string())];
    span.is_valid().then(ids)
}

struct Fields<'a> {
    line: &'a mut Map<String, Value>,
    /// Whether the event's text stands in the line, which comes before its fields.
    said: bool,
}

impl Fields<'_> {
    /// A field that is named like a part of the line itself stands beside it.
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        let name = match field.name() {
            name @ ("timestamp" | "level" | "target") => format!("field.{name}"),
            "message" if self.said => "field.message".to_owned(),
            name => name.to_owned(),
        };
        self.said |= name == "message";
        self.line.insert(name, value.into());
    }
}

impl tracing::field::Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }
}

/// Puts live spans that have ended beside the spans of the stations.
#[derive(Debug)]
pub(super) struct Spans(pub(super) Arc<Outbox<Chunk>>, pub(super) Option<Arc<Tail>>);

impl SpanProcessor for Spans {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, mut span: SpanData) {
        let scope = span.instrumentation_scope.name().to_owned();
        if span.span_context.is_sampled() {
            let chunk = chunk_of(&scope, span.into());
            let weight = chunk.len();
            self.0.put(chunk, weight);
        } else if let Some(tail) = &self.1 {
            let (trace, failed) = (span.span_context.trace_id(), matches!(span.status, Status::Error { .. }));
            span.span_context = sampled(&span.span_context);
            tail.put(trace, chunk_of(&scope, span.into()), failed);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

fn sampled(context: &SpanContext) -> SpanContext {
    let flags = context.trace_flags() | TraceFlags::SAMPLED;
    SpanContext::new(context.trace_id(), context.span_id(), flags, context.is_remote(), context.trace_state().clone())
}

/// Puts log records into the outbox.
#[derive(Debug)]
pub(super) struct Records(pub(super) Arc<Outbox<Record>>);

impl LogProcessor for Records {
    fn emit(&self, record: &mut SdkLogRecord, scope: &InstrumentationScope) {
        Scope::with_current(|run| {
            for (name, id) in run.ids() {
                record.add_attribute(name, id);
            }
        });
        self.0.put((record.clone(), scope.clone()), 1);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Json, Text};
    use crate::{
        id::{CorrelationId, StepId, TaskId},
        name::Name,
        telemetry::{Station, Tracing, span_id, tests::Lines},
    };
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing::Dispatch;
    use tracing_subscriber::{
        Layer,
        fmt::format::{Format as Line, JsonFields},
        layer::SubscriberExt,
    };

    /// What is written of a line in a step's run, of one in a span below, and of one outside.
    fn written(correlation: CorrelationId, step: StepId, json: bool) -> [String; 3] {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || writer.clone());
        let layer = if json {
            layer.fmt_fields(JsonFields::new()).event_format(Json).boxed()
        } else {
            layer.event_format(Text(Line::default().with_ansi(false))).boxed()
        };
        let spans = tracing_opentelemetry::layer().with_tracer(SdkTracerProvider::default().tracer("test"));
        let subscriber = Dispatch::new(tracing_subscriber::registry().with(spans).with(layer));
        let execute = span_id(step.0, 1, Station::Execute);
        let scope =
            Tracing::disabled().scope(correlation, execute, TaskId::generate(), step, Name::new("pay").unwrap());
        tracing::dispatcher::with_default(&subscriber, || {
            scope.call(|| {
                tracing::info!("in the run");
                tracing::info_span!("charge").in_scope(|| tracing::info!("below"));
            });
            tracing::info!("outside");
        });
        ["in the run", "below", "outside"].map(|what| lines.with(what).join("\n"))
    }

    #[test]
    fn a_field_named_like_a_part_of_the_line_does_not_take_its_place() {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || writer.clone());
        let layer = layer.fmt_fields(JsonFields::new()).event_format(Json);
        tracing::dispatcher::with_default(&Dispatch::new(tracing_subscriber::registry().with(layer)), || {
            tracing::info_span!("around", level = 9)
                .in_scope(|| tracing::info!(message = 7, target = "task 3", "said"));
        });
        let line: serde_json::Value = serde_json::from_str(lines.with("said").first().expect("a line")).unwrap();
        assert_eq!((&line["message"], &line["level"]), (&"said".into(), &"INFO".into()), "{line}");
        assert_eq!(line["target"], module_path!(), "{line}");
        assert_eq!((&line["field.message"], &line["field.target"]), (&7.into(), &"task 3".into()), "{line}");
    }

    #[test]
    fn lines_of_text_and_of_json_carry_the_ids_of_the_task_the_trace_and_the_span() {
        let (correlation, step) = (CorrelationId::generate(), StepId::generate());
        let execute = span_id(step.0, 1, Station::Execute).to_string();
        for (json, equals, end) in [(false, "=", ""), (true, "\":\"", "\"")] {
            let [run, below, outside] = written(correlation, step, json);
            let has = |line: &str, name: &str, id: &str| line.contains(&format!("{name}{equals}{id}{end}"));
            for line in [&run, &below] {
                assert!(has(line, "correlation_id", &correlation.to_string()), "{line}");
                assert!(has(line, "trace_id", &correlation.0.simple().to_string()), "{line}");
            }
            assert!(has(&run, "span_id", &execute), "{run}");
            assert!(below.contains("span_id") && !below.contains(&execute), "its own span: {below}");
            assert!(!outside.is_empty() && !outside.contains("trace_id"), "{outside}");
        }
    }
}
