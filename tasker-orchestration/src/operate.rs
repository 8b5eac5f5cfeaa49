//! What operators do by hand.

use crate::{Error, Orchestration};
use tasker_shared::{
    api::{Action, ResolveStep},
    id::TaskId,
    task::TaskState,
};

/// Stops a task and tells its running handlers.
///
/// # Errors
/// [`Error::TaskNotFound`], [`Error::Illegal`] when it has ended, [`Error::Storage`].
pub async fn cancel(orchestration: &Orchestration, task: TaskId, action: &Action) -> Result<TaskState, Error> {
    let _ = (orchestration, task, action);
    todo!()
}

/// Starts no further step of a task; those that run may end.
///
/// # Errors
/// As [`cancel`].
pub async fn pause(orchestration: &Orchestration, task: TaskId, action: &Action) -> Result<TaskState, Error> {
    let _ = (orchestration, task, action);
    todo!()
}

/// Lets a paused task go on.
///
/// # Errors
/// As [`cancel`].
pub async fn resume(orchestration: &Orchestration, task: TaskId, action: &Action) -> Result<TaskState, Error> {
    let _ = (orchestration, task, action);
    todo!()
}

/// Runs all failed steps of a failed task again.
///
/// # Errors
/// As [`cancel`].
pub async fn retry(orchestration: &Orchestration, task: TaskId, action: &Action) -> Result<TaskState, Error> {
    let _ = (orchestration, task, action);
    todo!()
}

/// Declares a failed task settled.
///
/// # Errors
/// As [`cancel`].
pub async fn resolve(orchestration: &Orchestration, task: TaskId, action: &Action) -> Result<TaskState, Error> {
    let _ = (orchestration, task, action);
    todo!()
}

/// Runs one failed step again; the task goes on.
///
/// # Errors
/// As [`cancel`], and [`Error::StepNotFound`].
pub async fn retry_step(
    orchestration: &Orchestration,
    task: TaskId,
    step: &str,
    action: &Action,
) -> Result<TaskState, Error> {
    let _ = (orchestration, task, step, action);
    todo!()
}

/// Stops one step; what depends on it cannot run any more.
///
/// # Errors
/// As [`retry_step`].
pub async fn cancel_step(
    orchestration: &Orchestration,
    task: TaskId,
    step: &str,
    action: &Action,
) -> Result<TaskState, Error> {
    let _ = (orchestration, task, step, action);
    todo!()
}

/// Gives a step its result by hand; what depends on it goes on.
///
/// # Errors
/// As [`retry_step`], and [`Error::ResultInvalid`].
pub async fn resolve_step(
    orchestration: &Orchestration,
    task: TaskId,
    step: &str,
    resolution: &ResolveStep,
) -> Result<TaskState, Error> {
    let _ = (orchestration, task, step, resolution);
    todo!()
}
