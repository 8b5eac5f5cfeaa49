//! The service: its loops, from start to drain.

use crate::{Orchestration, finished, process::Process, repair, requests::Requests, taken, timers};
use tasker_shared::{
    metrics::Metrics,
    runtime::{Topic, consume, sweep},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Runs the loops until `shutdown`; a transaction that is under way then is finished first.
pub async fn run(orchestration: Orchestration, shutdown: CancellationToken) {
    let mut loops = JoinSet::new();
    let settings = orchestration.settings();
    let poll = settings.poll_interval..=settings.poll_interval;
    for _ in 0..settings.process_loops.max(1) {
        let (metrics, o) = parts(&orchestration);
        let bell = orchestration.bell().subscribe(Topic::Results);
        loops.spawn(consume("process", metrics, bell, poll.clone(), shutdown.clone(), move |_| {
            let o = o.clone();
            async move { taken::turn::<Process>(&o).await }
        }));
    }
    let (metrics, o) = parts(&orchestration);
    let bell = orchestration.bell().subscribe(Topic::Requests);
    loops.spawn(consume("initialize", metrics, bell, poll, shutdown.clone(), move |_| {
        let o = o.clone();
        async move { taken::turn::<Requests>(&o).await }
    }));
    let (metrics, o) = parts(&orchestration);
    let bell = orchestration.bell().subscribe(Topic::Timers);
    loops.spawn(sweep("timers", metrics, Some(bell), shutdown.clone(), move || {
        let o = o.clone();
        async move { timers::turn(&o).await }
    }));
    let (metrics, o) = parts(&orchestration);
    loops.spawn(sweep("repair", metrics, None, shutdown.clone(), move || {
        let o = o.clone();
        async move { repair::turn(&o).await }
    }));
    loops.spawn(finished::tell(orchestration.clone(), shutdown));
    while let Some(ended) = loops.join_next().await {
        if let Err(panic) = ended {
            // a loop must not end alone: the process stops, and its supervisor starts it anew
            tracing::error!(error = %panic, "a loop ended by a panic");
            std::process::abort();
        }
    }
}

fn parts(orchestration: &Orchestration) -> (Metrics, Orchestration) {
    (orchestration.metrics().clone(), orchestration.clone())
}
