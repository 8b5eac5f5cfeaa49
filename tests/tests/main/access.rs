//! Who may do what, asked of the real services: keys, tokens, namespaces, the audit.

use anyhow::{Context as _, Result, ensure};
use axum::{Json, Router, routing::get};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use nix::unistd::{User, getuid};
use reqwest::{
    Client, Method,
    header::{AUTHORIZATION, HeaderMap, HeaderValue},
};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use serde_json::{Value, json};
use tasker_shared::{
    access::ApiKey,
    api::{AuditEntry, AuditFilter},
    metrics::Metrics,
    storage::{
        Database,
        api_keys::{self, New},
        audit,
    },
};
use tasker_tests::{
    TestDatabase,
    process::{ORCHESTRATION, Process, TASKER, WORKER, command},
    system::{connect, eventually},
};

pub(crate) const AUTH: &[(&str, &str)] = &[("TASKER__AUTH__ENABLED", "true"), ("TASKER__AUTH__KEY_CACHE_MS", "0")];

pub(crate) const NOBODY: &str = "/v1/tasks/00000000-0000-7000-8000-000000000000";

fn template(namespace: &str) -> String {
    format!(
        "name: one\nnamespace_name: {namespace}\nversion: 1.0.0\nsteps:\n  - {{name: a, handler: {{callable: noop}}}}\n"
    )
}

/// Stores a key with these words, whether they mean anything or not.
pub(crate) async fn key(url: &str, name: &str, permissions: &[&str], namespaces: &[&str]) -> Result<String> {
    let database = connect(url, Metrics::disabled()).await?;
    let key = ApiKey::generate();
    let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    let (permissions, namespaces) = (owned(permissions), owned(namespaces));
    let new =
        New { name, permissions: &permissions, namespaces: &namespaces, expires_at: None, created_by: "the test" };
    api_keys::insert(&mut database.session("key").await?, &key, &new).await?.context("the name is free")?;
    database.pool().close().await;
    Ok(key.expose().to_owned())
}

/// A client that sends a credential with everything.
pub(crate) fn bearer(credential: &str) -> Result<Client> {
    // another test may have been first
    let _ = rustls::crypto::ring::default_provider().install_default();
    let value = HeaderValue::from_str(&format!("Bearer {credential}"))?;
    Ok(Client::builder().default_headers(HeaderMap::from_iter([(AUTHORIZATION, value)])).build()?)
}

/// A service that asks who calls, with its database.
pub(crate) struct Guarded {
    pub(crate) database: TestDatabase,
    pub(crate) pool: Database,
    process: Process,
    pub(crate) base: String,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn title(&self) -> &str {
        self.body["title"].as_str().unwrap_or_default()
    }
}

impl Guarded {
    pub(crate) async fn start(settings: &[(&str, &str)]) -> Result<Self> {
        let database = TestDatabase::create().await?;
        let pool = connect(&database.url, Metrics::disabled()).await?;
        let process = Process::service(ORCHESTRATION, &database.url, &[AUTH, settings].concat())?;
        let base = process.url().await?;
        Ok(Self { database, pool, process, base })
    }

    pub(crate) async fn key(&self, name: &str, permissions: &[&str], namespaces: &[&str]) -> Result<Client> {
        bearer(&key(&self.database.url, name, permissions, namespaces).await?)
    }

    pub(crate) async fn ask(&self, client: &Client, method: Method, path: &str, body: Value) -> Result<Answer> {
        let request = client.request(method.clone(), format!("{}{path}", self.base));
        let request = if method == Method::GET { request } else { request.json(&body) };
        let answer = request.send().await?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let text = answer.text().await?;
        Ok(Answer { status, headers, body: serde_json::from_str(&text).unwrap_or(Value::String(text)) })
    }

    pub(crate) async fn get(&self, client: &Client, path: &str) -> Result<Answer> {
        self.ask(client, Method::GET, path, Value::Null).await
    }

