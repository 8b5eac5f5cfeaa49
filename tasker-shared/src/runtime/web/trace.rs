//! The W3C trace context of the caller.

use axum::http::HeaderMap;
use opentelemetry::{
    Context,
    propagation::{Extractor, TextMapPropagator},
    trace::{SpanContext, TraceContextExt},
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The context that work for this request continues, when the caller sent one: the span that is current here, which
/// is a child of the caller's, else the caller's own. A malformed header counts as none.
pub fn traceparent(headers: &HeaderMap) -> Option<String> {
    let caller = context(headers)?.span().span_context().clone();
    let here = tracing::Span::current().context().span().span_context().clone();
    Some(text(if here.is_valid() && here.trace_id() == caller.trace_id() { &here } else { &caller }))
}

/// The caller's context, when the header is well-formed and given once.
pub(super) fn context(headers: &HeaderMap) -> Option<Context> {
    if headers.get_all("traceparent").iter().count() != 1 {
        return None;
    }
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(headers));
    context.span().span_context().is_valid().then_some(context)
}

fn text(context: &SpanContext) -> String {
    format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags().to_u8())
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(axum::http::HeaderName::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::traceparent;
    use axum::http::{HeaderMap, HeaderValue};

    const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn sent(values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| ("traceparent".parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn the_context_of_the_caller_is_handed_on() {
        assert_eq!(traceparent(&sent(&[CALLER])).as_deref(), Some(CALLER));
    }

    #[test]
    fn a_malformed_context_counts_as_none() {
        for malformed in [
            "",
            "nonsense",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        ] {
            assert_eq!(traceparent(&sent(&[malformed])), None, "{malformed}");
        }
        assert_eq!(traceparent(&sent(&[CALLER, CALLER])), None, "twice");
        assert_eq!(traceparent(&HeaderMap::new()), None, "absent");
    }
}
