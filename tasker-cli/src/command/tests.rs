//! The commands against a service that answers as told.

use crate::{
    exit::Exit,
    stub::{Stub, run},
    view::fixed::{TASK, complete, failed, order},
};
use serde_json::{Value, json};
use std::fs;

fn task_path() -> String {
    format!("GET /v1/tasks/{TASK}")
}

fn submitted() -> Value {
    json!({"task_id": TASK, "correlation_id": TASK, "created": true, "state": "in_progress"})
}

fn refusal(kind: &str, status: u16, title: &str) -> Value {
    json!({"type": kind, "status": status, "title": title})
}

#[tokio::test]
async fn submit_sends_everything_that_was_given() {
    let stub = Stub::start(&[("POST /v1/tasks", 201, submitted())]).await;
    let words = "task submit shop/order@1.0.0 --priority -5 --tag eu --tag web --key k1 --initiator anna --source-system till \
                 --reason test --traceparent 00-a-b-01";
    let mut words: Vec<_> = words.split_whitespace().collect();
    words.extend([
        "--input",
        r#"{"id": 7}"#,
        "--run-at",
        "in 10m",
        "--correlation-id",
        TASK,
        "--parent-correlation-id",
        TASK,
    ]);
    let ran = stub.run(&words).await;
    assert_eq!(ran.exit, Exit::Ok, "{ran:?}");
    assert!(ran.out.starts_with(&format!("{TASK}  submitted  in_progress")), "{ran:?}");
    let expected = json!({
        "namespace": "shop", "name": "order", "version": "1.0.0", "input": {"id": 7}, "idempotency_key": "k1",
        "priority": -5, "tags": ["eu", "web"], "run_at": "2026-03-01T12:11:00Z", "correlation_id": TASK,
        "parent_correlation_id": TASK, "traceparent": "00-a-b-01", "initiator": "anna", "source_system": "till",
        "reason": "test",
    });
    assert_eq!(stub.asked(), [("POST /v1/tasks".to_owned(), expected)]);
}

