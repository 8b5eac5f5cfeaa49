//! What people ask about tasks and workers.

use crate::{Error, Orchestration};
use std::time::Duration;
use tasker_shared::{
    api::{Explanation, History, TaskDetail, TaskFilter, TaskPage, WorkerList},
    id::TaskId,
};

/// A page of tasks, the newest first.
///
/// # Errors
/// [`Error::Invalid`] for a limit out of range, [`Error::Storage`].
pub async fn list(orchestration: &Orchestration, filter: &TaskFilter) -> Result<TaskPage, Error> {
    let _ = (orchestration, filter);
    todo!()
}

/// A whole task with its steps.
///
/// # Errors
/// [`Error::TaskNotFound`], [`Error::Storage`].
pub async fn detail(orchestration: &Orchestration, task: TaskId) -> Result<TaskDetail, Error> {
    let _ = (orchestration, task);
    todo!()
}

/// Like [`detail`], answered when the task has ended or `patience` is over.
///
/// # Errors
/// As [`detail`].
pub async fn wait(orchestration: &Orchestration, task: TaskId, patience: Duration) -> Result<TaskDetail, Error> {
    let _ = (orchestration, task, patience);
    todo!()
}

/// Every transition of a task and its steps, the oldest first.
///
/// # Errors
/// As [`detail`].
pub async fn history(orchestration: &Orchestration, task: TaskId) -> Result<History, Error> {
    let _ = (orchestration, task);
    todo!()
}

/// Why a task is where it is.
///
/// # Errors
/// As [`detail`].
pub async fn explain(orchestration: &Orchestration, task: TaskId) -> Result<Explanation, Error> {
    let _ = (orchestration, task);
    todo!()
}

/// The workers that are known.
///
/// # Errors
/// [`Error::Storage`].
pub async fn workers(orchestration: &Orchestration) -> Result<WorkerList, Error> {
    let _ = orchestration;
    todo!()
}
