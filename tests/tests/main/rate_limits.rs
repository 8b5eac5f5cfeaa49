//! Rate limits of the real service: strangers before anybody looks at their keys, callers each by themselves.

use crate::access::{NOBODY, bearer, key};
use anyhow::{Context as _, Result};
use reqwest::{Client, Response};
use serde_json::json;
use tasker_shared::access::ApiKey;
use tasker_tests::{
    TestDatabase,
    process::{ORCHESTRATION, Process},
};

async fn service(database: &TestDatabase, limits: &[(&str, &str)]) -> Result<Process> {
    let auth = [("TASKER__AUTH__ENABLED", "true")];
    Process::service(ORCHESTRATION, &database.url, &[&auth, limits].concat())
}

fn header(answer: &Response, name: &str) -> Option<u64> {
    answer.headers().get(name)?.to_str().ok()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_wrong_keys_is_refused_before_they_are_looked_up() -> Result<()> {
    let database = TestDatabase::create().await?;
    let mut process = service(
        &database,
        &[
            ("TASKER__ORCHESTRATION__RATE_LIMITS__ADDRESS_PER_SECOND", "0.001"),
            ("TASKER__ORCHESTRATION__RATE_LIMITS__ADDRESS_BURST", "12"),
            ("TASKER__ORCHESTRATION__METRICS_ADDRESS", "127.0.0.1:0"),
        ],
    )
    .await?;
    let api = process.url().await?;
    let right = bearer(&key(&database.url, "right", &["*"], &["*"]).await?)?;
    let mut told = Vec::new();
    for _ in 0..60 {
        let stranger = bearer(ApiKey::generate().expose())?;
        let answer = stranger.get(format!("{api}/v1/tasks")).send().await?;
        if answer.status() == 429 {
            assert!(header(&answer, "retry-after").context("when to come back")? > 1);
            assert_eq!(
                (header(&answer, "ratelimit-limit"), header(&answer, "ratelimit-remaining")),
                (Some(12), Some(0))
            );
        }
        told.push(answer.status().as_u16());
    }
    assert_eq!((&told[..12], &told[12..]), (&[401; 12][..], &[429; 48][..]));
    for health in ["/health/live", "/health/ready"] {
        assert_eq!(reqwest::get(format!("{api}{health}")).await?.status(), 200, "probes are not limited");
    }
    assert_eq!(right.get(format!("{api}/v1/tasks")).send().await?.status(), 429, "also who has a right key");
    let line = process.wrote("/metrics has an address of its own").await?;
    let own = line.split("address=").nth(1).context("its address")?.trim();
    let page = right.get(format!("http://{own}/metrics")).send().await?.error_for_status()?.text().await?;
    let count = |name: &str, label: &str| -> f64 {
        let series = page.lines().filter(|line| line.starts_with(name) && line.contains(label));
        series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    };
    let lookups = count("tasker_sql_queries_total{", "authenticate_key");
    assert!((lookups - 13.0).abs() < 0.5, "twelve wrong keys and that of the scrape were looked up, and not {lookups}");
    for (outcome, expected) in [("allowed", 12.0), ("rejected", 49.0)] {
        let counted = count("tasker_rate_limit_requests_total{", outcome);
        assert!((counted - expected).abs() < 0.5, "{counted} {outcome}");
    }
    process.drain().await?;
    database.drop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_behind_one_address_are_limited_each_by_itself_and_each_route_by_itself() -> Result<()> {
    let database = TestDatabase::create().await?;
    let mut process = service(
        &database,
        &[
            ("TASKER__ORCHESTRATION__RATE_LIMITS__READ_PER_SECOND", "0.001"),
            ("TASKER__ORCHESTRATION__RATE_LIMITS__READ_BURST", "2"),
        ],
    )
    .await?;
    let api = process.url().await?;
    let ada = bearer(&key(&database.url, "ada", &["*"], &["*"]).await?)?;
    let bob = bearer(&key(&database.url, "bob", &["*"], &["*"]).await?)?;
    let ask = async |client: &Client, path: &str| -> Result<u16> {
        Ok(client.get(format!("{api}{path}")).send().await?.status().as_u16())
    };
    for expected in [200, 200, 429] {
        assert_eq!(ask(&ada, "/v1/tasks").await?, expected);
    }
    assert_eq!(ask(&bob, "/v1/tasks").await?, 200, "another key");
    assert_eq!(ask(&ada, "/v1/templates").await?, 200, "another route");
    assert_eq!(ask(&Client::new(), "/v1/tasks").await?, 401, "who is not known has no share of anybody");
    let check = ada.post(format!("{api}/v1/templates/check")).json(&json!({"source": "a: 1"})).send().await?;
    assert_ne!(check.status(), 429, "another kind of request");
    process.drain().await?;
    database.drop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_refused_has_asked_too() -> Result<()> {
    let database = TestDatabase::create().await?;
    let mut process = service(
        &database,
        &[
            ("TASKER__ORCHESTRATION__RATE_LIMITS__READ_PER_SECOND", "0.001"),
            ("TASKER__ORCHESTRATION__RATE_LIMITS__READ_BURST", "2"),
        ],
    )
    .await?;
    let api = process.url().await?;
    let caller = bearer(&key(&database.url, "caller", &["tasks:*"], &["mine"]).await?)?;
    for (path, refused) in [(NOBODY, 404), ("/v1/workers", 403)] {
        for (expected, left) in [(refused, 1), (refused, 0), (429, 0)] {
            let answer = caller.get(format!("{api}{path}")).send().await?;
            assert_eq!(answer.status().as_u16(), expected, "{path}");
            assert_eq!(header(&answer, "ratelimit-remaining"), Some(left), "{path}");
        }
    }
    process.drain().await?;
    database.drop().await
}
