//! What a transaction did, told to metrics, traces and bells once it is durable.

use crate::Orchestration;
use opentelemetry::trace::{SpanId, SpanKind};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, SystemTime},
};
use tasker_shared::{
    id::{CorrelationId, StepId, TaskId},
    metrics::labels,
    name::Name,
    runtime::Topic,
    step::{DeadLetterReason, FailureKind, ResultType, StallKind, StepState, Verdict},
    storage::{Transaction, operations::Locked, reports::Ready, tasks::Ended},
    task::TaskState,
    telemetry::{About, Span, Station, Trace, TraceParent, Tracing, span_id, transaction_id},
};

/// What stations need to know of a task.
#[derive(Debug, Clone)]
pub(crate) struct TaskInfo {
    pub id: TaskId,
    pub namespace: Name,
    pub name: Name,
    pub priority: i16,
    pub correlation_id: CorrelationId,
    pub traceparent: Option<String>,
}

impl From<&Locked> for TaskInfo {
    fn from(task: &Locked) -> Self {
        Self {
            id: task.id,
            namespace: task.namespace.clone(),
            name: task.name.clone(),
            priority: task.priority,
            correlation_id: task.correlation_id,
            traceparent: task.traceparent.clone(),
        }
    }
}

impl TaskInfo {
    /// The task's trace: the caller decides whether it is kept, if there is one.
    pub(crate) fn trace(&self) -> Trace {
        trace(self.correlation_id, self.traceparent.as_deref())
    }
}

pub(crate) fn trace(correlation_id: CorrelationId, traceparent: Option<&str>) -> Trace {
    let caller: Option<TraceParent> = traceparent.and_then(|text| text.parse().ok());
    Trace { correlation_id, caller_sampled: caller.map(|c| c.sampled) }
}

/// An outcome that was dealt with.
#[derive(Debug)]
pub(crate) struct Processed {
    pub task: TaskInfo,
    pub step_id: StepId,
    pub step_name: Name,
    pub attempt: i32,
    pub result: ResultType,
    pub failure: Option<FailureKind>,
    pub verdict: Verdict,
}

/// What a transaction did.
#[derive(Debug)]
pub(crate) struct Committed {
    began: SystemTime,
    pub submitted: Vec<TaskInfo>,
    pub requested: Vec<TaskInfo>,
    pub initialized: Vec<TaskInfo>,
    pub enqueued: Vec<(Ready, TaskInfo, StepState)>,
    pub processed: Vec<Processed>,
    pub ended: Vec<(Ended, TaskState)>,
    pub moved_tasks: Vec<(TaskState, TaskState)>,
    pub moved_steps: Vec<(StepState, StepState)>,
    pub parked: Vec<DeadLetterReason>,
    pub redriven: Vec<DeadLetterReason>,
    pub stalled: Vec<(StallKind, Name)>,
    pub rings: BTreeSet<Topic>,
    /// How soon messages come again that were put back because somebody else holds their tasks.
    pub held: Option<Duration>,
    /// The transaction itself, once it is durable.
    pub transaction: Option<Transaction>,
}

impl Committed {
    pub(crate) fn new() -> Self {
        Self {
            began: SystemTime::now(),
            submitted: Vec::new(),
            requested: Vec::new(),
            initialized: Vec::new(),
            enqueued: Vec::new(),
            processed: Vec::new(),
            ended: Vec::new(),
            moved_tasks: Vec::new(),
            moved_steps: Vec::new(),
            parked: Vec::new(),
            redriven: Vec::new(),
            stalled: Vec::new(),
            rings: BTreeSet::new(),
            held: None,
            transaction: None,
        }
    }

    /// Rings first, so that others work while this one counts.
    pub(crate) fn tell(self, orchestration: &Orchestration) {
        let mut topics = self.rings.clone();
        topics.extend(self.enqueued.iter().map(|(_, task, _)| Topic::Steps(task.namespace.clone())));
        topics.into_iter().for_each(|topic| orchestration.bell().ring(topic));
        orchestration.bell().announce(self.ended.iter().map(|(ended, _)| ended.id).collect());
        let now = SystemTime::now();
        let took = now.duration_since(self.began).unwrap_or_default();
        self.count(orchestration, took);
        self.trace(orchestration, now);
    }