#[tokio::test]
async fn the_input_may_come_from_a_file_or_the_standard_input() {
    let stub = Stub::start(&[("POST /v1/tasks", 201, submitted())]).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("input.json");
    fs::write(&file, r#"{"from": "file"}"#).unwrap();
    let option = format!("@{}", file.display());
    stub.run(&["task", "submit", "shop/order", "--input", &option]).await;
    run(&["task", "submit", "shop/order", "--input", "-"], &[("TASKER_URL", &stub.url)], r#"{"from": "stdin"}"#).await;
    let inputs: Vec<_> = stub.asked().into_iter().map(|(_, body)| body["input"]["from"].clone()).collect();
    assert_eq!(inputs, ["file", "stdin"]);
}

#[tokio::test]
async fn input_that_is_not_json_is_refused_before_anything_is_sent() {
    let stub = Stub::start(&[]).await;
    let ran = stub.run(&["task", "submit", "shop/order", "--input", "{id: 7}"]).await;
    assert_eq!(ran.exit, Exit::Usage);
    assert!(ran.err.starts_with("error: --input is not JSON") && ran.err.contains("@FILE"), "{ran:?}");
    assert_eq!(stub.asked(), []);
}

#[tokio::test]
async fn waiting_tells_each_change_and_ends_with_the_task() {
    let path = task_path();
    let stub = Stub::start(&[
        ("POST /v1/tasks", 201, submitted()),
        (&path, 200, json!(order())),
        (&path, 200, json!(complete())),
    ])
    .await;
    let ran = stub.run(&["task", "submit", "shop/order", "--wait"]).await;
    assert_eq!(ran.exit, Exit::Ok, "{ran:?}");
    assert!(ran.out.contains("step charge waiting_for_retry"), "{ran:?}");
    // lines are told by their time, and the fixed clock is later than the task's end
    assert!(ran.out.contains("task complete  4/4 steps  10.0s\n"), "{ran:?}");
}

#[tokio::test]
async fn a_failed_task_ends_with_code_1_and_says_where_to_look() {
    let stub = Stub::start(&[(&task_path(), 200, json!(failed()))]).await;
    let ran = stub.run(&["task", "watch", TASK]).await;
    assert_eq!(ran.exit, Exit::Failed);
    assert!(ran.out.contains("step charge error") && ran.err.contains(&format!("tasker task show {TASK}")), "{ran:?}");
}

#[tokio::test]
async fn waiting_longer_than_allowed_ends_with_code_5_and_the_task_goes_on() {
    let stub = Stub::start(&[(&task_path(), 200, json!(order()))]).await;
    let ran = stub.run(&["task", "watch", TASK, "--timeout", "1ms"]).await;
    assert_eq!(ran.exit, Exit::Timeout);
    assert!(ran.err.contains("the task goes on") && ran.err.contains(&format!("tasker task cancel {TASK}")), "{ran:?}");
}

#[tokio::test]
async fn programs_that_wait_get_the_task_as_one_object() {
    let stub = Stub::start(&[("POST /v1/tasks", 201, submitted()), (&task_path(), 200, json!(complete()))]).await;
    let ran = stub.run(&["task", "submit", "shop/order", "--wait", "--json"]).await;
    assert_eq!((ran.json(), ran.err.as_str()), (json!(complete()), ""));
}

#[tokio::test]
async fn many_tasks_are_submitted_from_a_file_and_a_refused_one_fails_the_command() {
    let answers =
        json!({"tasks": [submitted(), refusal("template_not_found", 404, "template `shop/x` is not registered")]});
    let stub = Stub::start(&[("POST /v1/tasks/batch", 200, answers.clone())]).await;
    let lines = "{\"namespace\":\"shop\",\"name\":\"order\"}\n{\"namespace\":\"shop\",\"name\":\"x\"}\n";
    let variables = [("TASKER_URL", stub.url.as_str())];
    let ran = run(&["task", "submit", "--file", "-"], &variables, lines).await;
    assert_eq!(ran.exit, Exit::Failed);
    assert!(ran.out.ends_with("task 2 refused: template `shop/x` is not registered\n"), "{ran:?}");
    assert_eq!(stub.asked()[0].1["tasks"].as_array().unwrap().len(), 2);
    let ran = run(&["task", "submit", "--file", "-", "--json"], &variables, lines).await;
    assert_eq!(ran.json(), answers);
}

#[tokio::test]
async fn a_list_asks_with_every_filter_that_was_given() {
    let stub = Stub::start(&[("GET /v1/tasks", 200, json!({"tasks": [order().summary]}))]).await;
    let words = "task list --state error --namespace shop --name order --tag eu --limit 5 --json --correlation-id";
    let mut words: Vec<_> = words.split_whitespace().collect();
    words.extend([TASK, "--before", TASK]);
    let ran = stub.run(&words).await;
    assert_eq!(ran.json(), json!({"tasks": [order().summary]}));
    let query = "state=error&namespace=shop&name=order&tag=eu";
    assert_eq!(stub.asked()[0].0, format!("GET /v1/tasks?{query}&correlation_id={TASK}&limit=5&before={TASK}"));
}

#[tokio::test]
async fn a_task_is_shown_to_programs_with_its_history_when_asked() {
    let transition = json!({"sequence": 1, "step": null, "from": null, "to": "pending", "attempt": null,
        "actor": "orchestration", "reason": null, "at": "2026-03-01T12:00:47Z"});
    let history = format!("{}/history", task_path());
    let stub =
        Stub::start(&[(&task_path(), 200, json!(order())), (&history, 200, json!({"transitions": [transition]}))])
            .await;
    assert_eq!(stub.run(&["task", "show", TASK, "--json"]).await.json(), json!(order()));
    let whole = stub.run(&["task", "show", TASK, "--history", "--json"]).await.json();
    assert_eq!((&whole["history"], &whole["task_id"]), (&json!([transition]), &json!(TASK)));
    let text = stub.run(&["task", "show", TASK, "--history"]).await.out;
    assert!(text.contains("12:00:47.000  0.0ms  task"), "{text}");
}

#[tokio::test]
async fn explain_prints_the_answer_and_why_each_step_waits() {
    let answer = json!({"task_id": TASK, "state": "in_progress", "summary": "one step waits for its retry",
        "steps": [{"step": "charge", "state": "waiting_for_retry", "because": "it failed and runs again in 2 s"}]});
    let stub = Stub::start(&[(&format!("{}/explain", task_path()), 200, answer.clone())]).await;
    let text = stub.run(&["task", "explain", TASK]).await.out;
    assert!(text.starts_with("▸ in_progress: one step waits for its retry\n\n"), "{text}");
    assert!(text.contains("↻  charge  waiting_for_retry  it failed and runs again in 2 s"), "{text}");
    assert_eq!(stub.run(&["task", "explain", TASK, "--json"]).await.json(), answer);
}

#[tokio::test]
async fn every_action_goes_to_its_route_with_reason_and_user() {
    let verbs = ["cancel", "pause", "resume", "retry", "resolve"];
    let routes: Vec<_> = verbs.iter().map(|verb| format!("POST /v1/tasks/{TASK}/{verb}")).collect();
    let acted = json!({"task_id": TASK, "state": "paused"});
    let answers: Vec<_> = routes.iter().map(|route| (route.as_str(), 200, acted.clone())).collect();
    let stub = Stub::start(&answers).await;
    for verb in verbs {
        let ran = stub.run(&["task", verb, TASK, "--reason", "because"]).await;
        assert_eq!((ran.exit, ran.out.as_str()), (Exit::Ok, format!("task {TASK} is ‖ paused\n").as_str()));
    }
    let expected: Vec<_> =
        routes.into_iter().map(|route| (route, json!({"reason": "because", "by": "anna"}))).collect();
    assert_eq!(stub.asked(), expected);
}

#[tokio::test]
async fn steps_are_retried_cancelled_and_resolved_by_name() {
    let routes = ["retry", "cancel", "resolve"].map(|verb| format!("POST /v1/tasks/{TASK}/steps/charge/{verb}"));
    let acted = json!({"task_id": TASK, "state": "in_progress"});
    let answers: Vec<_> = routes.iter().map(|route| (route.as_str(), 200, acted.clone())).collect();
    let stub = Stub::start(&answers).await;
    stub.run(&["step", "retry", TASK, "charge", "--by", "otto"]).await;
    stub.run(&["step", "cancel", TASK, "charge"]).await;
    let ran = stub.run(&["step", "resolve", TASK, "charge", "--result", r#"{"paid": true}"#, "--json"]).await;
    assert_eq!(ran.json(), acted);
    let bodies = [json!({"by": "otto"}), json!({"by": "anna"}), json!({"result": {"paid": true}, "by": "anna"})];
    assert_eq!(stub.asked(), routes.into_iter().zip(bodies).collect::<Vec<_>>());
}

fn dead_letter(resolution: Option<&str>) -> Value {
    json!({"dead_letter_id": TASK, "reason": "poison", "queue": "worker_shop", "namespace": "shop",
        "detail": "it takes its workers down", "task_id": TASK, "step_id": TASK, "step": "charge", "parked_by": "tasker",
        "created_at": "2026-03-01T12:00:00Z", "resolution": resolution, "resolved_by": resolution.map(|_| "operator:anna"),
        "resolved_at": resolution.map(|_| "2026-03-01T12:00:58Z"), "note": null})
}

#[tokio::test]
async fn dead_letters_are_listed_shown_and_dealt_with() {
    let one = format!("/v1/dead-letters/{TASK}");
    let mut whole = dead_letter(None);
    for (key, value) in [("message", json!({"step_id": TASK})), ("headers", json!(null)), ("read_count", json!(20))] {
        whole[key] = value;
    }
    whole["snapshot"] = json!({"step": {"state": "in_progress"}});
    let list = json!({"dead_letters": [dead_letter(None)], "next": TASK});
    let verbs = [("redrive", "redriven"), ("resolve", "resolved"), ("discard", "discarded")];
    let routes = verbs.map(|(verb, done)| (format!("POST {one}/{verb}"), dead_letter(Some(done))));
    let park = format!("POST /v1/tasks/{TASK}/steps/charge/park");
    let show = format!("GET {one}");
    let mut answers = vec![("GET /v1/dead-letters", 200, list.clone()), (show.as_str(), 200, whole.clone())];
    answers.push((park.as_str(), 200, json!({"task_id": TASK, "state": "in_progress"})));
    answers.extend(routes.iter().map(|(route, answer)| (route.as_str(), 200, answer.clone())));
    let stub = Stub::start(&answers).await;
    let ran = stub.run(&["dlq", "list", "--open", "--reason", "poison", "--limit", "1"]).await;
    assert!(ran.out.contains("poison  open   shop       charge"), "{}", ran.out);
    assert!(ran.out.ends_with(&format!("more: --before {TASK}\n")), "{}", ran.out);
    assert_eq!(stub.run(&["dlq", "list", "--json"]).await.json(), list);
    let ran = stub.run(&["dlq", "show", TASK]).await;
    assert!(
        ran.out.contains("reason      poison: it takes its workers down") && ran.out.contains("snapshot"),
        "{}",
        ran.out
    );
    assert_eq!(stub.run(&["dlq", "show", TASK, "--json"]).await.json(), whole);
    for (verb, done) in verbs {
        let ran = stub.run(&["dlq", verb, TASK, "--note", "mended"]).await;
        assert_eq!((ran.exit, ran.out), (Exit::Ok, format!("dead letter {TASK} is {done}\n")));
    }
    stub.run(&["dlq", "park", TASK, "charge", "--reason", "odd"]).await;
    let asked = stub.asked();
    assert_eq!(asked[0].0, "GET /v1/dead-letters?reason=poison&open=true&limit=1");
    assert_eq!(asked[4].1, json!({"reason": "mended", "by": "anna"}));
    assert_eq!(asked[7], (park, json!({"reason": "odd", "by": "anna"})));
}

#[tokio::test]
async fn limits_are_listed_set_and_removed() {
    let limit = json!({"namespace": "shop", "scope": "handler:charge", "max": 3, "used": 2, "waiting": 7,
        "set_by": "operator:anna", "reason": "the bank", "set_at": "2026-03-01T12:00:00Z"});
    let list = json!({"limits": [limit]});
    let stub = Stub::start(&[
        ("GET /v1/limits", 200, list.clone()),
        ("PUT /v1/limits/shop", 200, limit.clone()),
        ("DELETE /v1/limits/shop", 200, json!({"limits": []})),
    ])
    .await;
    let ran = stub.run(&["limit", "list"]).await;
    assert!(ran.out.contains("shop       handler:charge  3    2     7        operator:anna  the bank"), "{}", ran.out);
    assert_eq!(stub.run(&["limit", "set", "shop", "3", "--handler", "charge", "--json"]).await.json(), list);
    let ran = stub.run(&["limit", "remove", "shop", "--handler", "charge"]).await;
    assert_eq!(ran.out, "no limits; set one with `tasker limit set NAMESPACE MAX`\n");
    let asked = stub.asked();
    assert_eq!(asked[1].1, json!({"max": 3, "handler": "charge", "by": "anna"}));
    assert_eq!(asked[2], ("DELETE /v1/limits/shop?handler=charge".to_owned(), json!({"by": "anna"})));
}

#[tokio::test]
async fn a_refused_action_ends_with_code_1() {
    let title = "a task that is complete cannot cancel";
    let stub =
        Stub::start(&[(&format!("POST /v1/tasks/{TASK}/cancel"), 409, refusal("illegal_transition", 409, title))])
            .await;
    let ran = stub.run(&["task", "cancel", TASK]).await;
    assert_eq!((ran.exit, ran.err), (Exit::Failed, format!("error: {title}\n")));
    let ran = stub.run(&["task", "cancel", TASK, "--json"]).await;
    let error = json!({"error": {"type": "illegal_transition", "title": title, "exit_code": 1}});
    assert_eq!((ran.out.as_str(), serde_json::from_str::<Value>(&ran.err).unwrap()), ("", error));
}

#[tokio::test]
async fn an_unknown_task_or_step_ends_with_code_3() {
    let stub = Stub::start(&[(&task_path(), 404, refusal("task_not_found", 404, "no such task"))]).await;
    assert_eq!(stub.run(&["task", "show", TASK]).await.exit, Exit::NotFound);
    let stub = Stub::start(&[(&task_path(), 200, json!(order()))]).await;
    let ran = stub.run(&["step", "show", TASK, "chrge"]).await;
    assert_eq!(ran.exit, Exit::NotFound);
    assert!(ran.err.contains("its steps are validate, reserve_stock, charge, ship"), "{ran:?}");
}

#[tokio::test]
async fn a_service_that_is_not_there_ends_with_code_4_and_says_how_to_start_it() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let ran = run(&["health", "--url", &format!("http://127.0.0.1:{port}")], &[], "").await;
    assert_eq!(ran.exit, Exit::Unreachable);
    assert!(ran.err.contains("tasker dev") && ran.err.contains("TASKER_URL"), "{ran:?}");
}

#[tokio::test]
async fn something_else_at_the_address_ends_with_code_6() {
    let stub = Stub::start(&[("GET /v1/workers", 200, json!(["not a worker list"]))]).await;
    let ran = stub.run(&["worker", "list"]).await;
    assert_eq!(ran.exit, Exit::Broken);
    assert!(ran.err.contains("of the same version?"), "{ran:?}");
}

#[tokio::test]
async fn an_unwell_service_is_shown_and_ends_with_code_1() {
    let health = json!({"status": "unhealthy", "service": "orchestration", "version": "0.1.0",
        "checks": [{"component": "database", "healthy": false, "message": "no answer", "duration_us": 1500}],
        "breakers": [{"component": "pgmq", "state": "half_open"}, {"component": "http_handler", "host": "a.b", "state": "open"}]});
    let stub = Stub::start(&[("GET /health/detailed", 503, health.clone())]).await;
    let ran = stub.run(&["health"]).await;
    assert_eq!(ran.exit, Exit::Failed);
    assert!(ran.out.contains("✗  database  no answer  1ms"), "{ran:?}");
    assert!(ran.out.contains("✗  pgmq              half_open"), "{ran:?}");
    assert!(ran.out.contains("✗  http_handler a.b  open"), "{ran:?}");
    assert_eq!(stub.run(&["health", "--json"]).await.json(), health);
}

const TEMPLATE: &str = "name: order\nnamespace_name: shop\nversion: 1.0.0\nsteps:\n  - name: a\n    handler: { callable: noop }\n  \
                        - name: b\n    dependencies: [a]\n    handler: { callable: noop }\n";

fn registered(changed: bool) -> Value {
    json!({"template": {"template_id": TASK, "namespace": "shop", "name": "order", "version": "1.0.0", "description": null,
        "steps": 2, "identity_strategy": "always_unique", "checksum": "c", "created_at": "2026-03-01T12:00:00Z"},
        "changed": changed})
}

#[tokio::test]
async fn templates_of_a_directory_are_checked_and_registered() {
    let stub = Stub::start(&[("POST /v1/templates", 200, registered(true))]).await;
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("inner")).unwrap();
    fs::write(directory.path().join("inner/order.yml"), TEMPLATE).unwrap();
    fs::write(directory.path().join("notes.txt"), "not a template").unwrap();
    let path = directory.path().display().to_string();
    let ran = stub.run(&["template", "check", &path]).await;
    let file = directory.path().join("inner/order.yml").display().to_string();
    assert_eq!((ran.exit, ran.out), (Exit::Ok, format!("✓ {file}: shop/order@1.0.0, 2 steps\n")));
    let ran = stub.run(&["template", "apply", &path]).await;
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Ok, "✓ shop/order@1.0.0  registered\n"));
    assert_eq!(stub.asked(), [("POST /v1/templates".to_owned(), json!({"source": TEMPLATE, "file": file}))]);
}

