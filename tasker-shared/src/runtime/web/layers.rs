//! What every request passes: measurement, the caller's trace, panics, time and size limits.

use super::{problem, trace};
use crate::{
    api::Problem,
    metrics::{
        Label, Metrics,
        labels::{ActiveRequests, HttpRequest},
    },
};
use axum::{
    Router,
    extract::{DefaultBodyLimit, MatchedPath, Request, State},
    http::{Method, StatusCode},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use std::time::{Duration, Instant};
use tower_http::catch_panic::CatchPanicLayer;
use tracing::{Instrument, Span, field::Empty};
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The services speak plain HTTP; TLS ends before them.
const SCHEME: &str = "http";

/// The kind of the problem that [`deadline`] answers.
pub const TIMEOUT: &str = "timeout";

/// The route of what matches none.
const NO_ROUTE: &str = "unmatched";

/// Puts the common layers around the routes of a service: bodies of at most `max_body_bytes`, problems for unknown
/// routes, wrong methods and panics, one span and one measurement per request.
pub fn common(router: Router, metrics: &Metrics, max_body_bytes: usize) -> Router {
    router
        .fallback(problem::no_route)
        .method_not_allowed_fallback(problem::wrong_method)
        .layer(DefaultBodyLimit::max(max_body_bytes))
        .layer(CatchPanicLayer::custom(problem::panicked))
        .layer(middleware::from_fn_with_state(metrics.clone(), observe))
}

/// Answers for a handler that takes longer than `limit`; what it was doing is dropped.
pub async fn deadline(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => too_slow(limit).into_response(),
    }
}

fn too_slow(limit: Duration) -> Problem {
    Problem {
        detail: Some("whether it took effect is not known; look before you repeat it".to_owned()),
        ..problem::problem(StatusCode::GATEWAY_TIMEOUT, TIMEOUT, format!("no answer within {limit:?}"))
    }
}

async fn observe(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = method(request.method());
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let span = span(&request, method, route.as_deref());
    let _active = metrics.http_server_active_requests.hold(ActiveRequests { method, scheme: SCHEME });
    let response = next.run(request).instrument(span.clone()).await;
    let status = response.status();
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
        span.record("error.type", status.as_str());
    }
    let route = route.map_or(Label::from(NO_ROUTE), Label::from);
    let labels = HttpRequest { method, status: status.as_u16(), route, scheme: SCHEME };
    metrics.http_server_request_duration.record_since(started, labels);
    response
}

/// The span of a request to the API; probes, scrapes and pages have none.
fn span(request: &Request, method: &str, route: Option<&str>) -> Span {
    let Some(route) = route.filter(|route| route.starts_with("/v1/")) else { return Span::none() };
    let span = tracing::info_span!(
        "http",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method,
        http.route = route,
        http.response.status_code = Empty,
        url.path = request.uri().path(),
        error.type = Empty,
    );
    if let Some(context) = trace::context(request.headers()) {
        // Fails only where no traces are made.
        let _ = span.set_parent(context);
    }
    span
}

/// The method as a label: a closed set of words, whatever clients send.
fn method(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        "TRACE" => "TRACE",
        "CONNECT" => "CONNECT",
        _ => "_OTHER",
    }
}

#[cfg(test)]
mod tests {
    use super::{common, deadline};
    use crate::{api::Problem, metrics::Metrics, runtime::web::PROBLEM_JSON};
    use axum::{
        Router,
        body::{Body, Bytes},
        http::Request,
        middleware,
        response::Response,
        routing::{get, post},
    };
    use std::time::Duration;
    use tower::ServiceExt;

    async fn panics() {
        panic!("the secret of the house")
    }

    fn router() -> Router {
        let patience = middleware::from_fn_with_state(Duration::from_millis(1), deadline);
        let router = Router::new()
            .route("/v1/echo", post(|body: Bytes| async { body }))
            .route("/v1/panic", get(panics))
            .route("/v1/hang", get(std::future::pending::<()>).layer(patience));
        common(router, &Metrics::disabled(), 10)
    }

    async fn ask(method: &str, path: &str, body: &'static str) -> Response {
        let request = Request::builder().method(method).uri(path).body(Body::from(body)).unwrap();
        router().oneshot(request).await.unwrap()
    }

    async fn asked(method: &str, path: &str) -> Problem {
        let response = ask(method, path, "").await;
        assert_eq!(response.headers()["content-type"], PROBLEM_JSON);
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
        let problem: Problem = serde_json::from_slice(&body).unwrap();
        assert_eq!(problem.status, status);
        problem
    }

    #[tokio::test]
    async fn an_unknown_route_is_a_problem() {
        let problem = asked("GET", "/v2/tasks").await;
        assert_eq!((problem.status, problem.kind.as_str()), (404, "route_not_found"));
        assert!(problem.title.contains("/v2/tasks"));
    }

    #[tokio::test]
    async fn a_wrong_method_is_a_problem_and_the_right_one_is_named() {
        let problem = asked("DELETE", "/v1/echo").await;
        assert_eq!((problem.status, problem.kind.as_str()), (405, "method_not_allowed"));
        assert_eq!(ask("DELETE", "/v1/echo", "").await.headers()["allow"], "POST");
    }

    #[tokio::test]
    async fn a_panic_is_a_problem_that_tells_nothing_but_where_to_look() {
        let problem = asked("GET", "/v1/panic").await;
        assert_eq!((problem.status, problem.kind.as_str()), (500, "internal"));
        assert!(!serde_json::to_string(&problem).unwrap().contains("secret"));
        let id = problem.instance.unwrap().strip_prefix("urn:uuid:").unwrap().to_owned();
        assert!(problem.detail.unwrap().contains(&id));
    }

    #[tokio::test]
    async fn a_handler_that_hangs_is_a_problem() {
        let problem = asked("GET", "/v1/hang").await;
        assert_eq!((problem.status, problem.kind.as_str()), (504, "timeout"));
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused() {
        assert_eq!(ask("POST", "/v1/echo", "0123456789").await.status(), 200);
        assert_eq!(ask("POST", "/v1/echo", "0123456789a").await.status(), 413);
    }
}
