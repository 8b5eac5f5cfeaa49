//! The `http` handler against a server on this machine.

use super::{HttpHandler, HttpSettings};
use crate::handler::{HandlerError, Limits, StepContext, StepHandler, run};
use axum::{
    Json, Router,
    body::Body,
    extract::{Path, RawQuery},
    http::{HeaderMap, Method, StatusCode},
    response::{IntoResponse, Redirect},
    routing::{any, get},
};
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use std::{convert::Infallible, net::SocketAddr, time::Duration};
use tasker_shared::step::{Failure, FailureKind, Outcome};

async fn seen(method: Method, headers: HeaderMap, RawQuery(query): RawQuery, body: String) -> Json<Value> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    Json(json!({
        "method": method.as_str(),
        "query": query,
        "body": body,
        "content_type": header("content-type"),
        "idempotency_key": header("idempotency-key"),
        "traceparent": header("traceparent"),
        "x_order": header("x-order"),
        "referer": header("referer"),
    }))
}

async fn status(Path(code): Path<u16>) -> impl IntoResponse {
    let code = StatusCode::from_u16(code).expect("a test asks for real statuses");
    (code, [("retry-after", "7"), ("x-request-id", "r1")], "the reason")
}

async fn moved(Path(code): Path<u16>) -> impl IntoResponse {
    (StatusCode::from_u16(code).expect("a test asks for real statuses"), [("location", "/seen")])
}

fn endless() -> Body {
    Body::from_stream(stream::repeat_with(|| Ok::<_, Infallible>(vec![b'x'; 64 * 1024])))
}

fn stuck() -> Body {
    let first = stream::once(async { Ok::<_, Infallible>("{") });
    Body::from_stream(first.chain(stream::pending()))
}

/// A server that lives as long as the test's runtime.
async fn server() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let elsewhere = format!("http://localhost:{}/seen", address.port());
    let json_type = [("content-type", "application/problem+json")];
    let router = Router::new()
        .route("/seen", any(seen))
        .route("/status/{code}", any(status))
        .route("/endless", get(|| async { endless() }))
        .route("/stuck", get(|| async { stuck() }))
        .route("/silent", get(|| async { std::future::pending::<()>().await }))
        .route("/text", get(|| async { "plain text" }))
        .route("/bytes", get(|| async { vec![0xff_u8, 0xfe] }))
        .route("/empty", get(|| async { StatusCode::NO_CONTENT }))
        .route("/broken", get(move || async move { (json_type, "{\"a\":") }))
        .route("/moved/{code}", any(moved))
        .route("/here", get(|| async { Redirect::temporary("/seen") }))
        .route("/elsewhere", get(move || async move { Redirect::temporary(&elsewhere) }))
        .route("/metadata", get(|| async { Redirect::temporary("http://169.254.169.254/latest") }))
        .route("/round", get(|| async { Redirect::temporary("/round") }));
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

fn handler(allowed: &str) -> HttpHandler {
    HttpHandler::new(HttpSettings {
        enabled: true,
        allowed_hosts: vec![allowed.to_owned()],
        max_response_bytes: 100_000,
        timeout_ms: 20_000,
        ..HttpSettings::default()
    })
}

fn step(initialization: Value) -> StepContext {
    let input = json!({"id": "a b", "amount": 5});
    let context = StepContext::for_test(input).with_parent("quote", json!({"price": 9})).with_attempt(2);
    let context = context.with_run(|run| run.traceparent = Some("00-0af7-b7ad-01".to_owned()));
    context.with_initialization(initialization)
}

async fn call(initialization: impl FnOnce(&str) -> Value) -> Result<Value, HandlerError> {
    let address = server().await;
    handler("127.0.0.1").call(step(initialization(&format!("http://{address}")))).await
}

async fn refused(initialization: impl FnOnce(&str) -> Value) -> HandlerError {
    let error = call(initialization).await.expect_err("it is refused");
    assert!(!error.is_retryable(), "{error}");
    error
}

async fn failed(initialization: impl FnOnce(&str) -> Value) -> HandlerError {
    let error = call(initialization).await.expect_err("it fails");
    assert!(error.is_retryable(), "{error}");
    error
}

