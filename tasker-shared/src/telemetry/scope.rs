//! The scope of a step's run: what is traced and logged in it belongs to the step.
//!
//! A live span around every handler would cost more than most handlers do. The scope carries the context of the span
//! `execute`, which is written when the handler has ended, and the ids for log lines, which are written where a line is.

use super::{Tracing, context::TraceParent, trace::Trace};
use crate::{
    id::{CorrelationId, StepId, TaskId},
    name::Name,
};
use opentelemetry::{
    Context,
    trace::{FutureExt as _, SpanId, TraceContextExt as _},
};
use std::{future::Future, sync::Arc};

tokio::task_local! {
    static RUN: Scope;
}

/// What runs; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Scope(Option<Arc<Run>>);

/// One run of one step.
#[derive(Debug)]
pub(super) struct Run {
    correlation_id: CorrelationId,
    task_id: TaskId,
    step_id: StepId,
    step_name: Name,
    context: Context,
}

impl Tracing {
    /// The scope of a run whose span is `execute`: the parent of the spans that are made in it.
    pub fn scope(
        &self,
        trace: impl Into<Trace>,
        execute: SpanId,
        task_id: TaskId,
        step_id: StepId,
        step_name: Name,
    ) -> Scope {
        let trace = trace.into();
        let correlation_id = trace.correlation_id;
        let parent = TraceParent { correlation_id, span_id: execute, sampled: self.keeps(trace) };
        let context = Context::new().with_remote_span_context(parent.span_context());
        Scope(Some(Arc::new(Run { correlation_id, task_id, step_id, step_name, context })))
    }
}

impl Scope {
    /// Runs a future in this scope, also one that is given to [`tokio::spawn`].
    pub fn around<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        let context = self.0.as_ref().map_or_else(Context::current, |run| run.context.clone());
        RUN.scope(self.clone(), future.with_context(context))
    }

    /// Calls a function in this scope, such as one on a thread for blocking work.
    pub fn call<R>(&self, function: impl FnOnce() -> R) -> R {
        let _entered = self.0.as_ref().map(|run| run.context.clone().attach());
        RUN.sync_scope(self.clone(), function)
    }

    /// What runs here, if a step does.
    pub(super) fn with_current<R>(look: impl FnOnce(&Run) -> R) -> Option<R> {
        RUN.try_with(|scope| scope.0.as_deref().map(look)).ok().flatten()
    }
}

impl Run {
    /// The ids of log lines.
    pub(super) fn ids(&self) -> [(&'static str, String); 4] {
        [
            ("correlation_id", self.correlation_id.to_string()),
            ("task.id", self.task_id.to_string()),
            ("step.id", self.step_id.to_string()),
            ("step.name", self.step_name.to_string()),
        ]
    }
}
