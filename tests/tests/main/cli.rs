//! The `tasker` command against running services, as a person and as a script use it.

use crate::stage::Stage;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sqlx::{Connection as _, PgConnection};
use std::fs;
use tasker_shared::api::Action;
use tasker_tests::{
    TestDatabase,
    process::{TASKER, command, tasker},
    system::eventually,
};

const FAILS: &str = "
name: fails
namespace_name: stage
version: 1.0.0
steps:
  - {name: first, handler: {callable: noop}}
  - name: pay
    dependencies: [first]
    retry: {retryable: false}
    handler: {callable: command, initialization: {argv: ['false']}}
  - {name: ship, dependencies: [pay], handler: {callable: noop}}
";

const RETRIES: &str = "
name: retries
namespace_name: stage
version: 1.0.0
steps:
  - name: flaky
    retry: {max_attempts: 3, backoff: constant, backoff_base_ms: 600000, max_backoff_ms: 600000}
    handler: {callable: command, initialization: {argv: ['false']}}
";

const STRANGE: &str = "
name: strange
namespace_name: stage
version: 1.0.0
steps:
  - {name: only, handler: {callable: nobody.knows}}
";

const IDLE: &str = "
name: idle
namespace_name: idle
version: 1.0.0
steps:
  - {name: only, handler: {callable: noop}}
";

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ran {
    fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.out).with_context(|| format!("not JSON: {}{}", self.out, self.err))
    }
}

async fn run(url: &str, arguments: &[&str]) -> Result<Ran> {
    let output = tasker(url, arguments).await?;
    let (out, err) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    ensure!(!out.contains('\x1b') && !err.contains('\x1b'), "no colours in pipes: {out}{err}");
    Ok(Ran { code: output.status.code(), out, err })
}

/// Runs it and expects exit code 0; answers with what it printed.
async fn ok(url: &str, arguments: &[&str]) -> Result<String> {
    let ran = run(url, arguments).await?;
    ensure!(ran.code == Some(0), "tasker {arguments:?} ended with {:?}: {}{}", ran.code, ran.out, ran.err);
    Ok(ran.out)
}

