//! What every station of this service works with.

use crate::{Error, finished::Waiting};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tasker_shared::{
    config::Retention,
    id::TemplateId,
    metrics::Metrics,
    runtime::Bell,
    storage::{CompiledTemplates, Database, Session},
    telemetry::Tracing,
    template::Compiled,
};

/// Limits and sizes.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whose overrides of a template apply.
    pub environment: String,
    /// Where Grafana is, for links to the dashboard of a task.
    pub grafana_url: Option<String>,
    /// The most results that one transaction carries.
    pub results_batch: i64,
    /// The most task requests that one transaction carries.
    pub requests_batch: i64,
    /// How many loops work on results at once.
    pub process_loops: usize,
    /// How long a loop sleeps when nothing wakes it.
    pub poll_interval: Duration,
    /// How long the timer loop sleeps when nothing is due.
    pub timer_poll_interval: Duration,
    /// The time between two repair sweeps.
    pub repair_interval: Duration,
    /// How long a step must have been where it is before the repair sweep looks after it.
    pub stalled_after: Duration,
    /// How often a step may stand still before it is parked.
    pub max_stalls: i32,
    /// How long a step may go back and forth between workers that lack its handler before it is parked.
    pub handler_missing_after: Duration,
    /// How often a message may fail before it is parked.
    pub max_deliveries: i32,
    /// The largest input of a task, in bytes.
    pub max_input_bytes: usize,
    /// The most tasks in one request.
    pub max_batch_submit: usize,
    /// What is removed when it is old.
    pub retention: Retention,
}

/// Database, templates, bell, settings and telemetry; cheap to clone.
#[derive(Debug, Clone)]
pub struct Orchestration {
    database: Database,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bell: Bell,
    settings: Settings,
    tracing: Tracing,
    waiting: Waiting,
    templates: CompiledTemplates,
}

impl Orchestration {
    /// Puts the parts together.
    pub fn new(database: Database, bell: Bell, tracing: Tracing, settings: Settings) -> Self {
        let waiting = Waiting::new();
        let shared = Shared { bell, settings, tracing, waiting, templates: CompiledTemplates::default() };
        Self { database, shared: Arc::new(shared) }
    }

    /// The same for requests from outside, whose share of the database's connections is bounded.
    #[must_use]
    pub fn for_requests(&self) -> Self {
        Self { database: self.database.for_requests(), ..self.clone() }
    }

    /// The database.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Rings for other loops and processes.
    pub fn bell(&self) -> &Bell {
        &self.shared.bell
    }

    /// Limits and sizes.
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// Where measurements go.
    pub fn metrics(&self) -> &Metrics {
        self.database.metrics()
    }

    /// Where spans go.
    pub fn tracing(&self) -> &Tracing {
        &self.shared.tracing
    }

    /// Who waits for tasks to end.
    pub fn waiting(&self) -> &Waiting {
        &self.shared.waiting
    }

    /// These definitions as they apply in this service's environment.
    ///
    /// # Errors
    /// [`Error::Storage`]; a definition that does not exist is missing from the answer.
    pub(crate) async fn compiled(
        &self,
        session: &mut Session,
        ids: Vec<TemplateId>,
    ) -> Result<HashMap<TemplateId, Arc<Compiled>>, Error> {
        let environment = &self.settings().environment;
        let wanted = ids.into_iter().map(|id| (id, environment.clone())).collect();
        let found = self.shared.templates.get(session, wanted).await?;
        Ok(found.into_iter().map(|((id, _), template)| (id, template)).collect())
    }
}