    fn count(&self, orchestration: &Orchestration, took: Duration) {
        let metrics = orchestration.metrics();
        let mut moves: BTreeMap<(StepState, StepState), u64> = BTreeMap::new();
        let mut moved = |from, to| *moves.entry((from, to)).or_default() += 1;
        for task in &self.requested {
            metrics.tasks_requests.add(1, kind(task));
            metrics.tasks_transitions.add(1, labels::TaskTransition { from: None, to: TaskState::Pending });
        }
        for task in &self.initialized {
            let labels = labels::TaskType { correlation_id: task.correlation_id, task_type: task.name.clone() };
            metrics.task_initialization_duration.record_duration(share(took, self.initialized.len()), labels);
            let (from, to) = (Some(TaskState::Pending), TaskState::InProgress);
            metrics.tasks_transitions.add(1, labels::TaskTransition { from, to });
        }
        for (step, task, from) in &self.enqueued {
            metrics.steps_enqueued.add(
                1,
                labels::EnqueuedStep {
                    correlation_id: task.correlation_id,
                    namespace: task.namespace.clone(),
                    step_name: step.name.clone(),
                },
            );
            moved(*from, StepState::Enqueued);
        }
        for step in &self.processed {
            let labels = || labels::StepResult { correlation_id: step.task.correlation_id, result_type: step.result };
            metrics.step_results_processed.add(1, labels());
            metrics.step_result_processing_duration.record_duration(share(took, self.processed.len()), labels());
            moved(StepState::Reported, end_of(step.verdict));
            if let Some(error_type) = step.failure {
                let labels = labels::Retry { error_type, namespace: step.task.namespace.clone() };
                match step.verdict {
                    Verdict::Retry(_) | Verdict::Miss(_) => metrics.steps_retries.add(1, labels),
                    Verdict::Fail { exhausted: true } => metrics.steps_retries_exhausted.add(1, labels),
                    _ => {}
                }
            }
        }
        for (ended, from) in &self.ended {
            count_end(orchestration, ended, *from, share(took, self.ended.len()));
        }
        for (from, to) in &self.moved_tasks {
            metrics.tasks_transitions.add(1, labels::TaskTransition { from: Some(*from), to: *to });
        }
        for (from, to) in &self.moved_steps {
            moved(*from, *to);
        }
        for ((from, to), steps) in moves {
            metrics.steps_transitions.add(steps, labels::StepTransition { from: Some(from), to });
        }
        for reason in &self.parked {
            metrics.dlq_messages.add(1, labels::DeadLetter { reason: *reason });
        }
        for reason in &self.redriven {
            metrics.dlq_redrives.add(1, labels::DeadLetter { reason: *reason });
        }
        for (kind, namespace) in &self.stalled {
            metrics.steps_stalls.add(1, labels::Stall { kind: *kind, namespace: namespace.clone() });
        }
    }

