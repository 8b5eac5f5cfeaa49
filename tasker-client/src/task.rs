//! Submitting tasks and asking about them.

use crate::{Client, Error};
use std::time::Duration;
use tasker_shared::{
    api::{
        Explanation, History, SubmitAnswer, SubmitAnswers, SubmitTask, SubmitTasks, Submitted, TaskDetail, TaskFilter,
        TaskPage,
    },
    id::TaskId,
};

impl Client {
    /// Submits a task. A repeat answers with the task that exists, and `created` is false.
    ///
    /// # Errors
    /// [`Error::Refused`] for an unknown template or an input that its schema refuses; else as the connection fails.
    pub async fn submit(&self, task: &SubmitTask) -> Result<Submitted, Error> {
        self.post(&["v1", "tasks"], task).send().await
    }

    /// Submits many tasks at once; each is answered by itself, in order.
    ///
    /// # Errors
    /// The outer error means that the request as a whole failed.
    pub async fn submit_many(&self, tasks: Vec<SubmitTask>) -> Result<Vec<SubmitAnswer>, Error> {
        let answers: SubmitAnswers = self.post(&["v1", "tasks", "batch"], &SubmitTasks { tasks }).send().await?;
        Ok(answers.tasks)
    }

    /// A page of tasks, the newest first.
    ///
    /// # Errors
    /// [`Error::Refused`] for a limit out of range; else as the connection fails.
    pub async fn tasks(&self, filter: &TaskFilter) -> Result<TaskPage, Error> {
        self.get(&["v1", "tasks"]).query(filter).send().await
    }

    /// A whole task with its steps.
    ///
    /// # Errors
    /// [`Error::Refused`] with status 404 when it does not exist; else as the connection fails.
    pub async fn task(&self, task: TaskId) -> Result<TaskDetail, Error> {
        self.get(&["v1", "tasks", &task.to_string()]).send().await
    }

    /// Like [`Client::task`], answered when the task has ended or `patience` is over.
    ///
    /// # Errors
    /// As [`Client::task`].
    pub async fn wait(&self, task: TaskId, patience: Duration) -> Result<TaskDetail, Error> {
        let timeout_ms = patience.as_millis().to_string();
        let request = self.get(&["v1", "tasks", &task.to_string(), "wait"]);
        request.query(&[("timeout_ms", timeout_ms)]).patience(patience).send().await
    }

    /// Every transition of a task and its steps, the oldest first.
    ///
    /// # Errors
    /// As [`Client::task`].
    pub async fn history(&self, task: TaskId) -> Result<History, Error> {
        self.get(&["v1", "tasks", &task.to_string(), "history"]).send().await
    }

    /// Why a task is where it is.
    ///
    /// # Errors
    /// As [`Client::task`].
    pub async fn explain(&self, task: TaskId) -> Result<Explanation, Error> {
        self.get(&["v1", "tasks", &task.to_string(), "explain"]).send().await
    }
}