    pub(crate) async fn post(&self, client: &Client, path: &str, body: Value) -> Result<Answer> {
        self.ask(client, Method::POST, path, body).await
    }

    /// A client with every permission, and a task in each of two namespaces.
    pub(crate) async fn two_namespaces(&self) -> Result<(Client, [String; 2])> {
        let admin = self.key("admin", &["*"], &["*"]).await?;
        let mut tasks = Vec::new();
        for namespace in ["mine", "theirs"] {
            let applied = self.post(&admin, "/v1/templates", json!({"source": template(namespace)})).await?;
            ensure!(applied.status == 200, "{}", applied.body);
            let task = self.post(&admin, "/v1/tasks", json!({"namespace": namespace, "name": "one"})).await?;
            tasks.push(format!("/v1/tasks/{}", task.body["task_id"].as_str().context("an id")?));
        }
        Ok((admin, [tasks.remove(0), tasks.remove(0)]))
    }

    async fn audit(&self) -> Result<Vec<AuditEntry>> {
        let mut session = self.pool.session("look").await?;
        Ok(audit::list(&mut session, &AuditFilter::default(), 1000).await?)
    }

    /// What the audit has of an action: who, outcome and status.
    async fn audited(&self, action: &str) -> Result<Vec<(String, String, Option<u16>)>> {
        let all = self.audit().await?.into_iter().filter(|entry| entry.action == action);
        Ok(all.map(|entry| (entry.principal, entry.outcome.to_string(), entry.status)).collect())
    }

    pub(crate) async fn execute(&self, sql: &str) -> Result<u64> {
        Ok(sqlx::raw_sql(sql).execute(self.pool.pool()).await?.rows_affected())
    }