    fn trace(&self, orchestration: &Orchestration, now: SystemTime) {
        let tracing = orchestration.tracing();
        let shared = self.shared(tracing);
        let mut spans = tracing.spans();
        if let (Some((trace, station)), Some(transaction)) = (shared, &self.transaction) {
            spans.transaction(trace, station, transaction);
        }
        // what shares the transaction of another task links to it
        let join = |about: &mut About<'_>, id: CorrelationId| {
            if let Some((trace, station)) = shared.filter(|(trace, _)| trace.correlation_id != id) {
                about.link(trace.correlation_id, transaction_id(station));
            }
        };
        let span = |station: Station, id: uuid::Uuid, attempt: i32, kind, parent| Span {
            name: station.as_str(),
            span_id: span_id(id, attempt.cast_unsigned(), station),
            parent,
            start: self.began,
            end: now,
            kind,
        };
        for task in &self.submitted {
            let caller = task.traceparent.as_deref().and_then(|text| text.parse::<TraceParent>().ok());
            let parent = caller.map(|caller| caller.span_id);
            let submit = span(Station::Submit, task.id.0, 0, SpanKind::Server, parent);
            spans.record(task.trace(), submit, |about| {
                about_task(about, task);
                join(about, task.correlation_id);
            });
        }
        for task in &self.initialized {
            let parent = Some(span_id(task.id.0, 0, Station::Submit));
            let initialize = span(Station::Initialize, task.id.0, 0, SpanKind::Internal, parent);
            spans.record(task.trace(), initialize, |about| {
                about_task(about, task);
                join(about, task.correlation_id);
            });
        }
        for (step, task, _) in &self.enqueued {
            let parent = match (step.cause, step.cause_attempt) {
                (Some(parent), Some(attempt)) => span_id(parent.0, attempt.cast_unsigned(), Station::Process),
                _ if step.attempt > 0 => span_id(step.step_id.0, step.attempt.cast_unsigned(), Station::Process),
                _ => span_id(task.id.0, 0, Station::Initialize),
            };
            let enqueue = span(Station::Enqueue, step.step_id.0, step.attempt, SpanKind::Producer, Some(parent));
            spans.record(task.trace(), enqueue, |about| {
                about_step(about, task, step.step_id, &step.name, step.attempt);
                join(about, task.correlation_id);
            });
        }
        for step in &self.processed {
            let parent = span_id(step.step_id.0, step.attempt.cast_unsigned(), Station::Report);
            let process = span(Station::Process, step.step_id.0, step.attempt, SpanKind::Consumer, Some(parent));
            spans.record(step.task.trace(), process, |about| {
                about_step(about, &step.task, step.step_id, &step.step_name, step.attempt);
                about.text("tasker.verdict", step.verdict.event().as_str());
                join(about, step.task.correlation_id);
            });
        }
        let last: HashMap<TaskId, &Processed> = self.processed.iter().map(|step| (step.task.id, step)).collect();
        for (ended, _) in &self.ended {
            let parent = last.get(&ended.id).map_or_else(
                || span_id(ended.id.0, 0, Station::Initialize),
                |step| span_id(step.step_id.0, step.attempt.cast_unsigned(), Station::Process),
            );
            let finalize = span(Station::Finalize, ended.id.0, 0, SpanKind::Internal, Some(parent));
            let trace = trace(ended.correlation_id, ended.traceparent.as_deref());
            tracing.ended(trace, (ended.finished_at - ended.created_at).to_std().unwrap_or_default());
            spans.record(trace, finalize, |about| {
                about.id("task.id", ended.id.0).text("tasker.task.state", ended.state.as_str());
                if ended.state == TaskState::Error {
                    about.error("the task failed");
                }
                join(about, ended.correlation_id);
            });
        }
    }

    /// The station below which the transaction's spans are: the first whose trace is kept.
    fn shared(&self, tracing: &Tracing) -> Option<(Trace, SpanId)> {
        self.transaction.as_ref()?;
        let of_task = |station| move |task: &TaskInfo| (task.trace(), span_id(task.id.0, 0, station));
        let of_step = |step: StepId, attempt: i32, station| span_id(step.0, attempt.cast_unsigned(), station);
        let submitted = self.submitted.iter().map(of_task(Station::Submit));
        let initialized = self.initialized.iter().map(of_task(Station::Initialize));
        let processed = self.processed.iter();
        let processed = processed.map(|p| (p.task.trace(), of_step(p.step_id, p.attempt, Station::Process)));
        let enqueued = self.enqueued.iter();
        let enqueued = enqueued.map(|(s, task, _)| (task.trace(), of_step(s.step_id, s.attempt, Station::Enqueue)));
        let mut stations = submitted.chain(processed).chain(initialized).chain(enqueued);
        stations.find(|(trace, _)| tracing.keeps(*trace))
    }
}

fn count_end(orchestration: &Orchestration, ended: &Ended, from: TaskState, took: Duration) {
    let metrics = orchestration.metrics();
    let kind = labels::Task {
        correlation_id: ended.correlation_id,
        namespace: ended.namespace.clone(),
        task_type: ended.name.clone(),
    };
    match ended.state {
        TaskState::Complete => metrics.tasks_completions.add(1, kind),
        TaskState::Error => metrics.tasks_failures.add(1, kind),
        _ => {}
    }
    let final_state = ended.state;
    let labels = labels::FinalState { correlation_id: ended.correlation_id, final_state };
    metrics.task_finalization_duration.record_duration(took, labels);
    let whole = (ended.finished_at - ended.created_at).to_std().unwrap_or_default();
    let labels = labels::EndedTask { final_state, namespace: ended.namespace.clone(), task_type: ended.name.clone() };
    metrics.task_duration.record_duration(whole, labels);
    metrics.tasks_transitions.add(1, labels::TaskTransition { from: Some(from), to: final_state });
}

fn kind(task: &TaskInfo) -> labels::Task {
    labels::Task {
        correlation_id: task.correlation_id,
        namespace: task.namespace.clone(),
        task_type: task.name.clone(),
    }
}

fn about_task(about: &mut About<'_>, task: &TaskInfo) {
    about.id("task.id", task.id.0).text("task.name", &task.name).text("tasker.namespace", &task.namespace);
}

fn about_step(about: &mut About<'_>, task: &TaskInfo, step: StepId, name: &Name, attempt: i32) {
    about_task(about, task);
    about.id("step.id", step.0).text("step.name", name).number("tasker.attempt", i64::from(attempt));
}

const fn end_of(verdict: Verdict) -> StepState {
    match verdict {
        Verdict::Complete => StepState::Complete,
        Verdict::Retry(_) | Verdict::Miss(_) => StepState::WaitingForRetry,
        Verdict::Fail { .. } => StepState::Error,
    }
}

/// A batch shares its time.
fn share(took: Duration, among: usize) -> Duration {
    took / u32::try_from(among.max(1)).unwrap_or(u32::MAX)
}
