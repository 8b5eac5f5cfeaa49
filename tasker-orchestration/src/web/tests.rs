//! The routes as a client sees them, as far as no database is needed.

use super::{ROUTES, Settings, openapi, router};
use crate::{Error, Orchestration, orchestration};
use axum::{
    Router,
    body::Body,
    extract::ConnectInfo,
    http::Request,
    response::{IntoResponse, Response},
};
use futures::{StreamExt as _, stream::FuturesUnordered};
use serde_json::Value;
use std::{collections::BTreeSet, net::SocketAddr, time::Duration};
use tasker_shared::{
    api::{CheckedTemplate, Problem},
    config::{Config, Sources},
    metrics::Metrics,
    runtime::{
        Bell,
        access::{Access, Authenticator, COMMON, Reach},
        web::{Exposition, HealthChecks, PROBLEM_JSON},
    },
    step::StepState,
    storage::{self, Database},
    task::{IdentityStrategy, TaskState},
    telemetry::Tracing,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

const TASK: &str = "/v1/tasks/0198a3c1-5f2e-7d4b-9a60-3b7f5e1c2d90";

/// The service with a database that nobody serves.
fn service() -> Router {
    service_with(|_| {})
}

fn service_with(change: impl FnOnce(&mut Settings)) -> Router {
    let shutdown = CancellationToken::new();
    let health = HealthChecks::builder("orchestration", "1.2.3", shutdown.clone(), &Metrics::disabled()).build();
    let mut settings = Settings {
        max_body_bytes: 1_000,
        request_timeout: Duration::from_secs(5),
        authenticator: Authenticator::off(),
        max_concurrent_requests: 100,
        max_waiting_requests: 100,
        body_timeout: Duration::from_secs(5),
        rate_limits: Config::load(&Sources::built_in("test")).unwrap().orchestration.rate_limits,
        shutdown,
        health,
        exposition: Some(Exposition::new(String::new, String::new)),
    };
    change(&mut settings);
    router(unconnected(), settings)
}

fn unconnected() -> Orchestration {
    let options = storage::Options {
        url: "postgres://nobody@127.0.0.1:1/nothing".into(),
        max_connections: 1,
        connect_timeout: Duration::from_millis(100),
        acquire_timeout: Duration::from_millis(100),
        statement_timeout: Duration::from_secs(1),
        application_name: "test".into(),
        own_names_only: true,
    };
    let database = Database::deferred(&options, Metrics::disabled()).unwrap();
    let settings = orchestration::Settings {
        grafana_url: None,
        environment: "test".into(),
        results_batch: 1,
        requests_batch: 1,
        process_loops: 1,
        poll_interval: Duration::from_secs(1),
        timer_poll_interval: Duration::from_secs(1),
        repair_interval: Duration::from_secs(1),
        stalled_after: Duration::from_secs(1),
        max_stalls: 1,
        handler_missing_after: Duration::from_secs(1),
        max_deliveries: 1,
        max_input_bytes: 1_000,
        max_batch_submit: 10,
        retention: tasker_shared::config::Retention::never(),
    };
    Orchestration::new(database, Bell::local(), Tracing::disabled(), settings)
}

async fn ask(method: &str, path: &str, body: &str) -> Response {
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    service().oneshot(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap()
}

async fn text(response: Response) -> String {
    String::from_utf8(axum::body::to_bytes(response.into_body(), 10_000_000).await.unwrap().into()).unwrap()
}

async fn problem(method: &str, path: &str, body: &str) -> Problem {
    let response = ask(method, path, body).await;
    assert_eq!(response.headers()["content-type"], PROBLEM_JSON, "{method} {path}");
    let status = response.status().as_u16();
    let problem: Problem = serde_json::from_str(&text(response).await).unwrap();
    assert_eq!(problem.status, status);
    problem
}

/// Pages that are in the router and not in the document.
const PAGES: [&str; 5] = ["/", "/openapi.json", "/docs", "/docs/", "/docs/{*rest}"];

#[test]
fn every_route_declares_once_what_it_needs_and_nothing_else_is_declared() {
    let declared: Vec<_> = ROUTES.iter().chain(COMMON).map(|r| (r.method.to_owned(), r.path.to_owned())).collect();
    let unique: BTreeSet<_> = declared.iter().cloned().collect();
    assert_eq!(unique.len(), declared.len(), "a route is declared twice");
    let mut routed = operations(&document());
    routed.extend(PAGES.iter().map(|page| ("GET".to_owned(), (*page).to_owned())));
    assert_eq!(unique, routed);
}

#[test]
fn only_probes_and_pages_without_data_are_open() {
    for route in ROUTES.iter().chain(COMMON) {
        let may_be_open = route.path.starts_with("/health") || PAGES.contains(&route.path);
        assert_eq!(
            matches!(route.access, Access::Open | Access::Partly(_)),
            may_be_open,
            "{} {}",
            route.method,
            route.path
        );
        let changes = route.method != "GET" && !route.path.starts_with("/v1/tasks/batch");
        let harmless = ["/v1/tasks", "/v1/templates/check"].contains(&route.path);
        assert_eq!(route.action.is_some(), changes && !harmless, "{} {}", route.method, route.path);
    }
}

#[test]
fn what_names_a_task_or_a_namespace_is_bounded_by_it() {
    for route in ROUTES {
        let Access::Needs(_, reach) = route.access else { continue };
        assert_eq!(reach == Reach::Task, route.path.contains("{task_id}"), "{} {}", route.method, route.path);
        assert_eq!(reach == Reach::Namespace, route.path.contains("{namespace}"), "{} {}", route.method, route.path);
    }
}

#[test]
fn the_document_tells_what_each_route_needs() {
    let document = document();
    assert_eq!(document["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
    let cancel = &document["paths"]["/v1/tasks/{task_id}/cancel"]["post"];
    assert_eq!(cancel["security"], serde_json::json!([{}, {"bearer": ["tasks:operate"]}]));
    assert!(cancel["responses"]["401"].is_object() && cancel["responses"]["403"].is_object());
    assert!(document["paths"]["/health"]["get"]["security"].is_null());
}

/// Every operation of the document as (method, path).
fn operations(document: &Value) -> BTreeSet<(String, String)> {
    let paths = document["paths"].as_object().unwrap().iter();
    let of = |(path, item): (&String, &Value)| {
        let methods = item.as_object().unwrap().keys();
        methods.map(|method| (method.to_uppercase(), path.clone())).collect::<Vec<_>>()
    };
    paths.flat_map(of).collect()
}

fn document() -> Value {
    serde_json::to_value(openapi()).unwrap()
}

#[tokio::test]
async fn every_documented_operation_is_routed_and_no_other_method_is() {
    let documented = operations(&document());
    for (_, path) in &documented {
        let concrete = path.replace("/v1/tasks/{task_id}", TASK).replace(['{', '}'], "");
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            let status = ask(method, &concrete, "not json").await.status().as_u16();
            if documented.contains(&(method.to_owned(), path.clone())) {
                assert!(status != 404 && status != 405, "{method} {path} is documented and answers {status}");
            } else {
                assert_eq!(status, 405, "{method} {path} is not documented");
            }
        }
    }
}

#[test]
fn the_document_has_the_words_that_are_sent() {
    let document = document();
    let words = |schema: &str| document["components"]["schemas"][schema]["enum"].clone();
    assert_eq!(words("TaskState"), serde_json::to_value(TaskState::ALL).unwrap());
    assert_eq!(words("StepState"), serde_json::to_value(StepState::ALL).unwrap());
    assert_eq!(words("IdentityStrategy"), serde_json::to_value(IdentityStrategy::ALL).unwrap());
}

#[test]
fn the_document_has_every_route() {
    let documented = operations(&document());
    let named: BTreeSet<_> = documented.iter().map(|(method, path)| format!("{method} {path}")).collect();
    let expected = [
        "DELETE /v1/limits/{namespace}",
        "GET /health",
        "GET /health/detailed",
        "GET /health/live",
        "GET /health/ready",
        "GET /metrics",
        "GET /v1/audit",
        "GET /v1/dead-letters",
        "GET /v1/dead-letters/{dead_letter_id}",
        "GET /v1/keys",
        "GET /v1/limits",
        "GET /v1/tasks",
        "GET /v1/tasks/{task_id}",
        "GET /v1/tasks/{task_id}/explain",
        "GET /v1/tasks/{task_id}/history",
        "GET /v1/tasks/{task_id}/wait",
        "GET /v1/templates",
        "GET /v1/templates/{namespace}/{name}",
        "GET /v1/workers",
        "POST /v1/dead-letters/{dead_letter_id}/discard",
        "POST /v1/dead-letters/{dead_letter_id}/redrive",
        "POST /v1/dead-letters/{dead_letter_id}/resolve",
        "POST /v1/keys",
        "POST /v1/keys/{prefix}/revoke",
        "POST /v1/tasks",
        "POST /v1/tasks/batch",
        "POST /v1/tasks/{task_id}/cancel",
        "POST /v1/tasks/{task_id}/pause",
        "POST /v1/tasks/{task_id}/resolve",
        "POST /v1/tasks/{task_id}/resume",
        "POST /v1/tasks/{task_id}/retry",
        "POST /v1/tasks/{task_id}/steps/{step}/cancel",
        "POST /v1/tasks/{task_id}/steps/{step}/park",
        "POST /v1/tasks/{task_id}/steps/{step}/resolve",
        "POST /v1/tasks/{task_id}/steps/{step}/retry",
        "POST /v1/templates",
        "POST /v1/templates/check",
        "PUT /v1/limits/{namespace}",
    ];
    assert_eq!(named.iter().map(String::as_str).collect::<Vec<_>>(), expected);
}

#[test]
fn every_reference_of_the_document_leads_somewhere() {
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(to)) = map.get("$ref") {
                    found.insert(to.clone());
                }
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let document = document();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.contains("#/components/schemas/SubmitTask"), "{found:?}");
    for reference in found {
        assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
    }
}

#[test]
fn every_operation_has_a_name_of_its_own() {
    let document = document();
    let items = document["paths"].as_object().unwrap().values().flat_map(|item| item.as_object().unwrap().values());
    let names: Vec<_> = items.map(|operation| operation["operationId"].as_str().unwrap()).collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
}

#[test]
fn every_operation_documents_what_it_answers_with_the_media_type_of_problems() {
    let document = document();
    let paths = document["paths"].as_object().unwrap();
    for (path, item) in paths.iter().filter(|(path, _)| path.starts_with("/v1/")) {
        for (method, operation) in item.as_object().unwrap() {
            let responses = operation["responses"].as_object().unwrap();
            let has = |status: &str| responses.contains_key(status);
            assert!((has("200") || has("201")) && has("500") && has("503") && has("504"), "{method} {path}");
            assert_eq!(has("415"), operation["requestBody"].is_object(), "{method} {path}");
            assert!(!path.contains('{') || (has("400") && has("404")), "{method} {path}");
            for (status, response) in responses.iter().filter(|(status, _)| status.as_str() >= "400") {
                assert!(response["content"][PROBLEM_JSON].is_object(), "{method} {path} {status}");
            }
        }
    }
}

#[tokio::test]
async fn a_malformed_id_is_refused_by_name() {
    for path in ["/v1/tasks/7", "/v1/tasks/7/wait", "/v1/tasks/7/history", "/v1/tasks/7/explain"] {
        let problem = problem("GET", path, "").await;
        assert_eq!((problem.status, problem.kind.as_str()), (400, "malformed_request"), "{path}");
        assert!(problem.title.contains("`task_id`") && problem.title.contains("`7`"), "{}", problem.title);
    }
    let problem = problem("POST", "/v1/tasks/7/steps/a/retry", "").await;
    assert!(problem.status == 400 && problem.title.contains("`task_id`"), "{}", problem.title);
}

#[tokio::test]
async fn a_wait_that_is_too_long_is_refused_with_the_limit() {
    let problem = problem("GET", &format!("{TASK}/wait?timeout_ms=60001"), "").await;
    assert_eq!((problem.status, problem.kind.as_str()), (422, "invalid_field"));
    assert!(problem.title.contains("`timeout_ms`") && problem.title.contains("60000"), "{}", problem.title);
}

#[tokio::test]
async fn a_body_over_the_limit_is_a_problem() {
    let body = format!(r#"{{"namespace": "a", "name": "b", "reason": "{}"}}"#, "x".repeat(1_000));
    let problem = problem("POST", "/v1/tasks", &body).await;
    assert_eq!((problem.status, problem.kind.as_str()), (413, "body_too_large"));
}

#[tokio::test]
async fn slow_bodies_of_one_client_leave_room_for_others_and_end_in_time() {
    let router = service_with(|settings| {
        settings.max_concurrent_requests = 8;
        settings.body_timeout = Duration::from_secs(1);
    });
    let check = |client: &str, body: Body| {
        let from: SocketAddr = client.parse().unwrap();
        let request = Request::post("/v1/templates/check").header("content-type", "application/yaml");
        router.clone().oneshot(request.extension(ConnectInfo(from)).body(body).unwrap())
    };
    // each begins, and never goes on
    let slow = || {
        let begun = futures::stream::once(async { Ok::<_, std::io::Error>("name: add\n") });
        Body::from_stream(begun.chain(futures::stream::pending()))
    };
    let mut slow: FuturesUnordered<_> = (0..8).map(|n| check(&format!("10.0.0.1:{n}"), slow())).collect();
    let mut told = Vec::new();
    while told.len() < 6 {
        told.push(slow.next().await.unwrap().unwrap().status().as_u16());
    }
    assert_eq!(told, [503; 6], "two are a quarter of the places");
    let whole = "name: add\nnamespace_name: math\nsteps: [{name: one, handler: {callable: noop}}]\n";
    for client in ["10.0.0.1:9", "10.0.0.2:1"] {
        assert_eq!(check(client, Body::from(whole)).await.unwrap().status(), 200, "{client}");
    }
    while let Some(answer) = slow.next().await {
        let answer = answer.unwrap();
        assert_eq!(answer.status(), 408);
        assert!(text(answer).await.contains("orchestration.body_timeout_ms"));
    }
}

#[tokio::test]
async fn a_template_is_checked_without_a_database() {
    let check = async |yaml: &str| {
        let request = Request::post("/v1/templates/check").header("content-type", "application/yaml");
        service().oneshot(request.body(Body::from(yaml.to_owned())).unwrap()).await.unwrap()
    };
    let right = check("name: add\nnamespace_name: math\nsteps: [{name: one, handler: {callable: noop}}]\n").await;
    assert_eq!(right.status(), 200);
    let right: CheckedTemplate = serde_json::from_str(&text(right).await).unwrap();
    assert_eq!((right.namespace.as_str(), right.name.as_str(), right.steps), ("math", "add", 1));

    let wrong = check("name: add\nnamespace_name: math\nstep: []\n").await;
    assert_eq!(wrong.status(), 422);
    let wrong: Problem = serde_json::from_str(&text(wrong).await).unwrap();
    assert_eq!(wrong.kind, "template_invalid");
    assert!(wrong.errors.iter().any(|error| error.starts_with("3:1: ") && error.contains("steps")), "{wrong:?}");
}

#[tokio::test]
async fn unknown_routes_and_wrong_methods_are_problems() {
    assert_eq!(problem("GET", "/v1/nothing", "").await.kind, "route_not_found");
    assert_eq!(problem("PUT", "/v1/tasks", "").await.kind, "method_not_allowed");
    assert_eq!(ask("PUT", "/v1/tasks", "").await.headers()["allow"], "POST,GET,HEAD");
}

#[tokio::test]
async fn without_the_database_the_answer_is_to_try_again() {
    let failure = unconnected().database().session("look").await.map(drop).unwrap_err();
    let response = Problem::from(Error::Storage(failure)).into_response();
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "1");
    assert!(!text(response).await.contains("127.0.0.1"));
}

#[tokio::test]
async fn people_find_the_document_and_the_explorer() {
    let served: Value = serde_json::from_str(&text(ask("GET", "/openapi.json", "").await).await).unwrap();
    assert_eq!(served, document());
    assert!(text(ask("GET", "/", "").await).await.contains("/openapi.json"));
    let explorer = ask("GET", "/docs/", "").await;
    assert_eq!((explorer.status().as_u16(), explorer.headers()["content-type"].to_str().unwrap()), (200, "text/html"));
    assert!(text(ask("GET", "/docs/swagger-initializer.js", "").await).await.contains("/openapi.json"));
}