#[tokio::test]
async fn a_host_that_is_away_is_left_alone_and_the_attempt_does_not_count() {
    let address = server().await;
    let handler = handler("127.0.0.1");
    let url = |code: u16| step(json!({"url": format!("http://{address}/status/{code}")}));
    // what the caller did wrong, and what only this call met, is not the host's fault
    for code in [400, 404, 429, 500, 500, 500, 500, 500, 500] {
        assert!(handler.call(url(code)).await.is_err());
    }
    for _ in 0..5 {
        let failure = Failure::from(handler.call(url(503)).await.expect_err("it is away"));
        assert!(!failure.not_tried, "{failure:?}");
    }
    let failure = Failure::from(handler.call(url(200)).await.expect_err("it is left alone"));
    assert!(
        failure.not_tried && failure.retryable && failure.retry_after_ms.is_some_and(|wait| wait <= 1_000),
        "{failure:?}"
    );
    assert!(failure.message.contains("was not called"), "{failure:?}");
    tokio::time::sleep(Duration::from_millis(failure.retry_after_ms.unwrap_or(0) + 1)).await;
    assert!(handler.call(url(200)).await.is_ok(), "the try");
    assert!(handler.call(url(200)).await.is_ok());
}

#[tokio::test]
async fn a_call_carries_what_the_step_says() {
    let result = call(|base| {
        json!({
            "url": format!("{base}/seen"),
            "method": "put",
            "query": {"id": "{{ input.id }}", "n": "{{ attempt }}", "none": null},
            "headers": {"X-Order": "{{ parents.quote.price }}"},
            "body": {"amount": "{{ input.amount }}"},
        })
    });
    let result = result.await.expect("it answers");
    assert_eq!(result["status"], json!(200));
    assert_eq!(result["headers"]["content-type"], json!("application/json"));
    let seen = &result["body"];
    assert_eq!(seen["method"], json!("PUT"));
    assert_eq!(seen["query"], json!("id=a+b&n=2"));
    assert_eq!(seen["body"], json!("{\"amount\":5}"));
    assert_eq!(seen["content_type"], json!("application/json"));
    assert_eq!(seen["x_order"], json!("9"));
    assert_eq!(seen["traceparent"], json!("00-0af7-b7ad-01"));
    assert_eq!(seen["idempotency_key"].as_str().map(str::len), Some(36));
}

#[tokio::test]
async fn a_post_without_a_body_sends_the_step_and_the_body_alone_can_be_the_result() {
    let result = call(|base| json!({"url": format!("{base}/seen"), "method": "POST", "result": "body"}));
    let seen = result.await.expect("it answers");
    let sent: Value = serde_json::from_str(seen["body"].as_str().expect("a text")).expect("the step is JSON");
    assert_eq!(sent["parents"], json!({"quote": {"price": 9}}));
    assert_eq!(sent["idempotency_key"], seen["idempotency_key"]);
}

#[tokio::test]
async fn text_and_nothing_are_results_too() {
    let text = call(|base| json!({"url": format!("{base}/text"), "result": "body"})).await;
    assert_eq!(text.expect("it answers"), json!("plain text"));
    let empty = call(|base| json!({"url": format!("{base}/empty")})).await.expect("it answers");
    assert_eq!((&empty["status"], &empty["body"]), (&json!(204), &Value::Null));
}

#[tokio::test]
async fn statuses_that_pass_are_tried_again_after_the_asked_delay() {
    for code in [408, 425, 429, 500, 502, 503, 504] {
        let error = failed(|base| json!({"url": format!("{base}/status/{code}?key=secret")})).await;
        assert!(error.message().contains(&format!("/status/{code}?key=*** answered {code}")), "{error}");
        assert!(!error.message().contains("secret"), "{error}");
        assert_eq!(error.asked_delay(), Some(Duration::from_secs(7)));
        let details = error.details().expect("it has details");
        assert_eq!((&details["status"], &details["body"]), (&json!(code), &json!("the reason")));
        assert_eq!(details["headers"]["x-request-id"], json!("r1"));
    }
}