async fn submitted(url: &str, arguments: &[&str]) -> Result<String> {
    let arguments = [&["task", "submit", "--json"], arguments].concat();
    let task: Value = serde_json::from_str(&ok(url, &arguments).await?)?;
    Ok(task["task_id"].as_str().with_context(|| format!("no id in {task}"))?.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn templates_are_applied_listed_shown_and_drawn() -> Result<()> {
    let stage = Stage::start().await?;
    let url = stage.orchestration.url().await?;
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join("fails.yaml"), FAILS)?;
    fs::write(dir.path().join("idle.yml"), IDLE)?;
    let path = dir.path().to_str().context("a name in UTF-8")?;
    let applied = ok(&url, &["template", "apply", path]).await?;
    assert!(applied.contains("stage/fails") && applied.contains("idle/idle"), "{applied}");
    let again = ok(&url, &["template", "apply", path]).await?;
    assert!(again.contains("unchanged"), "{again}");
    let list = ok(&url, &["template", "list"]).await?;
    assert!(list.contains("stage/fails") && list.contains("idle/idle"), "{list}");
    let show = ok(&url, &["template", "show", "stage/fails"]).await?;
    assert!(show.contains("pay") && show.contains("1.0.0"), "{show}");
    let graph = ok(&url, &["template", "graph", "stage/fails"]).await?;
    assert!(graph.contains("first") && graph.contains("ship"), "{graph}");
    let mermaid = ok(&url, &["template", "graph", "stage/fails", "--format", "mermaid"]).await?;
    assert!(mermaid.contains("flowchart") && mermaid.contains("-->"), "{mermaid}");

    let unknown = run(&url, &["template", "show", "stage/fial"]).await?;
    assert_eq!(unknown.code, Some(3), "{}", unknown.err);
    assert!(unknown.err.contains("did you mean"), "{}", unknown.err);
    fs::write(dir.path().join("bad.yaml"), FAILS.replace("dependencies: [pay]", "dependencies: [paz]"))?;
    let bad = run(&url, &["template", "apply", path]).await?;
    assert_ne!(bad.code, Some(0));
    for expected in ["bad.yaml", "paz", "did you mean `pay`"] {
        assert!(bad.err.contains(expected), "`{expected}` is missing in: {}", bad.err);
    }
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_exit_code_tells_what_became_of_a_task() -> Result<()> {
    let stage = Stage::start().await?;
    let mut worker = stage.worker(&[])?;
    let url = stage.orchestration.url().await?;
    stage.apply(FAILS).await?;
    let done = run(&url, &["task", "submit", "stage/chain", "--wait"]).await?;
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert!(done.out.contains("complete") && done.out.contains("4/4 steps"), "{}", done.out);
    let failed = run(&url, &["task", "submit", "stage/fails", "--wait"]).await?;
    assert_eq!(failed.code, Some(1), "{}", failed.out);
    for (code, arguments) in [
        (3, &["task", "submit", "stage/chian"][..]),
        (2, &["task", "submit", "stage/chain", "--input", "{"]),
        (2, &["task", "submit", "chain"]),
        (3, &["task", "show", "00000000-0000-7000-8000-000000000000"]),
        (2, &["task", "show", "7"]),
        (2, &["nonsense"]),
        (0, &["health"]),
    ] {
        let ran = run(&url, arguments).await?;
        assert_eq!(ran.code, Some(code), "{arguments:?}: {}{}", ran.out, ran.err);
        assert!(code == 0 || !ran.err.is_empty(), "{arguments:?} says why");
    }
    let away = run("http://127.0.0.1:1", &["task", "list"]).await?;
    assert_eq!(away.code, Some(4));
    assert!(away.err.contains("is Tasker running?"), "{}", away.err);
    let guarded = stage.begin_guarded().await?;
    let impatient = run(&url, &["task", "watch", &guarded.to_string(), "--timeout", "200ms"]).await?;
    assert_eq!(impatient.code, Some(5), "{}{}", impatient.out, impatient.err);
    stage.open(1)?;
    assert_eq!(run(&url, &["task", "watch", &guarded.to_string()]).await?.code, Some(0));
    let json = run(&url, &["--json", "task", "submit", "stage/chian"]).await?;
    let error: Value = serde_json::from_str(if json.out.is_empty() { &json.err } else { &json.out })?;
    assert_eq!((&error["error"]["exit_code"], &error["error"]["type"]), (&3.into(), &"template_not_found".into()));
    worker.drain().await?;
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explain_tells_why_each_task_is_not_running() -> Result<()> {
    let stage = Stage::start().await?;
    let url = stage.orchestration.url().await?;
    for source in [FAILS, RETRIES, STRANGE, IDLE] {
        stage.apply(source).await?;
    }
    let explain = async |task: &str| ok(&url, &["task", "explain", task]).await;
    let chain = submitted(&url, &["stage/chain"]).await?;
    assert!(explain(&chain).await?.contains("No live worker serves namespace `stage`"));
    assert!(explain(&chain).await?.contains("It waits for `a` (enqueued)."));
    let second = submitted(&url, &["stage/chain", "--tag", "second"]).await?;
    let delayed = submitted(&url, &["stage/chain", "--run-at", "in 10m"]).await?;
    assert!(explain(&delayed).await?.contains("It starts at "));
    ok(&url, &["task", "pause", &second]).await?;
    assert!(explain(&second).await?.contains("It is paused with 4 open steps; `tasker task resume`"));

    // one slot, which the guarded step holds
    let mut worker = stage.worker(&[
        ("TASKER__WORKER__NAMESPACES", "stage"),
        ("TASKER__WORKER__MAX_CONCURRENT_STEPS", "1"),
        ("TASKER__WORKER__NAME", "the-one"),
    ])?;
    let retries = submitted(&url, &["stage/retries"]).await?;
    eventually("it waits for its retry", async || Ok(explain(&retries).await?.contains("it runs again in"))).await?;
    assert!(explain(&retries).await?.contains("Failure 1 of 3"));
    let strange = submitted(&url, &["stage/strange"]).await?;
    let idle = submitted(&url, &["idle/idle"]).await?;
    assert!(explain(&idle).await?.contains("No live worker serves namespace `idle`; start one."));
    let strange_told = explain(&strange).await?;
    assert!(strange_told.contains("nobody.knows"), "{strange_told}");
    // it would come back to the queue until a worker has its handler
    ok(&url, &["task", "cancel", &strange]).await?;
    let guarded = stage.begin_guarded().await?.to_string();
    stage.handler_runs(1).await?;
    let held = explain(&guarded).await?;
    assert!(held.contains("Worker the-one runs attempt 1") && held.contains("its lease lasts"), "{held}");
    let behind = submitted(&url, &["stage/chain"]).await?;
    let last = submitted(&url, &["stage/chain"]).await?;
    let behind_told = explain(&behind).await?;
    assert!(behind_told.contains("It is next on the queue of `stage`."), "{behind_told}");
    let last_told = explain(&last).await?;
    assert!(last_told.contains("It is on the queue of `stage` behind 1 others."), "{last_told}");
    stage.open(1)?;
    for task in [second, delayed, retries, idle] {
        let cancelled = run(&url, &["task", "cancel", &task]).await?;
        assert!(cancelled.code.is_some_and(|code| code <= 1), "{}", cancelled.err);
    }
    ok(&url, &["task", "watch", &last]).await?;
    assert!(explain(&last).await?.contains("It is done."));
    worker.drain().await?;
    // nobody serves `idle`, so its queue keeps the message of the cancelled step
    stage.drop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_pauses_resumes_retries_resolves_and_cancels() -> Result<()> {
    let stage = Stage::start().await?;
    let url = stage.orchestration.url().await?;
    stage.apply(FAILS).await?;
    let paused = submitted(&url, &["stage/chain"]).await?;
    ok(&url, &["task", "pause", &paused, "--reason", "a look first", "--by", "ada"]).await?;
    let mut worker = stage.worker(&[])?;
    let failed = submitted(&url, &["stage/fails"]).await?;
    assert_eq!(run(&url, &["task", "watch", &failed]).await?.code, Some(1));
    assert!(ok(&url, &["task", "show", &failed]).await?.contains("pay"));
    assert!(ok(&url, &["step", "show", &failed, "pay"]).await?.contains("error"));
    ok(&url, &["task", "retry", &failed]).await?;
    assert_eq!(run(&url, &["task", "watch", &failed]).await?.code, Some(1), "it fails again");
    ok(&url, &["step", "resolve", &failed, "pay", "--result", "{\"paid\": true}", "--reason", "by hand"]).await?;
    ok(&url, &["task", "watch", &failed]).await?;
    let history = ok(&url, &["task", "show", &failed, "--history"]).await?;
    assert!(history.contains("resolved_manually") && history.contains("by hand"), "{history}");

    let show: Value = serde_json::from_str(&ok(&url, &["--json", "task", "show", &paused]).await?)?;
    assert_eq!(show["state"], "paused", "{show}");
    ok(&url, &["task", "resume", &paused]).await?;
    ok(&url, &["task", "watch", &paused]).await?;
    let late = run(&url, &["task", "cancel", &paused]).await?;
    assert_eq!(late.code, Some(1));
    assert!(late.err.contains("complete"), "{}", late.err);
    let guarded = stage.begin_guarded().await?.to_string();
    stage.handler_runs(1).await?;
    ok(&url, &["task", "cancel", &guarded, "--reason", "enough"]).await?;
    assert_eq!(run(&url, &["task", "watch", &guarded]).await?.code, Some(1));
    worker.drain().await?;
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_filtered_and_programs_read_json() -> Result<()> {
    let stage = Stage::start().await?;
    let url = stage.orchestration.url().await?;
    stage.apply(IDLE).await?;
    let tagged = submitted(&url, &["stage/chain", "--tag", "nightly", "--priority", "7", "--key", "k1"]).await?;
    let other = submitted(&url, &["idle/idle"]).await?;
    let repeat: Value =
        serde_json::from_str(&ok(&url, &["--json", "task", "submit", "stage/chain", "--key", "k1"]).await?)?;
    assert_eq!((&repeat["task_id"], &repeat["created"]), (&tagged.as_str().into(), &false.into()), "{repeat}");
    for (arguments, expected) in [
        (&["--tag", "nightly"][..], &tagged),
        (&["--namespace", "idle"], &other),
        (&["--name", "chain"], &tagged),
        (&["--limit", "1"], &other),
        (&["--before", other.as_str()], &tagged),
    ] {
        let list: Value = serde_json::from_str(&ok(&url, &[&["--json", "task", "list"], arguments].concat()).await?)?;
        let ids: Vec<_> = list["tasks"].as_array().context("tasks")?.iter().map(|t| t["task_id"].as_str()).collect();
        assert_eq!(ids, [Some(expected.as_str())], "{arguments:?}");
    }
    let table = ok(&url, &["task", "list"]).await?;
    assert!(table.contains("stage/chain") && table.contains("idle/idle"), "{table}");
    for arguments in [
        &["template", "list"][..],
        &["template", "show", "stage/chain"],
        &["task", "explain", &tagged],
        &["worker", "list"],
        &["health"],
        &["metrics", "list"],
        &["config", "show"],
    ] {
        let out = ok(&url, &[&["--json"], arguments].concat()).await?;
        assert!(serde_json::from_str::<Value>(&out)?.is_object(), "{arguments:?}: {out}");
    }
    for task in [tagged, other] {
        stage.client.cancel(task.parse()?, &Action::default()).await?;
    }
    stage.drop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workflow_of_another_format_is_imported_and_runs() -> Result<()> {
    let stage = Stage::start().await?;
    let mut worker = stage.worker(&[])?;
    let url = stage.orchestration.url().await?;
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/wfformat/three-stage.json");
    let imported = ok(&url, &["template", "import", file, "--format", "wfformat", "--apply"]).await?;
    assert!(imported.contains("wfformat/three-stage"), "{imported}");
    let done = ok(&url, &["task", "submit", "wfformat/three-stage", "--wait"]).await?;
    assert!(done.contains("5/5 steps"), "{done}");
    worker.drain().await?;
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_is_migrated_once_and_its_status_told() -> Result<()> {
    let database = TestDatabase::empty().await?;
    let db = async |arguments: &[&str]| -> Result<Ran> {
        let output = command(TASKER)?.env("DATABASE_URL", &database.url).args(arguments).output().await?;
        let text = |bytes| String::from_utf8(bytes);
        Ok(Ran { code: output.status.code(), out: text(output.stdout)?, err: text(output.stderr)? })
    };
    assert_eq!(db(&["db", "status"]).await?.code, Some(1), "nothing is there yet");
    let migrated = db(&["db", "migrate"]).await?;
    assert_eq!(migrated.code, Some(0), "{}", migrated.err);
    assert!(migrated.out.contains("applied"), "{}", migrated.out);
    let mut connection = PgConnection::connect(&database.url).await?;
    let read = "select principal, coalesce(address, ''), action, target, outcome from tasker.audit_log";
    let audited: Vec<(String, String, String, String, String)> =
        sqlx::query_as(read).fetch_all(&mut connection).await?;
    connection.close().await?;
    let [(who, from, action, target, outcome)] = &audited[..] else { anyhow::bail!("{audited:?}") };
    let user = nix::unistd::User::from_uid(nix::unistd::getuid())?.context("a name")?.name;
    assert_eq!((who, action.as_str(), outcome.as_str()), (&format!("cli:{user}"), "db.migrate", "done"));
    assert!(from.starts_with("database user ") && target.starts_with("migrations 1 to "), "{from} {target}");
    let again = db(&["db", "migrate"]).await?;
    assert!(again.out.contains("nothing to do"), "{}", again.out);
    let status = db(&["--json", "db", "status"]).await?;
    assert_eq!((status.code, &status.json()?["current"]), (Some(0), &true.into()));
    database.drop().await
}

#[tokio::test]
async fn a_database_that_is_away_is_told_at_once_with_the_reason() -> Result<()> {
    let output = command(TASKER)?
        .args(["db", "status", "--database-url", "postgres://u:topsecret@127.0.0.1:1/x"])
        .output()
        .await?;
    let text = String::from_utf8(output.stderr)?;
    assert_eq!(output.status.code(), Some(4), "{text}");
    assert!(text.contains("Connection refused") && !text.contains("topsecret"), "{text}");
    Ok(())
}

#[tokio::test]
async fn the_configuration_is_shown_without_its_secrets() -> Result<()> {
    let output = command(TASKER)?
        .env("DATABASE_URL", "postgres://u:topsecret@db.example.com/x")
        .env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=topsecret")
        .args(["config", "show"])
        .output()
        .await?;
    let text = String::from_utf8(output.stdout)? + &String::from_utf8(output.stderr)?;
    assert!(text.contains("postgres://***@db.example.com/x") && text.contains("variable DATABASE_URL"), "{text}");
    assert!(!text.contains("topsecret"), "{text}");
    Ok(())
}

#[tokio::test]
async fn shells_get_completions() -> Result<()> {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = command(TASKER)?.args(["completions", shell]).output().await?;
        let text = String::from_utf8(output.stdout)?;
        assert!(output.status.success() && text.contains("tasker") && text.contains("submit"), "{shell}: {text}");
    }
    Ok(())
}