    pub(crate) async fn finish(mut self) -> Result<()> {
        self.process.drain().await?;
        self.pool.pool().close().await;
        self.database.drop().await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_made_on_the_database_works_at_the_service_and_ends_when_it_is_revoked() -> Result<()> {
    let service = Guarded::start(&[]).await?;
    let url = service.database.url.clone();
    let tasker = async |arguments: &[&str], environment: &[(&str, &str)]| {
        let mut command = command(TASKER)?;
        command.args(arguments).env("DATABASE_URL", &url).env("TASKER_URL", &service.base).env("USER", "ada");
        command.env("XDG_CONFIG_HOME", "/nonexistent").envs(environment.iter().copied());
        let ran = command.output().await?;
        let text = format!("{}{}", String::from_utf8(ran.stdout.clone())?, String::from_utf8(ran.stderr)?);
        Ok::<_, anyhow::Error>((ran.status.code(), String::from_utf8(ran.stdout)?, text))
    };
    let (code, key, told) =
        tasker(&["key", "create", "ops", "--permission", "tasks:*", "--namespace", "*", "--expires", "in 1h"], &[])
            .await?;
    assert_eq!(code, Some(0), "{told}");
    let key = key.trim();
    assert!(told.contains("only time the key is shown"), "{told}");

    let stored: String =
        sqlx::query_scalar("select k::text from tasker.api_keys k").fetch_one(service.pool.pool()).await?;
    let secret = key.rsplit('_').next().context("a secret")?;
    assert!(stored.contains("ops") && !stored.contains(secret), "{stored}");
    assert!(!service.audit().await?.iter().any(|entry| format!("{entry:?}").contains(secret)));

    let client = bearer(key)?;
    assert_eq!(service.get(&client, "/v1/tasks").await?.status, 200);
    assert_eq!(tasker(&["task", "list"], &[("TASKER_TOKEN", key)]).await?.0, Some(0));
    assert_eq!(tasker(&["task", "list", "--token", key], &[]).await?.0, Some(0));
    let (code, _, told) = tasker(&["task", "list"], &[]).await?;
    assert!(code == Some(1) && told.contains("--token or TASKER_TOKEN"), "{told}");
    let (code, _, told) = tasker(&["template", "list", "--token", key], &[]).await?;
    assert!(code == Some(1) && told.contains("`key:ops` lacks the permission `templates:read`"), "{told}");

    let prefix = key.split('_').nth(1).context("a prefix")?;
    let (_, list, _) = tasker(&["key", "list", "--json"], &[]).await?;
    let list: Value = serde_json::from_str(&list)?;
    let listed = &list["keys"][0];
    assert_eq!((&listed["name"], &listed["active"], &listed["prefix"]), (&json!("ops"), &json!(true), &json!(prefix)));
    let user = User::from_uid(getuid())?.context("a name")?.name;
    assert!(listed["last_used_at"].is_string() && listed["created_by"] == format!("cli:{user}"), "{listed}");
    assert!(!list.to_string().contains(secret));

    let (code, _, told) = tasker(&["key", "create", "ops", "--permission", "*", "--namespace", "*"], &[]).await?;
    assert!(code == Some(1) && told.contains("`ops` was given to an API key before"), "{told}");
    let (code, _, told) = tasker(&["key", "create", "x", "--permission", "task:read", "--namespace", "*"], &[]).await?;
    assert!(code == Some(2) && told.contains("did you mean `tasks:read`?"), "{told}");
    let (code, _, told) = tasker(&["key", "revoke", "abcdefghijkl"], &[]).await?;
    assert!(code == Some(3) && told.contains("tasker key list"), "{told}");

    assert_eq!(tasker(&["key", "revoke", prefix], &[]).await?.0, Some(0));
    let refused = service.get(&client, "/v1/tasks").await?;
    assert_eq!((refused.status, refused.title()), (401, "the API key `ops` is revoked"));
    let made = (format!("cli:{user}"), "done".to_owned(), None);
    assert_eq!(service.audited("key.create").await?, std::slice::from_ref(&made));
    assert_eq!(service.audited("key.revoke").await?, [made]);
    let from: Vec<_> = service.audit().await?.into_iter().filter(|entry| entry.principal.starts_with("cli:")).collect();
    assert!(
        from.iter().all(|entry| entry.address.as_ref().is_some_and(|a| a.starts_with("database user "))),
        "{from:?}"
    );
    service.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_key_that_is_known_whole_and_in_force_opens_the_door() -> Result<()> {
    let service = Guarded::start(&[]).await?;
    let key = key(&service.database.url, "ci", &["*"], &["*"]).await?;
    assert_eq!(service.get(&bearer(&key)?, "/v1/tasks").await?.status, 200);
    let last = if key.ends_with('x') { "y" } else { "x" };
    for (credential, reason) in [
        (format!("{}{last}", &key[..key.len() - 1]), "the API key is not known"),
        (ApiKey::generate().expose().to_owned(), "the API key is not known"),
        ("tsk_short".to_owned(), "an API key looks like tsk_PREFIX_SECRET"),
        ("eyJhbGciOiJub25lIn0.e30.".to_owned(), "the credential is no API key, and tokens are not accepted here"),
    ] {
        let refused = service.get(&bearer(&credential)?, "/v1/tasks").await?;
        assert_eq!((refused.status, refused.title()), (401, reason));
        let challenge = refused.headers["www-authenticate"].to_str()?;
        assert!(challenge.starts_with("Bearer realm=\"tasker\", error=\"invalid_token\""), "{challenge}");
    }
    let stranger = Client::new();
    let refused = service.get(&stranger, "/v1/tasks").await?;
    assert_eq!((refused.status, refused.headers["www-authenticate"].to_str()?), (401, "Bearer realm=\"tasker\""));
    for open in ["/health", "/health/live", "/health/ready", "/health/detailed", "/", "/openapi.json", "/docs/"] {
        assert_eq!(service.get(&stranger, open).await?.status, 200, "{open}");
    }
    assert_eq!(service.get(&stranger, "/metrics").await?.status, 401);
    assert_eq!(service.ask(&stranger, Method::HEAD, "/v1/tasks", Value::Null).await?.status, 401);
    let wrong = service.ask(&stranger, Method::DELETE, "/v1/tasks", Value::Null).await?;
    assert_eq!((wrong.status, wrong.headers["allow"].to_str()?), (405, "POST,GET,HEAD"));
    service.execute("update tasker.api_keys set expires_at = clock_timestamp() where name = 'ci'").await?;
    let expired = service.get(&bearer(&key)?, "/v1/tasks").await?;
    assert_eq!((expired.status, expired.title()), (401, "the API key `ci` is expired"));
    service.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checked_key_is_remembered_for_as_long_as_is_said_and_not_past_its_end() -> Result<()> {
    let service = Guarded::start(&[("TASKER__AUTH__KEY_CACHE_MS", "3600000")]).await?;
    let (long, short) =
        (service.key("long", &["*"], &["*"]).await?, key(&service.database.url, "short", &["*"], &["*"]).await?);
    service
        .execute("update tasker.api_keys set expires_at = clock_timestamp() + interval '1 second' where name = 'short'")
        .await?;
    for client in [&long, &bearer(&short)?] {
        assert_eq!(service.get(client, "/v1/tasks").await?.status, 200);
    }
    service.execute("update tasker.api_keys set revoked_at = clock_timestamp()").await?;
    assert_eq!(service.get(&long, "/v1/tasks").await?.status, 200, "it is remembered");
    let same_prefix = format!("{}{}", &short[..17], &ApiKey::generate().expose()[17..]);
    assert_eq!(service.get(&bearer(&same_prefix)?, "/v1/tasks").await?.status, 401, "the prefix alone is nothing");
    let short = bearer(&short)?;
    eventually("the key has ended", async || Ok(service.get(&short, "/v1/tasks").await?.status == 401)).await?;
    service.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_sees_and_touches_its_own_namespaces_alone() -> Result<()> {
    let service = Guarded::start(&[]).await?;
    let (admin, [mine, theirs]) = service.two_namespaces().await?;
    let caller = service.key("caller", &["tasks:*", "templates:*", "workers:read"], &["mine"]).await?;

    let namespaces = async |client: &Client, path: &str, list: &str| {
        let answer = service.get(client, path).await?;
        let all = answer.body[list].as_array().context("a list")?.clone();
        Ok::<_, anyhow::Error>(
            all.iter().map(|one| one["namespace"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>(),
        )
    };
    for (path, list) in [("/v1/tasks", "tasks"), ("/v1/templates", "templates")] {
        assert_eq!(namespaces(&caller, path, list).await?, ["mine"], "{path}");
        assert_eq!(namespaces(&admin, path, list).await?.len(), 2, "{path}");
    }
    assert!(namespaces(&caller, "/v1/tasks?namespace=theirs", "tasks").await?.is_empty());

    for look in ["", "/history", "/explain", "/wait?timeout_ms=1"] {
        assert_eq!(service.get(&caller, &format!("{mine}{look}")).await?.status, 200, "{look}");
        let hidden = service.get(&caller, &format!("{theirs}{look}")).await?;
        let unknown = service.get(&caller, &format!("{NOBODY}{look}")).await?;
        let same = hidden.body.to_string().replace(&theirs[10..], &NOBODY[10..]);
        assert_eq!((hidden.status, same), (404, unknown.body.to_string()), "{look}: like one that does not exist");
    }
    for action in
        ["cancel", "pause", "resume", "retry", "resolve", "steps/a/retry", "steps/a/cancel", "steps/a/resolve"]
    {
        let answer = service.post(&caller, &format!("{theirs}/{action}"), json!({"result": {}})).await?;
        assert_eq!(answer.status, 404, "{action}");
    }
    assert_eq!(service.get(&admin, &theirs).await?.body["state"], "in_progress", "nothing happened to it");

    let told = "`key:caller` has no permission in the namespace `theirs`";
    let submit = |namespace: &str| json!({"namespace": namespace, "name": "one"});
    let refused = service.post(&caller, "/v1/tasks", submit("theirs")).await?;
    assert_eq!((refused.status, refused.title()), (403, told));
    let tasks = json!({"tasks": [submit("theirs"), submit("mine"), submit("theirs")]});
    let batch = service.post(&caller, "/v1/tasks/batch", tasks).await?;
    let answers = batch.body["tasks"].as_array().context("answers")?;
    assert_eq!(
        (&answers[0]["status"], &answers[1]["created"], &answers[2]["title"]),
        (&json!(403), &json!(true), &json!(told))
    );
    assert_eq!(service.post(&caller, "/v1/templates", json!({"source": template("theirs")})).await?.status, 403);
    assert_eq!(service.post(&caller, "/v1/templates", json!({"source": template("mine")})).await?.status, 200);
    assert_eq!(service.get(&caller, "/v1/templates/theirs/one").await?.status, 403);
    assert_eq!(service.get(&caller, "/v1/templates/mine/one").await?.status, 200);
    let unknown = service.post(&caller, "/v1/tasks", json!({"namespace": "mine", "name": "ones"})).await?;
    assert!(unknown.status == 404 && !unknown.title().contains("did you mean"), "{}", unknown.body);

    for (name, namespaces) in
        [("for_all", "*"), ("for_mine", "mine"), ("for_theirs", "theirs"), ("for_both", "mine,theirs")]
    {
        let list = format!("'{{{namespaces}}}'");
        service
            .execute(&format!(
                "insert into tasker.workers (id, name, namespaces, handlers, version)
            values (gen_random_uuid(), '{name}', {list}, '{{}}', '1')"
            ))
            .await?;
    }
    let workers = service.get(&caller, "/v1/workers").await?.body["workers"].clone();
    let shown: Vec<_> =
        workers.as_array().context("workers")?.iter().map(|w| (w["name"].clone(), w["namespaces"].clone())).collect();
    assert_eq!(
        shown,
        [(json!("for_all"), json!(["*"])), (json!("for_both"), json!(["mine"])), (json!("for_mine"), json!(["mine"]))]
    );
    service.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_operators_do_and_try_to_do_is_written_down_in_their_own_name() -> Result<()> {
    let service = Guarded::start(&[]).await?;
    let (admin, [mine, theirs]) = service.two_namespaces().await?;
    let operator = service.key("ops", &["tasks:operate", "tasks:write"], &["mine"]).await?;
    let reader = service.key("reader", &["tasks:read"], &["mine"]).await?;

    let done = service.post(&operator, &format!("{mine}/pause"), json!({"by": "somebody else"})).await?;
    assert_eq!(done.status, 200, "{}", done.body);
    assert_eq!(service.post(&operator, &format!("{mine}/retry"), json!({})).await?.status, 409);
    assert_eq!(service.post(&operator, &format!("{theirs}/cancel"), json!({})).await?.status, 404);
    assert_eq!(service.post(&reader, &format!("{mine}/cancel"), json!({})).await?.status, 403);
    assert_eq!(service.post(&Client::new(), &format!("{mine}/cancel"), json!({})).await?.status, 401);
    assert_eq!(service.get(&Client::new(), "/v1/tasks").await?.status, 401);

    let history = service.get(&admin, &format!("{mine}/history")).await?.body["transitions"].to_string();
    assert!(history.contains("operator:key:ops") && !history.contains("somebody else"), "{history}");
    let submitted =
        service.post(&operator, "/v1/tasks", json!({"namespace": "mine", "name": "one", "initiator": "me"})).await?;
    let path = format!("/v1/tasks/{}", submitted.body["task_id"].as_str().context("an id")?);
    assert_eq!(service.get(&admin, &path).await?.body["initiator"], "key:ops");

    let line = |who: &str, outcome: &str, status| (who.to_owned(), outcome.to_owned(), Some(status));
    assert_eq!(service.audited("task.pause").await?, [line("key:ops", "done", 200)]);
    assert_eq!(service.audited("task.retry").await?, [line("key:ops", "refused", 409)]);
    let cancels =
        [line("unknown", "refused", 401), line("key:reader", "refused", 403), line("key:ops", "refused", 404)];
    assert_eq!(service.audited("task.cancel").await?, cancels);
    assert_eq!(service.audited("access").await?, [], "a look without a name is no attempt");

    let paused = service.get(&admin, "/v1/audit?action=task.pause").await?.body["entries"][0].clone();
    assert_eq!(paused["target"], json!(format!("{mine}/pause")));
    assert_eq!(paused["address"], "127.0.0.1");
    assert_eq!(paused["request_id"].as_str(), Some(done.headers["x-request-id"].to_str()?));
    let refused =
        service.get(&admin, "/v1/audit?outcome=refused&principal=key:reader").await?.body["entries"][0].clone();
    assert_eq!(refused["reason"], "`key:reader` lacks the permission `tasks:operate`");
    let applied = service.get(&admin, "/v1/audit?action=template.apply&limit=1").await?.body;
    assert_eq!(applied["entries"][0]["target"], "theirs/one@1.0.0");
    let next = applied["next"].as_i64().context("there is another")?;
    let older = service.get(&admin, &format!("/v1/audit?action=template.apply&before={next}")).await?.body;
    assert_eq!(older["entries"][0]["target"], "mine/one@1.0.0");
    assert_eq!(service.get(&reader, "/v1/audit").await?.status, 403);

    for change in ["update tasker.audit_log set principal = 'nobody'", "truncate tasker.audit_log"] {
        let refused = service.execute(change).await.unwrap_err().to_string();
        assert!(refused.contains("never changed"), "{refused}");
    }
    service.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_of_a_key_are_written_down_however_many_strangers_come() -> Result<()> {
    let service = Guarded::start(&[]).await?;
    let (_, [mine, _]) = service.two_namespaces().await?;
    let reader = service.key("reader", &["tasks:read"], &["mine"]).await?;
    let stranger = bearer(ApiKey::generate().expose())?;
    for _ in 0..110 {
        assert_eq!(service.get(&stranger, "/v1/tasks").await?.status, 401);
    }
    assert_eq!(service.audited("access").await?.len(), 100);
    assert_eq!(service.post(&reader, &format!("{mine}/cancel"), json!({})).await?.status, 403);
    let refused = ("key:reader".to_owned(), "refused".to_owned(), Some(403));
    assert_eq!(service.audited("task.cancel").await?, [refused]);
    service.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_ends_hands_out_none_that_ends_later() -> Result<()> {
    let service = Guarded::start(&[]).await?;
    let ends = service.key("ends", &["keys:admin", "tasks:read"], &["*"]).await?;
    let set = "update tasker.api_keys set expires_at = '2099-01-02T00:00:00Z' where name = 'ends'";
    service.execute(set).await?;
    let ask = async |name: &str, end: Option<&str>| {
        let wanted = json!({"name": name, "permissions": ["tasks:read"], "namespaces": ["*"], "expires_at": end});
        service.post(&ends, "/v1/keys", wanted).await
    };
    for later in [None, Some("2099-01-02T00:00:01Z")] {
        let refused = ask("later", later).await?;
        assert!(
            refused.status == 403 && refused.title().contains("cannot hand out a key that ends later"),
            "{later:?}"
        );
        assert!(refused.body["detail"].as_str().context("what to do")?.contains("2099-01-02T00:00:00"), "{later:?}");
    }
    for (name, end) in [("same", "2099-01-02T00:00:00Z"), ("sooner", "2099-01-01T00:00:00Z")] {
        assert_eq!(ask(name, Some(end)).await?.status, 201, "{end}");
    }
    service.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_action_whose_caller_has_gone_is_done_and_written_down() -> Result<()> {
    let service = Guarded::start(&[]).await?;
    let (admin, [mine, _]) = service.two_namespaces().await?;
    let mut holder = service.pool.pool().begin().await?;
    let id = mine.rsplit('/').next().context("an id")?;
    sqlx::query(&format!("select 1 from tasker.tasks where id = '{id}' for update")).execute(&mut *holder).await?;
    let request =
        admin.post(format!("{}{mine}/cancel", service.base)).timeout(std::time::Duration::from_secs(20)).send();
    let asking = tokio::spawn(request);
    let waits = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like '-- lock_task%' and datname = current_database()";
    let blocked = async || Ok(sqlx::query_scalar::<_, i64>(waits).fetch_one(service.pool.pool()).await? == 1);
    eventually("the action waits for the task", blocked).await?;
    asking.abort();
    assert!(asking.await.is_err_and(|ended| ended.is_cancelled()));
    drop(admin);
    holder.rollback().await?;
    eventually("it is written down", async || Ok(!service.audited("task.cancel").await?.is_empty())).await?;
    assert_eq!(service.audited("task.cancel").await?, [("key:admin".to_owned(), "done".to_owned(), Some(200))]);
    service.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_administrator_hands_on_no_more_than_it_has() -> Result<()> {
    let service = Guarded::start(&[]).await?;
    let admin = service.key("admin", &["*"], &["*"]).await?;
    let lesser = service.key("lesser", &["keys:admin", "tasks:*"], &["mine"]).await?;
    let ask = |name: &str, permission: &str, namespace: &str| json!({"name": name, "permissions": [permission], "namespaces": [namespace]});
    for (permission, namespace, told) in [
        ("*", "mine", "cannot hand on the permission `*`"),
        ("templates:read", "mine", "cannot hand on the permission `templates:read`"),
        ("keys:*", "mine", "cannot hand on the permission `keys:*`"),
        ("tasks:read", "theirs", "cannot hand on namespaces"),
        ("tasks:read", "*", "cannot hand on namespaces"),
    ] {
        let refused = service.post(&lesser, "/v1/keys", ask("more", permission, namespace)).await?;
        assert!(refused.status == 403 && refused.title().contains(told), "{permission} {namespace}: {}", refused.body);
    }
    let made = service.post(&lesser, "/v1/keys", ask("less", "tasks:read", "mine")).await?;
    assert_eq!(made.status, 201, "{}", made.body);
    assert_eq!(service.get(&bearer(made.body["key"].as_str().context("a key")?)?, "/v1/tasks").await?.status, 200);
    let names = async |client: &Client| {
        let keys = service.get(client, "/v1/keys").await?.body["keys"].as_array().context("keys")?.clone();
        Ok::<_, anyhow::Error>(
            keys.iter().map(|key| key["name"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>(),
        )
    };
    assert_eq!(names(&lesser).await?, ["less", "lesser"]);
    assert_eq!(names(&admin).await?, ["admin", "less", "lesser"]);
    let all = service.get(&admin, "/v1/keys").await?.body["keys"].clone();
    let first = all[0]["prefix"].as_str().context("a prefix")?;
    assert_eq!(service.post(&lesser, &format!("/v1/keys/{first}/revoke"), json!({})).await?.status, 404);
    let less = all[1]["prefix"].as_str().context("a prefix")?;
    assert_eq!(service.post(&lesser, &format!("/v1/keys/{less}/revoke"), json!({})).await?.body["active"], false);
    let past = json!({"name": "past", "permissions": ["*"], "namespaces": ["*"], "expires_at": "2020-01-01T00:00:00Z"});
    assert_eq!(service.post(&admin, "/v1/keys", past).await?.status, 422);
    service.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_the_issuer_is_a_caller_like_any_other() -> Result<()> {
    let random = SystemRandom::new();
    let generate = || EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
    let pair = |document: &[u8]| {
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document, &random).expect("the key")
    };
    let (document, other) = (generate(), generate());
    let (key, stranger) = (pair(document.as_ref()), pair(other.as_ref()));
    let base64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let point = key.public_key().as_ref();
    let set = json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "1", "use": "sig", "alg": "ES256",
        "x": base64(&point[1..33]), "y": base64(&point[33..])}]});
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let jwks = format!("http://{}/jwks", listener.local_addr()?);
    let router = Router::new().route("/jwks", get(move || async move { Json(set) }));
    tokio::spawn(async move { axum::serve(listener, router).await });

    let service = Guarded::start(&[
        ("TASKER__AUTH__JWT__JWKS_URL", &jwks),
        ("TASKER__AUTH__JWT__ISSUER", "https://id.example.com/"),
        ("TASKER__AUTH__JWT__AUDIENCE", "tasker"),
        ("TASKER__AUTH__JWT__PERMISSIONS_CLAIM", "realm.roles"),
    ])
    .await?;
    let (_, [mine, theirs]) = service.two_namespaces().await?;
    let token = |key: &EcdsaKeyPair, audience: &str| {
        let end = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("it is later").as_secs() + 60;
        let claims = json!({"iss": "https://id.example.com/", "aud": audience, "sub": "ada", "exp": end,
            "realm": {"roles": ["tasks:read", "tasks:operate"]}, "namespaces": ["mine"]});
        let header = json!({"alg": "ES256", "kid": "1"});
        let message = format!("{}.{}", base64(header.to_string().as_bytes()), base64(claims.to_string().as_bytes()));
        let signature = key.sign(&random, message.as_bytes()).expect("a signature");
        format!("{message}.{}", base64(signature.as_ref()))
    };
    let ada = bearer(&token(&key, "tasker"))?;
    assert_eq!(service.get(&ada, &mine).await?.status, 200);
    assert_eq!(service.get(&ada, &theirs).await?.status, 404);
    assert_eq!(service.get(&ada, "/v1/workers").await?.title(), "`jwt:ada` lacks the permission `workers:read`");
    assert_eq!(service.post(&ada, &format!("{mine}/cancel"), json!({})).await?.status, 200);
    assert_eq!(service.audited("task.cancel").await?, [("jwt:ada".to_owned(), "done".to_owned(), Some(200))]);
    for (refused, reason) in [
        (token(&key, "billing"), "the token is for another audience"),
        (token(&stranger, "tasker"), "the token's signature is wrong"),
    ] {
        let answer = service.get(&bearer(&refused)?, &mine).await?;
        assert_eq!((answer.status, answer.title()), (401, reason));
    }
    service.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pages_of_a_worker_ask_who_calls_too() -> Result<()> {
    let database = TestDatabase::create().await?;
    let mut worker = Process::service(WORKER, &database.url, AUTH)?;
    let base = worker.url().await?;
    let scraper = bearer(&key(&database.url, "prometheus", &["metrics:read"], &["*"]).await?)?;
    let other = bearer(&key(&database.url, "other", &["tasks:*"], &["*"]).await?)?;
    let prober = bearer("nonsense")?;
    for (client, path, status) in [
        (&prober, "/health/detailed", 200),
        (&scraper, "/health/detailed", 200),
        (&Client::new(), "/health", 200),
        (&Client::new(), "/health/detailed", 200),
        (&Client::new(), "/metrics", 401),
        (&other, "/metrics", 403),
        (&scraper, "/metrics", 200),
    ] {
        assert_eq!(client.get(format!("{base}{path}")).send().await?.status(), status, "{path}");
    }
    worker.drain().await?;
    database.drop().await
}
