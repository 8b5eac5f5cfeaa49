//! Requests to the HTTP API of an orchestration whose database does not answer: everything up to the first statement.

use super::unconnected::{configured, database};
use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Method, Request, Response, header},
};
use std::{cell::RefCell, time::Duration};
use tasker_orchestration::{
    Orchestration, Settings, service,
    web::{self, openapi, router},
};
use tasker_shared::{
    api::Problem,
    metrics::Metrics,
    runtime::{
        Bell,
        access::Authenticator,
        web::{Exposition, HealthChecks, PROBLEM_JSON},
    },
    telemetry::Tracing,
};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

const MEDIA_TYPES: [&str; 5] =
    ["application/json", "application/yaml", "text/yaml; charset=utf-8", "application/problem+json", "text/plain"];

/// A request: a byte for the route, one for the media type, a line that fills the path's places and ends with the
/// query, and the body. The answer is one that the document knows, and a refusal is a problem.
pub fn http(data: &[u8]) {
    SERVICE.with_borrow_mut(|service| service.get_or_insert_with(Service::start).ask(data));
}

thread_local! {
    static SERVICE: RefCell<Option<Service>> = const { RefCell::new(None) };
}

struct Service {
    runtime: Runtime,
    router: Router,
    routes: Vec<Route>,
}

struct Route {
    method: Method,
    path: String,
    answers: Vec<u16>,
}

impl Service {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let entered = runtime.enter();
        let shutdown = CancellationToken::new();
        let health = HealthChecks::builder("orchestration", "0", shutdown.clone(), &Metrics::disabled()).build();
        let settings = web::Settings {
            max_body_bytes: 64 * 1024,
            request_timeout: Duration::from_secs(5),
            max_concurrent_requests: 100,
            max_waiting_requests: 100,
            body_timeout: Duration::from_secs(5),
            rate_limits: configured().orchestration.rate_limits,
            authenticator: Authenticator::off(),
            shutdown,
            health,
            exposition: Some(Exposition::new(String::new, String::new)),
        };
        let router = router(unconnected(), settings);
        drop(entered);
        Self { runtime, router, routes: routes() }
    }

    fn ask(&self, data: &[u8]) {
        let [route, media_type, rest @ ..] = data else { return };
        let route = &self.routes[usize::from(*route) % self.routes.len()];
        let mut parts = rest.splitn(2, |byte| *byte == b'\n');
        let (line, body) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let Some(uri) = route.uri(&String::from_utf8_lossy(line)) else { return };
        let media_type = MEDIA_TYPES[usize::from(*media_type) % MEDIA_TYPES.len()];
        let request =
            Request::builder().method(route.method.clone()).uri(&uri).header(header::CONTENT_TYPE, media_type);
        let Ok(request) = request.body(Body::from(body.to_vec())) else { return };
        let answer = self.runtime.block_on(self.router.clone().oneshot(request)).expect("it cannot fail");
        self.runtime.block_on(check(route, &uri, answer));
    }
}

async fn check(route: &Route, uri: &str, answer: Response<Body>) {
    let status = answer.status().as_u16();
    let asked = format!("{} {uri}: {status}", route.method);
    // an edge of a path that is filled with `/` or nothing leads to another route, or to none
    assert!(route.answers.contains(&status) || matches!(status, 404 | 405), "{asked} is not in the document");
    assert_ne!(status, 500, "{asked}");
    if answer.status().is_client_error() || status == 503 && uri.starts_with("/v1") {
        assert_eq!(answer.headers()[header::CONTENT_TYPE], PROBLEM_JSON, "{asked}");
        let body = to_bytes(answer.into_body(), 1 << 20).await.expect("a body");
        let problem: Problem = serde_json::from_slice(&body).expect("a problem");
        assert_eq!(problem.status, status, "{asked}");
    }
}

impl Route {
    /// The path with its places filled by the words of `line`, and its end as query.
    fn uri(&self, line: &str) -> Option<String> {
        let (words, query) = line.split_once('?').unwrap_or((line, ""));
        let mut words = words.split(' ');
        let mut uri = String::new();
        for segment in self.path.split('/').skip(1) {
            uri.push('/');
            if segment.starts_with('{') {
                uri.push_str(words.next().unwrap_or("0198a3c1-5f2e-7d4b-9a60-3b7f5e1c2d90"));
            } else {
                uri.push_str(segment);
            }
        }
        if !query.is_empty() {
            uri.push('?');
            uri.push_str(query);
        }
        uri.parse::<axum::http::Uri>().ok().map(|_| uri)
    }
}

fn routes() -> Vec<Route> {
    let document = serde_json::to_value(openapi()).expect("the document is JSON");
    let paths = document["paths"].as_object().expect("it has paths");
    let mut routes = Vec::new();
    for (path, methods) in paths {
        for (method, operation) in methods.as_object().into_iter().flatten() {
            let answers = operation["responses"].as_object().into_iter().flatten();
            routes.push(Route {
                method: method.to_uppercase().parse().expect("a method"),
                path: path.clone(),
                answers: answers.filter_map(|(status, _)| status.parse().ok()).collect(),
            });
        }
    }
    routes
}

fn unconnected() -> Orchestration {
    let settings = Settings { max_input_bytes: 16 * 1024, max_batch_submit: 10, ..service::settings(&configured()) };
    Orchestration::new(database(), Bell::local(), Tracing::disabled(), settings)
}
