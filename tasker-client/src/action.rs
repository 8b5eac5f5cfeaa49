//! What operators do by hand to tasks and steps.

use crate::{Client, Error};
use tasker_shared::{
    api::{Acted, Action, ResolveStep},
    id::TaskId,
};

impl Client {
    /// Stops a task and tells its running handlers.
    ///
    /// # Errors
    /// [`Error::Refused`]: status 404 when it does not exist, 409 when its state does not allow it.
    pub async fn cancel(&self, task: TaskId, action: &Action) -> Result<Acted, Error> {
        self.act(task, "cancel", action).await
    }

    /// Starts no further step of a task; those that run may end.
    ///
    /// # Errors
    /// As [`Client::cancel`].
    pub async fn pause(&self, task: TaskId, action: &Action) -> Result<Acted, Error> {
        self.act(task, "pause", action).await
    }

    /// Lets a paused task go on.
    ///
    /// # Errors
    /// As [`Client::cancel`].
    pub async fn resume(&self, task: TaskId, action: &Action) -> Result<Acted, Error> {
        self.act(task, "resume", action).await
    }

    /// Runs all failed steps of a failed task again.
    ///
    /// # Errors
    /// As [`Client::cancel`].
    pub async fn retry(&self, task: TaskId, action: &Action) -> Result<Acted, Error> {
        self.act(task, "retry", action).await
    }

    /// Declares a failed task settled.
    ///
    /// # Errors
    /// As [`Client::cancel`].
    pub async fn resolve(&self, task: TaskId, action: &Action) -> Result<Acted, Error> {
        self.act(task, "resolve", action).await
    }

    /// Runs one failed step again; the task goes on.
    ///
    /// # Errors
    /// As [`Client::cancel`].
    pub async fn retry_step(&self, task: TaskId, step: &str, action: &Action) -> Result<Acted, Error> {
        self.post(&["v1", "tasks", &task.to_string(), "steps", step, "retry"], action).send().await
    }

    /// Stops one step; what depends on it cannot run any more.
    ///
    /// # Errors
    /// As [`Client::cancel`].
    pub async fn cancel_step(&self, task: TaskId, step: &str, action: &Action) -> Result<Acted, Error> {
        self.post(&["v1", "tasks", &task.to_string(), "steps", step, "cancel"], action).send().await
    }

    /// Gives a step its result by hand; what depends on it goes on.
    ///
    /// # Errors
    /// As [`Client::cancel`], and status 422 when the result breaks the step's `result_schema`.
    pub async fn resolve_step(&self, task: TaskId, step: &str, resolution: &ResolveStep) -> Result<Acted, Error> {
        self.post(&["v1", "tasks", &task.to_string(), "steps", step, "resolve"], resolution).send().await
    }

    async fn act(&self, task: TaskId, verb: &str, action: &Action) -> Result<Acted, Error> {
        self.post(&["v1", "tasks", &task.to_string(), verb], action).send().await
    }
}
