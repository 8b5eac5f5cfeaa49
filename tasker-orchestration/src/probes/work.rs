//! How much there is to do, and who is there to do it.

use futures::future::BoxFuture;
use tasker_shared::{
    metrics::{
        Label, labels,
        probe::{Error, Probe, Scope},
    },
    name::Name,
    storage::{Database, concurrency, vitals},
    task::TaskState,
};

/// Tasks, workers and dead letters.
pub(super) struct Work(pub(super) Database);

impl Probe for Work {
    fn name(&self) -> &'static str {
        "work"
    }

    fn scope(&self) -> Scope {
        Scope::System
    }

    fn sample(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async {
            let found = vitals::work(&mut self.0.session("probe").await?).await?;
            let metrics = self.0.metrics();
            let open = TaskState::ALL.iter().filter(|state| !state.is_final());
            metrics.tasks_active.replace(open.map(|state| {
                let tasks = found.tasks.iter().find(|(found, _)| found == state).map_or(0, |(_, tasks)| *tasks);
                (labels::InState { state: *state }, tasks)
            }));
            let workers = found.workers.into_iter();
            metrics.workers_live.replace(workers.map(|(namespace, live)| (labels::Namespace { namespace }, live)));
            metrics.dlq_size.set(found.dead_letters, ());
            Ok(())
        })
    }

    fn forget(&self) {
        let metrics = self.0.metrics();
        metrics.tasks_active.clear();
        metrics.workers_live.clear();
        metrics.dlq_size.clear();
    }
}

/// Depths and ages of queues.
pub(super) struct Queues(pub(super) Database);

impl Probe for Queues {
    fn name(&self) -> &'static str {
        "queues"
    }

    fn scope(&self) -> Scope {
        Scope::System
    }

    fn sample(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async {
            let found = vitals::backlogs(&mut self.0.session("probe").await?).await?;
            let metrics = self.0.metrics();
            let label = |backlog: &vitals::Backlog| Label::from(backlog.queue.clone());
            metrics.queue_depth.replace(found.iter().map(|backlog| {
                let namespace = backlog.namespace.clone();
                (labels::NamespaceQueue { namespace, queue: label(backlog) }, backlog.depth)
            }));
            metrics
                .queue_age_seconds
                .replace(found.iter().map(|backlog| (labels::Queue { queue: label(backlog) }, backlog.age_seconds)));
            metrics.steps_ready.replace(found.iter().filter_map(|backlog| {
                Some((labels::Namespace { namespace: backlog.namespace.clone()? }, backlog.depth))
            }));
            Ok(())
        })
    }

    fn forget(&self) {
        let metrics = self.0.metrics();
        metrics.queue_depth.clear();
        metrics.queue_age_seconds.clear();
        metrics.steps_ready.clear();
    }
}

/// Limits on how many steps run at once, and how much of them is used.
pub(super) struct Limits(pub(super) Database);

impl Probe for Limits {
    fn name(&self) -> &'static str {
        "limits"
    }

    fn scope(&self) -> Scope {
        Scope::System
    }

    fn sample(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async {
            let found = concurrency::list(&mut self.0.session("probe").await?).await?;
            let metrics = self.0.metrics();
            let of = |value: fn(&tasker_shared::api::LimitSummary) -> i64| {
                found.iter().filter_map(move |limit| {
                    let namespace = Name::new(&limit.namespace).ok()?;
                    Some((labels::Limit { namespace, scope: limit.scope.clone().into() }, value(limit)))
                })
            };
            metrics.concurrency_permits.replace(of(|limit| i64::from(limit.max)));
            metrics.concurrency_permits_used.replace(of(|limit| limit.used));
            Ok(())
        })
    }

    fn forget(&self) {
        let metrics = self.0.metrics();
        metrics.concurrency_permits.clear();
        metrics.concurrency_permits_used.clear();
    }
}