#[tokio::test]
async fn nothing_is_registered_when_one_template_is_invalid() {
    let stub = Stub::start(&[("POST /v1/templates", 200, registered(true))]).await;
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("a.yaml"), TEMPLATE).unwrap();
    fs::write(directory.path().join("b.yaml"), TEMPLATE.replace("dependencies: [a]", "dependencies: [aa]")).unwrap();
    let path = directory.path().display().to_string();
    let ran = stub.run(&["template", "apply", &path]).await;
    assert_eq!((ran.exit, stub.asked()), (Exit::Failed, vec![]));
    assert!(ran.err.contains("b.yaml:") && ran.err.contains("aa"), "{ran:?}");
    let found = stub.run(&["template", "check", &path, "--json"]).await.json();
    assert_eq!(
        (&found["valid"], &found["files"][0]["valid"], &found["files"][1]["valid"]),
        (&json!(false), &json!(true), &json!(false))
    );
    assert_eq!(found["files"][0]["steps"], json!(2));
    assert!(!found["files"][1]["errors"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn a_template_that_the_service_refuses_is_named_with_its_file() {
    let refused = refusal("template_conflict", 409, "template `shop/order@1.0.0` is used by tasks");
    let stub = Stub::start(&[("POST /v1/templates", 409, refused)]).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("order.yaml");
    fs::write(&file, TEMPLATE).unwrap();
    let path = file.display().to_string();
    let ran = stub.run(&["template", "apply", &path]).await;
    assert_eq!(
        (ran.exit, ran.out),
        (Exit::Failed, format!("✗ {path}: template `shop/order@1.0.0` is used by tasks\n"))
    );
    let ran = stub.run(&["template", "apply", &path, "--json"]).await.json();
    assert_eq!(ran["refused"][0]["error"]["type"], json!("template_conflict"));
}

#[tokio::test]
async fn a_graph_is_drawn_from_a_file_or_from_the_service() {
    let mut detail = registered(true)["template"].clone();
    detail["definition"] = json!({});
    detail["source"] = json!(TEMPLATE);
    let stub = Stub::start(&[("GET /v1/templates/shop/order", 200, detail)]).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("order.yaml");
    fs::write(&file, TEMPLATE).unwrap();
    let from_file = stub.run(&["template", "graph", &file.display().to_string(), "--format", "mermaid"]).await;
    assert!(from_file.out.starts_with("flowchart TD\n"), "{from_file:?}");
    let registered = stub.run(&["template", "graph", "shop/order@1.0.0", "--format", "mermaid"]).await;
    assert_eq!(registered.out, from_file.out);
    assert_eq!(stub.asked()[0].0, "GET /v1/templates/shop/order?version=1.0.0");
    let text = stub.run(&["template", "graph", "shop/order"]).await.out;
    assert!(text.contains("2 steps in 2 levels"), "{text}");
    assert_eq!(stub.run(&["template", "graph", "nothing"]).await.exit, Exit::Usage);
}

#[tokio::test]
async fn a_workflow_of_another_format_becomes_a_template() {
    let workflow = json!({"name": "w", "schemaVersion": "1.5", "workflow": {
        "specification": {"tasks": [
            {"id": "a", "name": "a", "parents": [], "children": ["b"]},
            {"id": "b", "name": "b", "parents": ["a"], "children": []}]},
        "execution": {"tasks": [{"id": "a", "runtimeInSeconds": 2.0}, {"id": "b", "runtimeInSeconds": 1.0}]}}});
    let stub = Stub::start(&[("POST /v1/templates", 201, registered(true))]).await;
    let variables = [("TASKER_URL", stub.url.as_str())];
    let words = ["template", "import", "-", "--format", "wfformat", "--namespace", "wf"];
    let ran = run(&words, &variables, &workflow.to_string()).await;
    assert_eq!(ran.exit, Exit::Ok, "{ran:?}");
    let template = tasker_shared::template::parse(&ran.out, None).unwrap();
    assert_eq!((template.namespace.as_str(), template.steps.len()), ("wf", 2));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("w.yaml").display().to_string();
    run(&[&words[..], &["-o", &file]].concat(), &variables, &workflow.to_string()).await;
    assert_eq!(fs::read_to_string(&file).unwrap(), ran.out);
    let applied = run(&[&words[..], &["--apply"]].concat(), &variables, &workflow.to_string()).await;
    assert_eq!(applied.out, "✓ shop/order@1.0.0  registered\n");
    assert_eq!(stub.asked()[0].1["source"], json!(ran.out));
}

#[tokio::test]
async fn templates_and_workers_are_listed() {
    let templates = json!({"templates": [registered(true)["template"]]});
    let workers = json!({"workers": [{"worker_id": TASK, "name": "w-1", "namespaces": ["*"], "handlers": ["http", "noop"],
        "version": "0.1.0", "live": true, "running": 2, "started_at": "2026-03-01T12:00:00Z",
        "heartbeat_at": "2026-03-01T12:00:58Z"}]});
    let stub =
        Stub::start(&[("GET /v1/templates", 200, templates.clone()), ("GET /v1/workers", 200, workers.clone())]).await;
    assert!(stub.run(&["template", "list"]).await.out.contains("shop/order  1.0.0    2      1m 0s ago (12:00:00)"));
    assert_eq!(stub.run(&["template", "list", "--json"]).await.json(), templates);
    assert!(stub.run(&["worker", "list"]).await.out.contains("w-1     live   *           http noop  2        2s ago"));
    assert_eq!(stub.run(&["worker", "list", "--json"]).await.json(), workers);
}

#[tokio::test]
async fn completions_are_printed_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = run(&["completions", shell], &[], "").await;
        assert!(ran.exit == Exit::Ok && ran.out.contains("tasker"), "{shell}");
    }
}

