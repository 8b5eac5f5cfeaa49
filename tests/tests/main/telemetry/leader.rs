//! One process at a time samples the whole system, and another one takes over when its connection is gone.

use anyhow::Result;
use tasker_shared::{
    metrics::{Metrics, probe::Leadership as _},
    storage::{Duty, Leader},
};
use tasker_tests::{
    TestDatabase,
    system::{connect, eventually},
};

const CUT: &str = "select pg_terminate_backend(pid) from pg_locks
                    where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_process_leads_until_its_connection_is_lost() -> Result<()> {
    let test_database = TestDatabase::create().await?;
    let database = connect(&test_database.url, Metrics::disabled()).await?;
    let (first, second) =
        (Leader::candidate(database.pool(), Duty::Sample), Leader::candidate(database.pool(), Duty::Sample));
    assert!(first.leads().await);
    assert!(!second.leads().await);
    assert!(first.leads().await, "it goes on leading");
    sqlx::query(CUT).execute(database.pool()).await?;
    eventually("another one leads", async || Ok(second.leads().await)).await?;
    assert!(!first.leads().await, "who lost its connection notices");
    drop(second);
    eventually("the first one leads again", async || Ok(first.leads().await)).await?;
    drop(first);
    database.pool().close().await;
    test_database.drop().await
}
