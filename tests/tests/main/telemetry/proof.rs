//! A short proof of the metrics with a real Prometheus: more tasks than have series of their own, so that series end and
//! overflow while it lasts. `metrics-proof` does the same for as many tasks as are asked for.

use anyhow::Result;
use serde_json::json;
use std::time::Duration;
use tasker_tests::{
    prometheus::Server,
    proof::{Onwards, Proof},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_finds_the_newest_tasks_by_their_ids_and_counts_what_the_database_has() -> Result<()> {
    let Some(prometheus) = Server::start(json!({})).await? else { return Ok(()) };
    let onwards = if prometheus.takes_otlp {
        Onwards::Otlp(format!("{}/api/v1/otlp", prometheus.url))
    } else {
        Onwards::RemoteWrite(format!("{}/api/v1/write", prometheus.url))
    };
    let proof = Proof {
        prometheus: prometheus.url.clone(),
        onwards,
        tasks: 600,
        rate: Some(100.0),
        steps: 4,
        interval: Duration::from_secs(1),
        ids: 60,
        memory_mib: 256,
    };
    let findings = proof.prove().await?;
    assert_eq!(findings.failed, Vec::<String>::new());
    Ok(())
}
