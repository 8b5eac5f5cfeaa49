//! What has to be asked for: the gauges of the whole system, sampled by one orchestration at a time.

mod health;
mod work;

use crate::Orchestration;
use std::time::Duration;
use tasker_shared::{
    metrics::probe::{self, Probe},
    storage::{Database, Duty, Leader},
};
use tokio_util::sync::CancellationToken;

/// Samples every `period` while this process leads, until `stop`.
pub async fn run(orchestration: Orchestration, period: Duration, stop: CancellationToken) {
    let database = orchestration.database();
    probe::run(all(database), Leader::candidate(database.pool(), Duty::Sample), period, stop).await;
}

/// Every probe of the system.
fn all(database: &Database) -> Vec<Box<dyn Probe>> {
    vec![
        Box::new(work::Work(database.clone())),
        Box::new(work::Queues(database.clone())),
        Box::new(work::Limits(database.clone())),
        Box::new(health::Tables(database.clone())),
        Box::new(health::Server::new(database.clone())),
    ]
}
