//! The soak's own short run; the long one is `tasker-tests soak`.

use anyhow::Result;
use std::time::Duration;
use tasker_tests::{TestDatabase, soak};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_soak_ends_all_tasks_samples_and_keeps_only_what_is_young() -> Result<()> {
    let database = TestDatabase::create().await?;
    let settings = soak::Settings {
        steps: 8_000,
        rate: 1_000,
        keep: Duration::from_secs(2),
        every: Duration::from_millis(500),
        database_url: None,
        json: false,
    };
    let report = soak::run(&settings, &database.url).await?;
    assert!(report.samples.len() >= 8 && !report.judged.is_empty(), "{} samples", report.samples.len());
    assert!(report.samples.iter().any(|sample| sample.p50_ms > 0.0 && sample.tasks_per_second > 0.0));
    assert!(report.samples.iter().all(|sample| sample.orchestration > 0.0 && sample.worker > 0.0));
    assert!(report.tasks_left < report.tasks as i64 / 2, "{} of {} tasks are left", report.tasks_left, report.tasks);
    database.drop().await
}
