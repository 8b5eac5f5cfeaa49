//! The client against a service on localhost: routes, decoding, and what failures say.

use crate::{Client, Error};
use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tasker_shared::{
    api::{Action, ApplyTemplate, ResolveStep, SubmitAnswer, SubmitTask, TaskFilter},
    id::TaskId,
    task::TaskState,
};

const ID: &str = "0197f000-0000-7000-8000-000000000001";

type Asked = Arc<Mutex<Vec<(String, Value)>>>;

/// Answers everything with `status` and `body`, and remembers what was asked.
async fn service(status: u16, body: Value) -> (Client, Asked) {
    let asked = Asked::default();
    let answer = move |State(asked): State<Asked>, method: Method, uri: Uri, sent: Bytes| async move {
        let sent = serde_json::from_slice(&sent).unwrap_or_default();
        asked.lock().unwrap().push((format!("{method} {uri}"), sent));
        (StatusCode::from_u16(status).unwrap(), Json(body)).into_response()
    };
    let router = Router::new().fallback(answer).with_state(Arc::clone(&asked));
    (Client::new(&serve(router).await).unwrap(), asked)
}

async fn serve(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

fn task() -> TaskId {
    ID.parse().unwrap()
}

fn only(asked: &Asked) -> (String, Value) {
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 1, "{asked:?}");
    asked[0].clone()
}

#[tokio::test]
async fn a_repeated_submission_is_told_by_created() {
    let (client, asked) =
        service(200, json!({"task_id": ID, "correlation_id": ID, "created": false, "state": "complete"})).await;
    let request = SubmitTask { namespace: "shop".into(), name: "order".into(), ..SubmitTask::default() };
    let submitted = client.submit(&request).await.unwrap();
    assert_eq!((submitted.task_id, submitted.created, submitted.state), (task(), false, TaskState::Complete));
    assert_eq!(
        only(&asked),
        ("POST /v1/tasks".into(), json!({"namespace": "shop", "name": "order", "input": null, "priority": 0}))
    );
}

#[tokio::test]
async fn each_of_many_tasks_has_its_own_answer() {
    let answers = json!({"tasks": [
        {"task_id": ID, "correlation_id": ID, "created": true, "state": "pending"},
        {"type": "input_invalid", "status": 422, "title": "no", "errors": ["/id: missing"]}]});
    let (client, asked) = service(200, answers).await;
    let answers = client.submit_many(vec![SubmitTask::default(), SubmitTask::default()]).await.unwrap();
    assert!(matches!(&answers[0], SubmitAnswer::Accepted(task) if task.created));
    assert!(matches!(&answers[1], SubmitAnswer::Refused(problem) if problem.errors == ["/id: missing"]));
    assert_eq!(only(&asked).0, "POST /v1/tasks/batch");
}

#[tokio::test]
async fn only_filters_that_are_set_are_sent() {
    let (client, asked) = service(200, json!({"tasks": []})).await;
    let filter = TaskFilter { state: Some(TaskState::Error), tag: Some("a b&c".into()), ..TaskFilter::default() };
    assert_eq!(client.tasks(&filter).await.unwrap().next, None);
    assert_eq!(only(&asked).0, "GET /v1/tasks?state=error&tag=a+b%26c");
}

#[tokio::test]
async fn every_action_has_its_route() {
    let (client, asked) = service(200, json!({"task_id": ID, "state": "paused"})).await;
    let action = Action { reason: Some("because".into()), by: None };
    let acted = [
        client.cancel(task(), &action).await,
        client.pause(task(), &action).await,
        client.resume(task(), &action).await,
        client.retry(task(), &action).await,
        client.resolve(task(), &action).await,
        client.retry_step(task(), "a:b", &action).await,
        client.cancel_step(task(), "a", &action).await,
        client.resolve_step(task(), "a", &ResolveStep { result: json!(1), ..ResolveStep::default() }).await,
    ];
    assert!(acted.into_iter().all(|acted| acted.unwrap().state == TaskState::Paused));
    let routes: Vec<_> = asked.lock().unwrap().iter().map(|(route, _)| route.clone()).collect();
    let expected =
        ["cancel", "pause", "resume", "retry", "resolve", "steps/a:b/retry", "steps/a/cancel", "steps/a/resolve"];
    assert_eq!(routes, expected.map(|end| format!("POST /v1/tasks/{ID}/{end}")));
    assert_eq!(asked.lock().unwrap()[7].1, json!({"result": 1}));
}

