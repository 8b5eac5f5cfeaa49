//! The HTTP API as its OpenAPI document promises it, asked of the real service.

use crate::{
    access::{AUTH, bearer, key},
    stage::Stage,
};
use anyhow::{Context, Result};
use reqwest::{Method, header::HeaderMap};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    sync::Mutex,
    time::{Duration, Instant},
};
use tasker_tests::{
    TestDatabase,
    process::{ORCHESTRATION, Process, WORKER},
};

/// Small limits, so that it takes little to pass them, and a worker's namespace apart.
const LIMITS: &[(&str, &str)] = &[
    ("TASKER__ORCHESTRATION__MAX_INPUT_BYTES", "2048"),
    ("TASKER__ORCHESTRATION__MAX_REQUEST_BYTES", "8192"),
    ("TASKER__ORCHESTRATION__MAX_BATCH_SUBMIT", "3"),
];

/// Nobody serves this namespace.
const IDLE: &str = "
name: idle
namespace_name: idle
version: 1.0.0
input_schema: {type: object, properties: {size: {type: integer}}}
steps:
  - {name: a, handler: {callable: noop}}
  - {name: b, dependencies: [a], handler: {callable: noop}}
";

const FAILS: &str = "
name: fails
namespace_name: stage
version: 1.0.0
steps:
  - {name: only, retry: {retryable: false}, handler: {callable: command, initialization: {argv: ['false']}}}
";

const NOBODY: &str = "/v1/tasks/00000000-0000-7000-8000-000000000000";