#[tokio::test]
async fn other_statuses_are_permanent() {
    for code in [304, 400, 401, 403, 404, 409, 410, 422] {
        let error = refused(|base| json!({"url": format!("{base}/status/{code}")})).await;
        assert!(error.message().contains(&format!("answered {code}")), "{error}");
        assert_eq!(error.asked_delay(), None);
    }
}

#[tokio::test]
async fn a_step_can_say_which_statuses_are_which() {
    let found = call(|base| json!({"url": format!("{base}/status/404"), "success_codes": [404]})).await;
    assert_eq!(found.expect("it is a success")["status"], json!(404));
    failed(|base| json!({"url": format!("{base}/status/409"), "retryable_codes": [409]})).await;
    refused(|base| json!({"url": format!("{base}/status/503"), "retryable_codes": [409]})).await;
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let context = |base: &str| step(json!({"url": format!("{base}/endless")}));
    let base = format!("http://{}", server().await);
    let outcome = run(&handler("*"), &context(&base), &Limits::default(), None).await;
    let Outcome::Failure(failure) = outcome else { panic!("it was accepted") };
    assert_eq!((failure.kind, failure.retryable), (FailureKind::ResultTooLarge, false));
    assert!(failure.message.contains("more than 100000 bytes"), "{failure:?}");
}

#[tokio::test]
async fn silence_and_slow_bodies_are_tried_again() {
    for path in ["silent", "stuck"] {
        let error = failed(|base| json!({"url": format!("{base}/{path}"), "timeout_ms": 50})).await;
        assert!(error.message().ends_with("gave no answer within 50 ms"), "{error}");
    }
}

#[tokio::test]
async fn a_call_ends_at_the_deadline_of_the_step() {
    let base = format!("http://{}", server().await);
    let context = step(json!({"url": format!("{base}/silent")})).with_timeout(Duration::from_millis(50));
    let outcome = run(&handler("127.0.0.1"), &context, &Limits::default(), None).await;
    let Outcome::Failure(Failure { kind, message, .. }) = outcome else { panic!("it answered") };
    assert_eq!(kind, FailureKind::Timeout);
    assert!(message.ends_with("it ended with: the call was given up"), "{message}");
}

#[tokio::test]
async fn a_service_that_is_down_is_tried_again() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    drop(listener);
    let error = handler("127.0.0.1").call(step(json!({"url": format!("http://{address}/x")}))).await;
    let error = error.expect_err("nobody listens");
    assert!(error.is_retryable());
    assert!(error.message().contains("/x failed: ") && error.message().contains("refused"), "{error}");
}

#[tokio::test]
async fn answers_that_cannot_be_read_are_errors() {
    assert!(failed(|base| json!({"url": format!("{base}/broken")})).await.message().contains("says it is JSON"));
    assert!(refused(|base| json!({"url": format!("{base}/bytes")})).await.message().contains("neither JSON nor text"));
}

#[tokio::test]
async fn redirects_are_followed_to_allowed_hosts_only() {
    let here = call(|base| json!({"url": format!("{base}/here")})).await;
    assert_eq!(here.expect("the host is the same")["status"], json!(200));
    let elsewhere = refused(|base| json!({"url": format!("{base}/elsewhere")})).await;
    assert!(elsewhere.message().contains("`localhost` is not allowed"), "{elsewhere}");
    assert!(elsewhere.message().contains("`worker.http.allowed_hosts`"), "{elsewhere}");
    let round = refused(|base| json!({"url": format!("{base}/round")})).await;
    assert!(round.message().contains("more than 10 redirects"), "{round}");
}

#[tokio::test]
async fn what_a_step_says_in_headers_stays_with_the_origin_that_it_names() {
    let call = |path: &'static str| async move {
        let base = format!("http://{}", server().await);
        let headers = json!({"X-Order": "7", "Referer": "https://a.example/?secret"});
        let step = step(json!({"url": format!("{base}{path}?secret=1"), "headers": headers, "result": "body"}));
        handler("*").call(step).await.expect("it answers")
    };
    let here = call("/here").await;
    assert_eq!((&here["x_order"], &here["traceparent"]), (&json!("7"), &json!("00-0af7-b7ad-01")));
    let elsewhere = call("/elsewhere").await;
    assert_eq!((&elsewhere["x_order"], &elsewhere["referer"]), (&Value::Null, &Value::Null));
    assert_eq!(elsewhere["traceparent"], json!("00-0af7-b7ad-01"));
    let result = super::tests::call(|base| json!({"url": format!("{base}/here?secret=1"), "result": "body"})).await;
    assert_eq!(result.expect("it answers")["referer"], Value::Null);
}

