//! The page `/metrics` of the real services: who may read it, where it is, and that it has what is documented.

use crate::{
    access::{AUTH, bearer, key},
    stage::Stage,
};
use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tasker_tests::{
    TestDatabase,
    process::{ORCHESTRATION, OWN_METRICS, Process, WORKER, tasker},
    system::eventually,
};

const OWN_PORT: &str = "/metrics has an address of its own";

async fn status(url: &str) -> Result<u16> {
    Ok(reqwest::get(url).await?.status().as_u16())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_configured_clients_read_the_metrics_of_both_services() -> Result<()> {
    let allowed = |clients| [("TASKER__TELEMETRY__METRICS__ALLOWED_CLIENTS", clients)];
    let stage = Stage::start_with(&allowed("10.0.0.0/8,192.168.0.1")).await?;
    let (mut refusing, mut admitting) = (stage.worker(&allowed("10.0.0.0/8"))?, stage.worker(&allowed("127.0.0.0/8"))?);
    for url in [stage.client.url(), &refusing.url().await?] {
        let answer = reqwest::get(format!("{url}/metrics")).await?;
        assert_eq!(answer.status(), 403, "{url}");
        let problem: Value = answer.json().await?;
        assert_eq!(problem["type"], "forbidden", "{problem}");
        assert_eq!(status(&format!("{url}/health/live")).await?, 200, "health checks are for everyone");
    }
    assert_eq!(status(&format!("{}/metrics", admitting.url().await?)).await?, 200);
    refusing.drain().await?;
    admitting.drain().await?;
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metrics_have_a_port_of_their_own_where_one_is_configured() -> Result<()> {
    let stage = Stage::start_with(&[("TASKER__ORCHESTRATION__METRICS_ADDRESS", "127.0.0.1:0")]).await?;
    let mut worker = stage.worker(&[("TASKER__WORKER__METRICS_ADDRESS", "127.0.0.1:0")])?;
    let worker_url = worker.url().await?;
    for (service, url) in [(&stage.orchestration, stage.client.url()), (&worker, &worker_url)] {
        let line = service.wrote(OWN_PORT).await?;
        let own = line.split("address=").nth(1).context("its address")?.trim();
        assert_eq!(status(&format!("http://{own}/metrics")).await?, 200);
        assert_eq!(status(&format!("http://{own}/health")).await?, 404, "nothing else is there");
        assert_eq!(status(&format!("{url}/metrics")).await?, 404, "it is nowhere else");
    }
    worker.drain().await?;
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_port_of_the_metrics_asks_who_calls_and_from_where() -> Result<()> {
    let database = TestDatabase::create().await?;
    let scraper = bearer(&key(&database.url, "prometheus", &["metrics:read"], &["*"]).await?)?;
    let other = bearer(&key(&database.url, "other", &["tasks:*"], &["*"]).await?)?;
    let stranger = reqwest::Client::new();
    for (program, variable) in
        [(ORCHESTRATION, "TASKER__ORCHESTRATION__METRICS_ADDRESS"), (WORKER, "TASKER__WORKER__METRICS_ADDRESS")]
    {
        for (allowed, right) in [("127.0.0.0/8", 200), ("10.0.0.0/8", 403)] {
            let settings = [(variable, "127.0.0.1:0"), ("TASKER__TELEMETRY__METRICS__ALLOWED_CLIENTS", allowed)];
            let mut service = Process::service(program, &database.url, &[AUTH, &settings].concat())?;
            let line = service.wrote(OWN_PORT).await?;
            let page = format!("http://{}/metrics", line.split("address=").nth(1).context("its address")?.trim());
            for (client, expected) in [(&stranger, 401), (&other, 403), (&scraper, right)] {
                let answer = client.get(&page).send().await?;
                assert_eq!(answer.status(), expected, "{program} {allowed}");
                let text = answer.text().await?;
                assert_eq!(text.contains("tasker_"), expected == 200, "nothing is told to others: {text}");
            }
            service.drain().await?;
        }
    }
    database.drop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_check_finds_every_documented_metric_in_running_services_and_says_what_is_missing() -> Result<()> {
    let stage = Stage::start().await?;
    let mut worker = stage.worker(&[])?;
    let task = stage.submit("chain", json!({})).await?;
    stage.ended(task).await?;
    let (orchestration, worker_url) = (stage.client.url().to_owned(), worker.url().await?);
    let whole = tasker(&orchestration, &["metrics", "check", "--json", &orchestration, &worker_url]).await?;
    let found: Value = serde_json::from_slice(&whole.stdout)?;
    assert_eq!(whole.status.code(), Some(0), "{found:#}");
    for list in ["missing", "unexpected", "different"] {
        assert_eq!(found[list], json!([]), "{list}");
    }
    let present = found["present"].as_array().context("a list")?;
    for name in ["tasker_tasks_completions_total", "tasker_step_execution_duration_milliseconds"] {
        assert!(present.contains(&json!(name)), "{name} is measured: {found:#}");
    }
    let silent = found["silent"].as_array().context("a list")?;
    assert!(silent.contains(&json!("tasker_command_memory_bytes")), "no program ran: {found:#}");
    let strict = tasker(&orchestration, &["metrics", "check", "--strict", &worker_url]).await?;
    assert_eq!(strict.status.code(), Some(1));

    let mut mute = Process::service(WORKER, &stage.database.url, &[("TELEMETRY_ENABLED", "false")])?;
    let missing = tasker(&orchestration, &["metrics", "check", &format!("{}/metrics", mute.url().await?)]).await?;
    let text = String::from_utf8(missing.stdout)?;
    assert_eq!(missing.status.code(), Some(1), "{text}");
    assert!(text.contains("missing: no service knows them\n  tasker_tasks_requests_total"), "{text}");
    mute.drain().await?;
    worker.drain().await?;
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_links_to_its_dashboard_where_grafana_is_configured() -> Result<()> {
    let stage = Stage::start_with(&[("TASKER__TELEMETRY__GRAFANA_URL", "https://grafana.example.com/")]).await?;
    let mut worker = stage.worker(&[])?;
    let task = stage.submit("chain", json!({})).await?;
    let detail = stage.ended(task).await?;
    let end = detail.summary.finished_at.context("it has ended")?;
    let (from, to) = (detail.summary.created_at.timestamp_millis() - 300_000, end.timestamp_millis() + 300_000);
    let id = detail.summary.correlation_id;
    let link = format!("https://grafana.example.com/d/tasker-task?var-correlation_id={id}&from={from}&to={to}");
    assert_eq!(detail.dashboard_url.as_deref(), Some(link.as_str()));
    let (url, task) = (stage.client.url(), task.to_string());
    let shown = String::from_utf8(tasker(url, &["task", "show", &task]).await?.stdout)?;
    assert!(shown.contains(&format!("dashboard    {link}")), "{shown}");
    let shown: Value = serde_json::from_slice(&tasker(url, &["task", "show", &task, "--json"]).await?.stdout)?;
    assert_eq!(shown["dashboard_url"], json!(link));
    worker.drain().await?;
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_address_and_no_range_is_refused_with_the_key() -> Result<()> {
    let mut command = tasker_tests::process::command(ORCHESTRATION)?;
    command
        .env("TASKER__TELEMETRY__METRICS__ALLOWED_CLIENTS", "localhost")
        .env("TASKER__WORKER__METRICS_ADDRESS", "9464");
    let output = command.output().await?;
    let text = String::from_utf8(output.stderr)?;
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("ALLOWED_CLIENTS") && text.contains("addresses and ranges, such as"), "{text}");
    assert!(text.contains("METRICS_ADDRESS") && text.contains("an address with a port"), "{text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instruments_and_probes_of_a_worker_author_are_scraped_beside_the_documented_ones() -> Result<()> {
    let stage = Stage::start().await?;
    stage
        .apply("name: sale\nnamespace_name: shop\nversion: 1.0.0\nsteps:\n  - {name: charge, handler: {callable: shop.charge}}\n")
        .await?;
    let settings = [("TASKER__WORKER__NAMESPACES", "shop"), ("TASKER__TELEMETRY__METRICS__PROBE_INTERVAL_MS", "100")];
    let mut worker = Process::service(OWN_METRICS, &stage.database.url, &settings)?;
    let url = worker.url().await?;
    let sale = tasker_shared::api::SubmitTask {
        namespace: "shop".to_owned(),
        name: "sale".to_owned(),
        ..tasker_shared::api::SubmitTask::default()
    };
    let task = stage.client.submit(&sale).await?.task_id;
    assert_eq!(stage.ended(task).await?.summary.state, tasker_shared::task::TaskState::Complete);
    let lines = [
        "shop_charges_total{currency=\"EUR\",otel_scope_name=\"shop\"} 1\n",
        "shop_invoices_open{otel_scope_name=\"shop\"} 3\n",
    ];
    let has = async || {
        let page = reqwest::get(format!("{url}/metrics")).await?.text().await?;
        Ok(lines.iter().all(|line| page.contains(line)))
    };
    eventually("the worker's own metrics are scraped", has).await?;
    let check = tasker(&url, &["metrics", "check", "--json", &url]).await?;
    let found: Value = serde_json::from_slice(&check.stdout)?;
    assert_eq!(found["own"], json!(["shop_charges_total", "shop_invoices_open"]));
    assert_eq!(check.status.code(), Some(0), "{found:#}");
    worker.drain().await?;
    stage.finish().await
}