/// A service that asks who calls, whose every answer is compared with its document. Beside it runs one that does not ask.
struct Contract {
    stage: Stage,
    guarded: Process,
    worker: Process,
    base: String,
    http: reqwest::Client,
    strangers: reqwest::Client,
    weak: String,
    document: Value,
    seen: Mutex<BTreeSet<(String, String, String)>>,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Contract {
    async fn start() -> Result<Self> {
        let stage = Stage::start_with(LIMITS).await?;
        let worker = stage.worker(&[("TASKER__WORKER__NAMESPACES", "stage")])?;
        let settings = [LIMITS, &[("TASKER__AUTH__ENABLED", "true")]].concat();
        let guarded = Process::service(ORCHESTRATION, &stage.database.url, &settings)?;
        let base = guarded.url().await?;
        let document = reqwest::get(format!("{base}/openapi.json")).await?.json().await?;
        let http = bearer(&key(&stage.database.url, "admin", &["*"], &["*"]).await?)?;
        let weak = key(&stage.database.url, "weak", &["nothing:at-all"], &["*"]).await?;
        let (strangers, seen) = (reqwest::Client::new(), Mutex::default());
        let contract = Self { stage, guarded, worker, base, http, strangers, weak, document, seen };
        for source in [IDLE, FAILS] {
            assert_eq!(contract.yaml("/v1/templates", source).await?.status, 200);
        }
        Ok(contract)
    }

    async fn finish(mut self) -> Result<()> {
        self.worker.drain().await?;
        self.guarded.drain().await?;
        self.stage.orchestration.drain().await?;
        self.stage.drop().await
    }

    async fn get(&self, path: &str) -> Result<Answer> {
        self.send(Method::GET, path, self.http.get(format!("{}{path}", self.base))).await
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        self.send(Method::POST, path, self.http.post(format!("{}{path}", self.base)).json(body)).await
    }

    async fn yaml(&self, path: &str, source: &str) -> Result<Answer> {
        self.typed(path, "application/yaml", source).await
    }

    async fn typed(&self, path: &str, media_type: &str, body: &str) -> Result<Answer> {
        let request = self.http.post(format!("{}{path}", self.base)).header("content-type", media_type);
        self.send(Method::POST, path, request.body(body.to_owned())).await
    }

    /// Sends a request; its answer must be one that the document has for this operation.
    async fn send(&self, method: Method, path: &str, request: reqwest::RequestBuilder) -> Result<Answer> {
        let answer = request.send().await?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let media_type = headers.get("content-type").map(|t| t.to_str().map(str::to_owned)).transpose()?;
        let text = answer.text().await?;
        let (route, operation) = self.operation(&method, path).with_context(|| format!("{method} {path}"))?;
        let documented = &operation["responses"][status.to_string()];
        assert!(documented.is_object(), "{method} {route} answers {status}, which is not documented: {text}");
        let media_type = media_type.unwrap_or_default();
        let known = documented["content"].as_object().context("content")?;
        let kind = media_type.split(';').next().unwrap_or_default();
        assert!(known.contains_key(kind), "{method} {route} answers {status} as {media_type}: {known:?}");
        let body: Value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        if status >= 400 {
            assert_eq!(body["status"], status, "{body}");
            assert!(body["title"].is_string() && body["type"].is_string(), "{body}");
        }
        let seen = (route, method.as_str().to_lowercase(), status.to_string());
        self.seen.lock().expect("nobody panicked").insert(seen);
        Ok(Answer { status, headers, body })
    }

    /// The operation of the document that a path belongs to: the one with the fewest placeholders.
    fn operation(&self, method: &Method, path: &str) -> Option<(String, &Value)> {
        let path = path.split('?').next()?;
        let fits = |route: &str| {
            let (route, path) = (route.split('/'), path.split('/'));
            route.clone().count() == path.clone().count() && route.zip(path).all(|(r, p)| r.starts_with('{') || r == p)
        };
        let paths = self.document["paths"].as_object()?;
        let found = paths.iter().filter(|(route, _)| fits(route)).min_by_key(|(route, _)| route.matches('{').count());
        let (route, item) = found?;
        Some((route.clone(), item.get(method.as_str().to_lowercase())?))
    }

    /// What the document promises and nobody saw, without what tells of a broken service or a slow client.
    fn unseen(&self) -> Vec<String> {
        let seen = self.seen.lock().expect("nobody panicked");
        let mut unseen = Vec::new();
        for (route, item) in self.document["paths"].as_object().expect("paths") {
            for (method, operation) in item.as_object().expect("operations") {
                for status in operation["responses"].as_object().expect("responses").keys() {
                    let known = seen.contains(&(route.clone(), method.clone(), status.clone()));
                    if !known && !matches!(status.as_str(), "408" | "429" | "500" | "503" | "504") {
                        unseen.push(format!("{method} {route} {status}"));
                    }
                }
            }
        }
        unseen
    }

    /// A new task in the namespace that nobody serves.
    async fn open(&self) -> Result<String> {
        let answer = self.post("/v1/tasks", &json!({"namespace": "idle", "name": "idle"})).await?;
        assert_eq!(answer.status, 201, "{}", answer.body);
        Ok(format!("/v1/tasks/{}", answer.body["task_id"].as_str().context("an id")?))
    }

    /// A new task that has ended.
    async fn ended(&self, name: &str) -> Result<String> {
        let answer = self.post("/v1/tasks", &json!({"namespace": "stage", "name": name})).await?;
        let path = format!("/v1/tasks/{}", answer.body["task_id"].as_str().context("an id")?);
        let state = if name == "fails" { "error" } else { "complete" };
        assert_eq!(self.get(&format!("{path}/wait")).await?.body["state"], state);
        Ok(path)
    }

    async fn expect(&self, status: u16, path: &str, body: &Value) -> Result<()> {
        let answer = self.post(path, body).await?;
        assert_eq!(answer.status, status, "{path} {body}: {}", answer.body);
        Ok(())
    }

    /// The refusals of every route that asks who calls.
    async fn refuses_strangers(&self) -> Result<()> {
        for (route, item) in self.document["paths"].as_object().context("paths")? {
            for (method, operation) in item.as_object().context("operations")? {
                if operation["security"].is_null() {
                    continue;
                }
                let path = route.replace("{task_id}", NOBODY.rsplit('/').next().context("an id")?);
                let path = path.replace("{dead_letter_id}", NOBODY.rsplit('/').next().context("an id")?);
                let path = path.replace(['{', '}'], "");
                let method = Method::from_bytes(method.to_uppercase().as_bytes())?;
                let request = || self.strangers.request(method.clone(), format!("{}{path}", self.base));
                let unknown = self.send(method.clone(), &path, request()).await?;
                assert_eq!(unknown.status, 401, "{method} {route}");
                assert!(unknown.headers["www-authenticate"].to_str()?.starts_with("Bearer "), "{method} {route}");
                let weak = self.send(method.clone(), &path, request().bearer_auth(&self.weak)).await?;
                let title = weak.body["title"].as_str().unwrap_or_default();
                assert!(
                    weak.status == 403 && title.starts_with("`key:weak` lacks the permission `"),
                    "{route}: {title}"
                );
            }
        }
        Ok(())
    }

    /// Keys are not handed out by a service that does not know who asks.
    async fn keys_need_authentication(&self) -> Result<()> {
        let open = self.stage.orchestration.url().await?;
        let create = json!({"name": "x", "permissions": ["*"], "namespaces": ["*"]});
        for (method, path) in
            [(Method::GET, "/v1/keys"), (Method::POST, "/v1/keys"), (Method::POST, "/v1/keys/x/revoke")]
        {
            let request = self.strangers.request(method.clone(), format!("{open}{path}")).json(&create);
            assert_eq!(self.send(method, path, request).await?.body["type"], "authentication_off", "{path}");
        }
        Ok(())
    }

    /// The refusals of every route that takes a JSON body.
    async fn refuses_bodies(&self, path: &str) -> Result<()> {
        self.refuses_bodies_of(&Method::POST, path).await
    }

    async fn refuses_bodies_of(&self, method: &Method, path: &str) -> Result<()> {
        for (status, media_type, body) in [
            (400, "application/json", "{"),
            (415, "text/plain", "{}"),
            (422, "application/json", "{\"unknown_key\": 1}"),
            (413, "application/json", &format!("{{\"reason\": \"{}\"}}", "x".repeat(9_000))),
        ] {
            let request = self.http.request(method.clone(), format!("{}{path}", self.base));
            let request = request.header("content-type", media_type).body(body.to_owned());
            let answer = self.send(method.clone(), path, request).await?;
            assert_eq!(answer.status, status, "{path} {media_type}: {}", answer.body);
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_documented_answer_is_given_and_no_other() -> Result<()> {
    let api = Contract::start().await?;
    let (complete, failed) = (api.ended("chain").await?, api.ended("fails").await?);
    let nothing = json!({});

    for path in ["/v1/tasks", "/v1/tasks/batch", "/v1/templates", "/v1/templates/check"] {
        api.refuses_bodies(path).await?;
    }
    let keyed = json!({"namespace": "stage", "name": "chain", "idempotency_key": "once"});
    let first = api.post("/v1/tasks", &keyed).await?;
    let again = api.post("/v1/tasks", &keyed).await?;
    assert_eq!((first.status, again.status), (201, 200));
    assert_eq!(first.body["task_id"], again.body["task_id"]);
    assert_eq!(first.headers["location"], again.headers["location"]);
    api.expect(404, "/v1/tasks", &json!({"namespace": "stage", "name": "unknown"})).await?;
    api.expect(200, "/v1/tasks/batch", &json!({"tasks": [keyed]})).await?;
    api.expect(200, "/v1/templates/check", &json!({"source": IDLE})).await?;
    assert_eq!(api.yaml("/v1/templates", &IDLE.replace("b, dep", "c, dep")).await?.status, 200, "nobody uses it yet");
    api.open().await?;
    assert_eq!(api.yaml("/v1/templates", IDLE).await?.status, 409, "a task uses the other definition");

    for (status, path) in [
        (200, "/v1/tasks?state=complete"),
        (400, "/v1/tasks?stat=complete"),
        (422, "/v1/tasks?limit=0"),
        (200, "/v1/templates"),
        (200, "/v1/templates/stage/chain?version=1.0.0"),
        (404, "/v1/templates/stage/chain?version=2"),
        (400, "/v1/templates/stage/%00"),
        (200, "/v1/workers"),
        (200, "/health"),
        (200, "/health/live"),
        (200, "/health/ready"),
        (200, "/health/detailed"),
        (200, "/metrics"),
    ] {
        let answer = api.get(path).await?;
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
    }
    for look in ["", "/wait", "/history", "/explain"] {
        for (status, task) in [(200, complete.as_str()), (404, NOBODY), (400, "/v1/tasks/7")] {
            assert_eq!(api.get(&format!("{task}{look}")).await?.status, status, "{task}{look}");
        }
    }
    assert_eq!(api.get(&format!("{complete}/wait?timeout_ms=60001")).await?.status, 422);

    let resolution = json!({"result": {}});
    for action in
        ["cancel", "pause", "resume", "retry", "resolve", "steps/a/retry", "steps/a/cancel", "steps/a/resolve"]
    {
        let path = |task: &str| format!("{task}/{action}");
        let body = if action == "steps/a/resolve" { &resolution } else { &nothing };
        api.expect(404, &path(NOBODY), body).await?;
        api.expect(400, &path("/v1/tasks/7"), body).await?;
        api.expect(409, &path(&complete), body).await?;
        api.refuses_bodies(&path(&complete)).await?;
    }
    let task = api.open().await?;
    for action in ["pause", "resume", "cancel"] {
        api.expect(200, &format!("{task}/{action}"), &nothing).await?;
    }
    api.expect(200, &format!("{}/steps/a/cancel", api.open().await?), &nothing).await?;
    api.expect(200, &format!("{failed}/retry"), &json!({"by": "ada", "reason": "again"})).await?;
    assert_eq!(api.get(&format!("{failed}/wait")).await?.body["state"], "error");
    api.expect(200, &format!("{failed}/steps/only/retry"), &nothing).await?;
    assert_eq!(api.get(&format!("{failed}/wait")).await?.body["state"], "error");
    api.expect(200, &format!("{failed}/resolve"), &nothing).await?;
    let failed = api.ended("fails").await?;
    api.expect(200, &format!("{failed}/steps/only/resolve"), &resolution).await?;
    assert_eq!(api.get(&format!("{failed}/wait")).await?.body["state"], "complete");

    let create = json!({"name": "shop", "permissions": ["tasks:*"], "namespaces": ["shop"]});
    api.expect(201, "/v1/keys", &create).await?;
    api.expect(409, "/v1/keys", &create).await?;
    api.refuses_bodies("/v1/keys").await?;
    let keys = api.get("/v1/keys").await?.body["keys"].as_array().context("keys")?.clone();
    let made = keys.iter().find(|key| key["name"] == "shop").context("the key")?;
    api.expect(200, &format!("/v1/keys/{}/revoke", made["prefix"].as_str().context("a prefix")?), &nothing).await?;
    api.expect(404, "/v1/keys/unknown/revoke", &nothing).await?;
    api.expect(400, "/v1/keys/%00/revoke", &nothing).await?;
    for (status, path) in [(200, "/v1/audit"), (400, "/v1/audit?outcome=good"), (422, "/v1/audit?limit=0")] {
        assert_eq!(api.get(path).await?.status, status, "{path}");
    }
    dead_letters(&api, &complete).await?;
    limits(&api).await?;
    api.refuses_strangers().await?;
    api.keys_need_authentication().await?;
    assert_eq!(api.unseen(), Vec::<String>::new(), "documented and never given");
    api.finish().await
}

async fn dead_letters(api: &Contract, complete: &str) -> Result<()> {
    let nothing = json!({});
    let mut letters = Vec::new();
    for _ in 0..3 {
        let task = api.open().await?;
        api.expect(200, &format!("{task}/steps/a/park"), &json!({"by": "ada", "reason": "odd"})).await?;
        let id = task.rsplit('/').next().context("an id")?;
        let found = api.get(&format!("/v1/dead-letters?task_id={id}&open=true&reason=manual")).await?;
        let letter = found.body["dead_letters"][0]["dead_letter_id"].as_str().context("a letter")?.to_owned();
        letters.push(format!("/v1/dead-letters/{letter}"));
    }
    for (status, path) in [(404, NOBODY), (400, "/v1/tasks/7"), (409, complete)] {
        api.expect(status, &format!("{path}/steps/a/park"), &nothing).await?;
    }
    api.refuses_bodies(&format!("{complete}/steps/a/park")).await?;
    let (nobody, malformed) = ("/v1/dead-letters/00000000-0000-7000-8000-000000000000", "/v1/dead-letters/7");
    for (status, path) in [
        (400, "/v1/dead-letters?opne=true"),
        (422, "/v1/dead-letters?limit=0"),
        (200, letters[0].as_str()),
        (404, nobody),
        (400, malformed),
    ] {
        assert_eq!(api.get(path).await?.status, status, "{path}");
    }
    for (letter, action) in letters.iter().zip(["redrive", "resolve", "discard"]) {
        for (status, path) in [(200, letter.as_str()), (409, letter), (404, nobody), (400, malformed)] {
            api.expect(status, &format!("{path}/{action}"), &json!({"by": "ada"})).await?;
        }
        api.refuses_bodies(&format!("{letter}/{action}")).await?;
    }
    Ok(())
}

async fn limits(api: &Contract) -> Result<()> {
    let put = async |path: &str, body: &Value| {
        api.send(Method::PUT, path, api.http.put(format!("{}{path}", api.base)).json(body)).await
    };
    let delete =
        async |path: &str| api.send(Method::DELETE, path, api.http.delete(format!("{}{path}", api.base))).await;
    let limit = json!({"max": 7, "handler": "noop", "by": "ada", "reason": "less"});
    let set = put("/v1/limits/idle", &limit).await?;
    assert_eq!(
        (set.status, &set.body["scope"], &set.body["set_by"]),
        (200, &json!("handler:noop"), &json!("operator:key:admin"))
    );
    for (status, path, body) in [
        (404, "/v1/limits/idel", &limit),
        (400, "/v1/limits/%00", &limit),
        (422, "/v1/limits/idle", &json!({"max": 100_001})),
    ] {
        assert_eq!(put(path, body).await?.status, status, "{path}");
    }
    assert_eq!(api.get("/v1/limits").await?.body["limits"].as_array().map(Vec::len), Some(1));
    for (status, path) in [
        (200, "/v1/limits/idle?handler=noop"),
        (404, "/v1/limits/idle?handler=noop"),
        (400, "/v1/limits/idle?handlr=noop"),
        (422, "/v1/limits/idle?handler="),
    ] {
        assert_eq!(delete(path).await?.status, status, "{path}");
    }
    for method in [Method::PUT, Method::DELETE] {
        api.refuses_bodies_of(&method, "/v1/limits/idle").await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_name_the_place_and_what_to_do() -> Result<()> {
    let api = Contract::start().await?;
    let title = |answer: &Answer| answer.body["title"].as_str().unwrap_or_default().to_owned();

    let unknown = api.post("/v1/tasks", &json!({"namespace": "stage", "name": "chian"})).await?;
    assert_eq!(title(&unknown), "template `stage/chian` is not registered; did you mean `stage/chain`?");

    let large = json!({"namespace": "idle", "name": "idle", "input": {"text": "x".repeat(3_000)}});
    let large = api.post("/v1/tasks", &large).await?;
    assert_eq!(large.status, 413);
    assert!(title(&large).contains("at most 2048 are allowed (orchestration.max_input_bytes)"), "{}", large.body);
    let larger = api.typed("/v1/tasks", "application/json", &format!("\"{}\"", "x".repeat(9_000))).await?;
    assert_eq!(larger.status, 413);
    assert!(title(&larger).contains("(orchestration.max_request_bytes)"), "{}", larger.body);

    let input = api.post("/v1/tasks", &json!({"namespace": "idle", "name": "idle", "input": {"size": "big"}})).await?;
    assert_eq!(input.status, 422);
    assert!(input.body["errors"][0].as_str().is_some_and(|e| e.contains("/size")), "{}", input.body);

    let syntax = api.typed("/v1/tasks", "application/json", "{\"namespace\":\n nonsense}").await?;
    assert!(title(&syntax).contains("line 2 column"), "{}", syntax.body);
    let yaml = api.yaml("/v1/templates", "name: [\n").await?;
    assert_eq!(yaml.status, 422);
    assert!(
        yaml.body["errors"][0].as_str().is_some_and(|e| e.starts_with("2:") || e.starts_with("1:")),
        "{}",
        yaml.body
    );

    let cycle = "name: c\nnamespace_name: c\nversion: 1.0.0\nsteps:\n  \
                 - {name: a, dependencies: [b], handler: {callable: noop}}\n  \
                 - {name: b, dependencies: [a], handler: {callable: noop}}\n";
    let cycle = api.yaml("/v1/templates", cycle).await?;
    assert_eq!(cycle.status, 422);
    let told = cycle.body["errors"].to_string();
    assert!(told.contains("a -> b -> a") || told.contains("b -> a -> b"), "{told}");

    let task = api.open().await?;
    let step = api.post(&format!("{task}/steps/aa/retry"), &json!({})).await?;
    assert_eq!(step.status, 404);
    assert!(title(&step).ends_with("has no step `aa`; did you mean `a`?"), "{}", step.body);

    let many = json!({"tasks": vec![json!({"namespace": "idle", "name": "idle"}); 4]});
    let many = api.post("/v1/tasks/batch", &many).await?;
    assert_eq!((many.status, title(&many)), (422, "`tasks`: 4 tasks in one request; at most 3 are allowed".to_owned()));

    for (method, path, status) in [(Method::DELETE, "/v1/tasks", 405), (Method::GET, "/v1/nowhere", 404)] {
        let answer = api.http.request(method, format!("{}{path}", api.base)).send().await?;
        assert_eq!(answer.status(), status);
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
    }
    api.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_answers_each_task_by_itself() -> Result<()> {
    let api = Contract::start().await?;
    let tasks = json!({"tasks": [
        {"namespace": "idle", "name": "idle", "input": {"size": 1}},
        {"namespace": "idle", "name": "idel"},
        {"namespace": "idle", "name": "idle", "input": {"size": "big"}},
    ]});
    let answer = api.post("/v1/tasks/batch", &tasks).await?;
    assert_eq!(answer.status, 200);
    let [accepted, unknown, invalid] = answer.body["tasks"].as_array().context("answers")?.as_slice() else {
        anyhow::bail!("not three answers: {}", answer.body)
    };
    assert_eq!(accepted["created"], true, "{accepted}");
    assert_eq!((&unknown["status"], &invalid["status"]), (&json!(404), &json!(422)), "{}", answer.body);
    let tasks = json!({"tasks": [
        {"namespace": "idle", "name": "idle", "input": {"text": "\u{0}"}},
        {"namespace": "idle", "name": "idle", "reason": "\u{0}"},
        {"namespace": "idle", "name": "idle", "input": {"text": "well"}},
    ]});
    let answer = api.post("/v1/tasks/batch", &tasks).await?;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let statuses: Vec<_> = answer.body["tasks"].as_array().context("answers")?.iter().map(|t| &t["status"]).collect();
    assert_eq!(statuses, [&json!(422), &json!(422), &Value::Null], "{}", answer.body);
    assert_eq!(api.get("/v1/tasks").await?.body["tasks"].as_array().map(Vec::len), Some(2));
    api.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_callers_trace_is_the_tasks_correlation() -> Result<()> {
    let api = Contract::start().await?;
    let body = json!({"namespace": "idle", "name": "idle"});
    let request = api.http.post(format!("{}/v1/tasks", api.base)).json(&body);
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let answer = api.send(Method::POST, "/v1/tasks", request.header("traceparent", traceparent)).await?;
    let id = answer.body["correlation_id"].as_str().context("an id")?.replace('-', "");
    assert_eq!(id, "4bf92f3577b34da6a3ce929d0e0e4736");
    let given = json!({"namespace": "idle", "name": "idle", "correlation_id": "11111111-2222-4333-8444-555555555555"});
    let given = api.post("/v1/tasks", &given).await?;
    assert_eq!(given.body["correlation_id"], "11111111-2222-4333-8444-555555555555");
    let found = api.get("/v1/tasks?correlation_id=11111111-2222-4333-8444-555555555555").await?;
    assert_eq!(found.body["tasks"][0]["task_id"], given.body["task_id"]);
    api.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_is_answered_when_the_task_ends_or_the_time_does() -> Result<()> {
    let api = Contract::start().await?;
    let task = api.open().await?;
    let started = Instant::now();
    let patient = api.get(&format!("{task}/wait?timeout_ms=200")).await?;
    assert_eq!((patient.status, &patient.body["state"]), (200, &json!("in_progress")));
    assert!(started.elapsed() >= Duration::from_millis(200));
    let path = format!("{task}/wait?timeout_ms=60000");
    let waiting = api.get(&path);
    let ending = async {
        // the wait is under way when this is answered
        api.get("/health/live").await?;
        api.post(&format!("{task}/cancel"), &json!({})).await
    };
    let (waited, _) = tokio::try_join!(waiting, ending)?;
    assert_eq!(waited.body["state"], "cancelled");
    assert!(started.elapsed() < Duration::from_secs(30));
    api.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_tasks_follow_each_other_without_gap_or_repeat() -> Result<()> {
    let api = Contract::start().await?;
    let mut expected = Vec::new();
    for _ in 0..7 {
        expected.insert(0, api.open().await?.replace("/v1/tasks/", ""));
    }
    api.ended("chain").await?;
    let (mut found, mut page) = (Vec::new(), "/v1/tasks?namespace=idle&limit=3".to_owned());
    loop {
        let answer = api.get(&page).await?;
        let tasks = answer.body["tasks"].as_array().context("tasks")?.clone();
        assert!(tasks.len() <= 3);
        found.extend(tasks.iter().map(|task| task["task_id"].as_str().unwrap_or_default().to_owned()));
        match answer.body["next"].as_str() {
            Some(next) => page = format!("/v1/tasks?namespace=idle&limit=3&before={next}"),
            None => break,
        }
    }
    assert_eq!(found, expected, "the newest first");
    api.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_beyond_what_is_stored_is_refused() -> Result<()> {
    let api = Contract::start().await?;
    let audit = api.get("/v1/audit?since=-262143-01-01T00:00:00Z").await?;
    let told = "`since`: must be a time between the years 1 and 9999".to_owned();
    assert_eq!((audit.status, audit.body["title"].as_str()), (422, Some(told.as_str())));
    assert_eq!(api.get("/v1/audit?since=0001-01-01T00:00:00Z").await?.status, 200);
    for (at, status) in
        [("%2B262142-01-01T00:00:00Z", 422), ("-262143-01-01T00:00:00Z", 422), ("9999-01-01T00:00:00Z", 201)]
    {
        let task = json!({"namespace": "idle", "name": "idle", "run_at": at.replace("%2B", "+")});
        let answer = api.post("/v1/tasks", &task).await?;
        assert_eq!(answer.status, status, "{}", answer.body);
    }
    api.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_everybody_may_do_everything_a_service_answers_to_the_names_of_this_machine_alone() -> Result<()> {
    // another test may have been first
    let _ = rustls::crypto::ring::default_provider().install_default();
    let database = TestDatabase::create().await?;
    let http = reqwest::Client::new();
    for program in [ORCHESTRATION, WORKER] {
        let other = &[("TASKER__AUTH__ALLOW_UNAUTHENTICATED_PUBLIC_ADDRESS", "true")][..];
        for (settings, foreign) in [(&[][..], 403), (AUTH, 200), (other, 200)] {
            let mut process = Process::service(program, &database.url, settings)?;
            let url = process.url().await?;
            let port = url.rsplit(':').next().context("a port")?;
            let ask = async |host: &str| -> Result<(u16, String)> {
                let answer = http.get(format!("{url}/health")).header("host", host).send().await?;
                Ok((answer.status().as_u16(), answer.text().await?))
            };
            for local in ["localhost", "LOCALHOST:1", &format!("127.0.0.1:{port}"), "[::1]:80", "127.1.2.3"] {
                assert_eq!(ask(local).await?.0, 200, "{local}");
            }
            for host in ["evil.example", &format!("evil.example:{port}"), "localhost.evil.example", "10.0.0.1", "a b"] {
                let (status, told) = ask(host).await?;
                assert_eq!(status, foreign, "{host} {settings:?}");
                assert!(status == 200 || told.contains("auth.enabled = true"), "{told}");
            }
            process.drain().await?;
        }
    }
    database.drop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_make_room_for_those_who_ask() -> Result<()> {
    // another test may have been first
    let _ = rustls::crypto::ring::default_provider().install_default();
    let database = TestDatabase::create().await?;
    for (program, setting) in [
        (ORCHESTRATION, "TASKER__ORCHESTRATION__MAX_HTTP_CONNECTIONS"),
        (WORKER, "TASKER__WORKER__MAX_HTTP_CONNECTIONS"),
    ] {
        let mut process = Process::service(program, &database.url, &[(setting, "20")])?;
        let url = process.url().await?;
        let address = url.strip_prefix("http://").context("an address")?;
        let mut silent = Vec::new();
        for _ in 0..100 {
            silent.push(tokio::net::TcpStream::connect(address).await?);
        }
        assert_eq!(reqwest::get(format!("{url}/health")).await?.status(), 200);
        let closed = silent.iter().filter(|connection| !matches!(connection.try_read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock));
        assert!(closed.count() >= 80);
        process.drain().await?;
    }
    database.drop().await
}