#[tokio::test]
async fn questions_about_a_task_have_their_routes() {
    let (client, asked) = service(200, json!({"transitions": []})).await;
    assert!(client.history(task()).await.unwrap().transitions.is_empty());
    assert_eq!(only(&asked).0, format!("GET /v1/tasks/{ID}/history"));
    let (client, asked) = service(200, json!({"task_id": ID, "state": "pending", "summary": "s", "steps": []})).await;
    assert_eq!(client.explain(task()).await.unwrap().summary, "s");
    assert_eq!(only(&asked).0, format!("GET /v1/tasks/{ID}/explain"));
    let (client, asked) = service(404, json!({"type": "task_not_found", "status": 404, "title": "no such task"})).await;
    let error = client.wait(task(), Duration::from_millis(1500)).await.unwrap_err();
    assert_eq!((error.status(), error.problem().unwrap().kind.as_str()), (Some(404), "task_not_found"));
    assert_eq!(only(&asked).0, format!("GET /v1/tasks/{ID}/wait?timeout_ms=1500"));
}

#[tokio::test]
async fn templates_are_named_in_the_path() {
    let (client, asked) = service(404, json!({"type": "template_not_found", "status": 404, "title": "no"})).await;
    client.template("shop", "order", Some("1.0.0+b")).await.unwrap_err();
    client.template("shop", "order", None).await.unwrap_err();
    client.apply(&ApplyTemplate { source: "name: a".into(), file: None }).await.unwrap_err();
    let asked = asked.lock().unwrap();
    assert_eq!(asked[0].0, "GET /v1/templates/shop/order?version=1.0.0%2Bb");
    assert_eq!(asked[1].0, "GET /v1/templates/shop/order");
    assert_eq!(asked[2], ("POST /v1/templates".into(), json!({"source": "name: a"})));
}

#[tokio::test]
async fn an_address_may_have_a_path_of_its_own() {
    let (client, asked) = service(200, json!({"workers": []})).await;
    let behind_a_proxy = Client::new(&format!("{}/tasker/", client.url())).unwrap();
    assert!(behind_a_proxy.workers().await.unwrap().workers.is_empty());
    assert_eq!(only(&asked).0, "GET /tasker/v1/workers");
}

#[tokio::test]
async fn the_health_of_an_unwell_service_is_an_answer() {
    let (client, _) = service(503, json!({"status": "draining", "service": "orchestration", "version": "1"})).await;
    assert_eq!(client.health().await.unwrap().status, "draining");
}

#[tokio::test]
async fn a_refusal_says_what_the_service_said() {
    let problem = json!({"type": "input_invalid", "status": 422, "title": "the input breaks its schema",
        "detail": "see the template", "errors": ["/id: not a number"]});
    let (client, _) = service(422, problem).await;
    let error = client.submit(&SubmitTask::default()).await.unwrap_err();
    assert_eq!(error.to_string(), "the input breaks its schema; /id: not a number; see the template");
}

#[tokio::test]
async fn an_answer_of_something_else_is_quoted_with_its_status() {
    let page = || async { (StatusCode::BAD_GATEWAY, "<h1>Bad\n gateway</h1>").into_response() as Response };
    let client = Client::new(&serve(Router::new().fallback(page)).await).unwrap();
    let error = client.templates().await.unwrap_err();
    assert_eq!(error.status(), Some(502));
    assert!(
        error.to_string().contains("answered 502") && error.to_string().contains("<h1>Bad gateway</h1>"),
        "{error}"
    );
}

#[tokio::test]
async fn a_service_that_is_not_there_says_how_to_start_it() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = Client::new(&format!("http://127.0.0.1:{port}")).unwrap().workers().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains("refused") && error.to_string().contains("tasker dev"), "{error}");
}

#[tokio::test]
async fn a_service_that_does_not_answer_is_left_in_time() {
    let url = serve(Router::new().fallback(std::future::pending::<Response>)).await;
    let error = Client::with_timeout(&url, Duration::from_millis(20)).unwrap().workers().await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
    assert!(error.to_string().contains("within 0.02 s"), "{error}");
}

#[tokio::test]
async fn what_is_secret_in_an_address_is_sent_and_in_no_message() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let page = || async { (StatusCode::BAD_GATEWAY, "no").into_response() as Response };
    let answers = serve(Router::new().fallback(page)).await.replace("http://", "");
    for host in [answers, format!("127.0.0.1:{port}")] {
        let client = Client::new(&format!("http://u:SECRET@{host}/?token=SECRET")).unwrap();
        let error = client.workers().await.unwrap_err();
        for text in [error.to_string(), format!("{error:?}"), client.url().to_owned(), format!("{client:?}")] {
            assert!(text.contains(&host.replace("SECRET", "")) && !text.contains("SECRET"), "{text}");
        }
    }
    for url in ["http://u:SECRET@host:99999", "http://u:SECRET@[", "ftp://u:SECRET@host", "u:SECRET@host"] {
        let error = Client::new(url).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("SECRET"), "{error}");
    }
}

#[test]
fn an_address_that_cannot_be_called_is_refused_at_once() {
    for (url, reason) in [("localhost:8080", "scheme"), ("not an address", "relative URL"), ("ftp://host", "ftp")] {
        let error = Client::new(url).unwrap_err();
        assert!(matches!(error, Error::Url { .. }) && error.to_string().contains(reason), "{error}");
    }
}