#[tokio::test]
async fn redirects_ask_for_a_page_or_for_the_same_again() {
    for (code, method, body) in
        [(301, "GET", ""), (302, "GET", ""), (303, "GET", ""), (307, "PUT", "b"), (308, "PUT", "b")]
    {
        let seen =
            call(|base| json!({"url": format!("{base}/moved/{code}"), "method": "PUT", "body": "b", "result": "body"}));
        let seen = seen.await.expect("it answers");
        assert_eq!((&seen["method"], &seen["body"]), (&json!(method), &json!(body)), "{code}");
    }
}

#[tokio::test]
async fn messages_show_no_passwords_and_no_queries() {
    for url in [
        "http://user:secret@127.0.0.1:99999/?token=secret",
        "ftp://user:secret@127.0.0.1/?token=secret#secret",
        "//user:secret@h/x?secret",
        "http://user:secret@127.0.0.1:1/?token=secret",
        "mailto:secret@a.example",
    ] {
        let error = handler("127.0.0.1").call(step(json!({"url": url}))).await.expect_err(url);
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

#[tokio::test]
async fn metadata_services_are_out_of_reach_even_where_every_host_is_allowed() {
    let base = format!("http://{}", server().await);
    for url in ["http://169.254.169.254/latest".to_owned(), format!("{base}/metadata"), "http://0.0.0.0/".to_owned()] {
        let error = handler("*").call(step(json!({"url": url}))).await.expect_err("it is refused");
        assert!(!error.is_retryable());
        assert!(error.message().contains("link-local, a metadata service"), "{error}");
    }
}

#[tokio::test]
async fn a_host_that_is_not_listed_is_not_called() {
    let error = refused(|_| json!({"url": "http://example.com/"})).await;
    assert!(error.message().contains("add it to `worker.http.allowed_hosts`"), "{error}");
    let off = HttpHandler::new(HttpSettings::default());
    let error = off.call(step(json!({"url": "http://example.com/"}))).await.expect_err("it is off");
    assert!(!error.is_retryable() && error.message().contains("`worker.http.enabled`"), "{error}");
}

#[tokio::test]
async fn mistakes_in_the_step_are_permanent_and_named() {
    for (initialization, reason) in [
        (json!({}), "missing field `url`"),
        (json!({"url": "http://127.0.0.1/", "metod": "GET"}), "unknown field `metod`"),
        (json!({"url": 7}), "at `url`"),
        (json!({"url": "//u:SECRET@host"}), "`url` is `***`, which is no URL"),
        (json!({"url": "ftp://u:SECRET@host"}), "ftp://***@host"),
        (json!({"url": "ftp://127.0.0.1/"}), "not an http or https URL"),
        (
            json!({"url": "http://127.0.0.1/", "headers": {"Content-Length": "400"}}),
            "`headers.Content-Length` cannot be sent",
        ),
        (json!({"url": "http://127.0.0.1/", "headers": {"host": "other"}}), "`headers.host` cannot be sent"),
        (json!({"url": "http://127.0.0.1/", "headers": {"{{ 'te' }}": "x"}}), "`headers.{{ 'te' }}` has a name"),
        (json!({"url": "http://127.0.0.1/{{ input.nothing }}"}), "`url` of step `step` cannot be filled"),
        (json!({"url": "http://127.0.0.1/", "method": "G E T"}), "`method` is `G E T`"),
        (json!({"url": "http://127.0.0.1/", "headers": {"a b": "c"}}), "`headers.a b` has a name"),
        (json!({"url": "http://127.0.0.1/", "headers": {"a": "b\nc"}}), "`headers.a` has a value"),
    ] {
        let error = refused(|_| initialization).await;
        assert!(error.message().contains(reason), "{error}");
    }
}
