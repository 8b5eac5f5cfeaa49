//! What the stations of the worker share.

use crate::{completion::Completion, handler::Registry, running::Running, worker::Settings};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tasker_shared::{
    breaker::Breaker,
    metrics::Metrics,
    name::Name,
    queue::QueueName,
    runtime::Bell,
    storage::{CompiledTemplates, Database, workers::Registration},
    telemetry::Tracing,
};
use tokio::sync::Semaphore;

/// Database, handlers, the steps that are held, and where outcomes go; cheap to clone.
#[derive(Clone)]
pub(crate) struct Core(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) database: Database,
    /// The circuit breaker of the queues.
    pub(crate) pgmq: Breaker,
    pub(crate) bell: Bell,
    pub(crate) tracing: Tracing,
    pub(crate) settings: Settings,
    pub(crate) registration: Registration,
    pub(crate) registry: Registry,
    pub(crate) templates: CompiledTemplates,
    /// The steps whose lease this worker holds.
    pub(crate) running: Running,
    /// One for each handler that may run at once.
    pub(crate) slots: Arc<Semaphore>,
    /// One for each handler that may write in its report's transaction at once: the other connections stay free.
    pub(crate) writing: Semaphore,
    /// To station *report*.
    pub(crate) completion: Completion,
}

impl Core {
    pub(crate) fn new(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        self.database.metrics()
    }
}

impl std::ops::Deref for Core {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// A namespace that this worker serves.
#[derive(Debug, Clone)]
pub(crate) struct Served {
    pub(crate) namespace: Name,
    pub(crate) queue: QueueName,
    /// Whether the last claim said that there are limits.
    limited: Arc<AtomicBool>,
}

impl Served {
    pub(crate) fn new(namespace: Name) -> Self {
        Self { queue: QueueName::of_namespace(&namespace), namespace, limited: Arc::default() }
    }

    pub(crate) fn is_limited(&self) -> bool {
        self.limited.load(Ordering::Relaxed)
    }

    pub(crate) fn set_limited(&self) {
        self.limited.store(true, Ordering::Relaxed);
    }
}