#[tokio::test]
async fn a_database_that_is_not_given_is_asked_for() {
    let ran = run(&["db", "status"], &[], "").await;
    assert_eq!(ran.exit, Exit::Usage);
    assert!(ran.err.contains("DATABASE_URL"), "{ran:?}");
}

#[tokio::test]
async fn a_database_address_that_is_none_ends_with_code_4_and_keeps_the_password() {
    let ran = run(&["db", "migrate", "--database-url", "mysql://a:secret@b/c"], &[], "").await;
    assert_eq!(ran.exit, Exit::Unreachable, "{ran:?}");
    assert!(!ran.err.contains("secret"), "{ran:?}");
}

#[tokio::test]
async fn the_catalogue_of_metrics_is_listed_and_searched() {
    let all = run(&["metrics", "list", "--json"], &[], "").await.json()["metrics"].as_array().unwrap().clone();
    assert_eq!(all.len(), tasker_shared::metrics::CATALOG.len());
    let name = all[0]["prometheus_name"].as_str().unwrap();
    let ran = run(&["metrics", "list", name], &[], "").await;
    assert!(ran.exit == Exit::Ok && ran.out.lines().nth(1).unwrap().starts_with(name), "{ran:?}");
    assert_eq!(run(&["metrics", "list", "no_such_metric"], &[], "").await.exit, Exit::NotFound);
}

