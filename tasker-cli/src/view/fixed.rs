//! What tests compare with: a look without colours at a fixed time, and one task with steps in many states.

use super::{Clock, Look, Paint};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tasker_shared::{
    api::{StepDetail, TaskDetail, TaskSummary},
    id::{CorrelationId, StepId, TaskId, TemplateId},
    step::{Failure, FailureKind, StepState},
    task::TaskState,
};

/// Seconds after 2026-03-01 12:00:00 UTC.
pub(crate) fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_772_366_400 + second, 0).unwrap()
}

/// 12:01:00 UTC.
pub(crate) fn clock() -> Clock {
    Clock { now: || at(60), local: |at| at.fixed_offset() }
}

pub(crate) fn look() -> Look {
    Look { paint: Paint::new(false), width: None, clock: clock() }
}

/// The id of [`order`].
pub(crate) const TASK: &str = "0197f000-0000-7000-8000-000000000001";

/// An order at 12:01:00: one step done, one that runs, one that waits for its retry, one that waits for both.
pub(crate) fn order() -> TaskDetail {
    let mut validate = step(1, "validate", &[], StepState::Complete);
    validate.result = Some(json!({"valid": true}));
    let mut reserve = step(2, "reserve_stock", &["validate"], StepState::InProgress);
    reserve.progress = Some(json!({"done": 3, "total": 9, "message": "shelves"}));
    let mut charge = step(3, "charge", &["validate"], StepState::WaitingForRetry);
    charge.failures = 1;
    charge.retry_at = Some(at(62));
    charge.error = Some(declined());
    let ship = step(4, "ship", &["reserve_stock", "charge"], StepState::Pending);
    task(TaskState::InProgress, vec![validate, reserve, charge, ship])
}

/// The same order at its end: the charge failed for good.
pub(crate) fn failed() -> TaskDetail {
    let mut task = order();
    task.summary.state = TaskState::Error;
    task.summary.finished_at = Some(at(58));
    for (step, state) in task.steps.iter_mut().zip([StepState::Complete, StepState::Complete, StepState::Error]) {
        *step = StepDetail { state, attempt: 1, started_at: Some(at(50)), finished_at: Some(at(57)), ..step.clone() };
    }
    task.steps[2].failures = 3;
    task.steps[2].attempt = 3;
    task.summary.steps_done = 2;
    task
}

/// The same order with every step done.
pub(crate) fn complete() -> TaskDetail {
    let mut task = failed();
    task.summary.state = TaskState::Complete;
    task.summary.steps_done = 4;
    for step in &mut task.steps {
        *step = StepDetail { state: StepState::Complete, error: None, finished_at: Some(at(57)), ..step.clone() };
    }
    task
}

pub(crate) fn declined() -> Failure {
    Failure::new(FailureKind::HandlerError, "card declined\nby the bank")
}

pub(crate) fn step(number: u8, name: &str, after: &[&str], state: StepState) -> StepDetail {
    let begun = !matches!(state, StepState::Pending | StepState::Enqueued);
    StepDetail {
        step_id: StepId(id(100 + number)),
        name: name.to_owned(),
        state,
        dependencies: after.iter().map(|name| (*name).to_owned()).collect(),
        waiting_on: 0,
        attempt: i32::from(begun),
        failures: 0,
        max_attempts: 3,
        result: None,
        error: None,
        progress: None,
        worker: begun.then(|| "w-1".to_owned()),
        retry_at: None,
        enqueued_at: (state != StepState::Pending).then(|| at(48)),
        started_at: begun.then(|| at(50)),
        finished_at: state.is_final().then(|| at(52)),
    }
}

pub(crate) fn task(state: TaskState, steps: Vec<StepDetail>) -> TaskDetail {
    TaskDetail {
        summary: TaskSummary {
            task_id: TaskId(id(1)),
            namespace: "shop".into(),
            name: "order".into(),
            version: "1.0.0".into(),
            state,
            correlation_id: CorrelationId(id(2)),
            priority: 0,
            tags: vec!["eu".into(), "web".into()],
            steps_total: steps.len() as i64,
            steps_done: steps.iter().filter(|step| step.state.satisfies_dependents()).count() as i64,
            created_at: at(47),
            finished_at: None,
        },
        template_id: TemplateId(id(3)),
        input: json!({"id": 7}),
        run_at: None,
        started_at: Some(at(48)),
        error: None::<Value>,
        idempotency_key: None,
        parent_correlation_id: None,
        initiator: Some("anna".into()),
        source_system: None,
        reason: None,
        dashboard_url: None,
        steps,
    }
}

fn id(last: u8) -> uuid::Uuid {
    let mut bytes = *TASK.parse::<uuid::Uuid>().unwrap().as_bytes();
    bytes[15] = last;
    uuid::Uuid::from_bytes(bytes)
}
