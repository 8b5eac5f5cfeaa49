//! Actors who meet in every order with few preemptions. `tasker-tests interleave` tries more.

use anyhow::Result;
use tasker_tests::interleave::{Options, Part, run};

async fn part(number: usize) -> Result<()> {
    let report = run(&Options { preemptions: 1, scene: None, part: Part { number, of: 2 } }).await?;
    println!("{report}");
    assert!(report.waits > 0, "nobody waited for anybody: {report}");
    assert_eq!(report.deadlocks, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_meets_in_whatever_order_leaves_a_consistent_task_that_ends() -> Result<()> {
    part(0).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_else_meets_in_whatever_order_leaves_a_consistent_task_that_ends() -> Result<()> {
    part(1).await
}