#[tokio::test]
async fn the_configuration_is_shown_with_where_each_value_is_written() {
    let variables = [("TASKER__WORKER__HTTP__ENABLED", "true"), ("DATABASE_URL", "postgres://a:secret@b/c")];
    let ran = run(&["config", "show", "--environment", "test"], &variables, "").await;
    assert!(ran.exit == Exit::Ok && ran.out.starts_with("environment test\n"), "{ran:?}");
    assert!(ran.out.contains("worker.http.enabled") && !ran.out.contains("secret"), "{ran:?}");
    let shown = run(&["config", "show", "--json"], &variables, "").await.json();
    let settings = shown["settings"].as_array().unwrap();
    let enabled = settings.iter().find(|setting| setting["key"] == "worker.http.enabled").unwrap();
    assert_eq!(enabled["value"], json!(true));
    assert!(enabled["origin"].as_str().unwrap().contains("TASKER__WORKER__HTTP__ENABLED"), "{enabled}");
}

#[tokio::test]
async fn everything_that_is_wrong_with_the_configuration_is_listed() {
    let ran = run(&["config", "check"], &[], "").await;
    let expected = "✓ the configuration for the environment development is valid\n";
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Ok, expected));
    let variables = [("TASKER__WORKER__HTTP__ENABLED", "perhaps"), ("TASKER__WORKER__HTP__ENABLED", "true")];
    let ran = run(&["config", "check"], &variables, "").await;
    assert_eq!(ran.exit, Exit::Usage);
    assert!(ran.err.contains("worker.http.enabled") && ran.err.contains("worker.htp.enabled"), "{ran:?}");
}
