//! What people ask about tasks and workers.

use crate::{Error, Orchestration};
use std::time::Duration;
use tasker_shared::{
    access::Namespaces,
    api::{
        DeadLetter, DeadLetterFilter, DeadLetterPage, Explanation, History, TaskDetail, TaskFilter, TaskPage,
        TaskSummary, WorkerList,
    },
    id::{DeadLetterId, TaskId},
    storage::{
        dead_letters::{self as letters, Letter},
        history, overview, workers as worker_rows,
    },
};

mod explain;

/// How many tasks a page has when nothing is said.
const PAGE: u32 = 50;

/// What a dashboard shows before and after a task: metrics come some time after it.
const AROUND: chrono::TimeDelta = chrono::TimeDelta::minutes(5);

/// The largest page.
const LARGEST_PAGE: u32 = 1000;

/// A page of tasks of these namespaces, the newest first.
///
/// # Errors
/// [`Error::Invalid`] for a limit out of range, [`Error::Storage`].
pub async fn list(orchestration: &Orchestration, filter: &TaskFilter, within: &Namespaces) -> Result<TaskPage, Error> {
    let limit = page(filter.limit)?;
    for (field, text) in [("namespace", &filter.namespace), ("name", &filter.name), ("tag", &filter.tag)] {
        if text.as_ref().is_some_and(|text| text.contains('\0')) {
            return Err(Error::Invalid { field, reason: "contains the character \\u0000".to_owned() });
        }
    }
    let mut session = orchestration.database().session("list_tasks").await?;
    let mut tasks = overview::list(&mut session, filter, within.limit().as_deref(), i64::from(limit) + 1).await?;
    let more = tasks.len() > limit as usize;
    tasks.truncate(limit as usize);
    let next = tasks.last().filter(|_| more).map(|task| task.task_id);
    Ok(TaskPage { tasks, next })
}

/// A whole task with its steps.
///
/// # Errors
/// [`Error::TaskNotFound`], [`Error::Storage`].
pub async fn detail(orchestration: &Orchestration, task: TaskId) -> Result<TaskDetail, Error> {
    let mut session = orchestration.database().session("show_task").await?;
    let mut task = overview::detail(&mut session, task).await?.ok_or(Error::TaskNotFound(task))?;
    task.dashboard_url =
        orchestration.settings().grafana_url.as_deref().map(|grafana| dashboard(grafana, &task.summary));
    Ok(task)
}

/// Where Grafana shows the task: the dashboard *One Task*, for the time in which it lived.
fn dashboard(grafana: &str, task: &TaskSummary) -> String {
    let from = (task.created_at - AROUND).timestamp_millis();
    let to = task.finished_at.map_or_else(|| "now".to_owned(), |end| (end + AROUND).timestamp_millis().to_string());
    let (grafana, id) = (grafana.trim_end_matches('/'), task.correlation_id);
    format!("{grafana}/d/tasker-task?var-correlation_id={id}&from={from}&to={to}")
}

/// Like [`detail`], answered when the task has ended or `patience` is over.
///
/// # Errors
/// As [`detail`].
pub async fn wait(orchestration: &Orchestration, task: TaskId, patience: Duration) -> Result<TaskDetail, Error> {
    let ended = orchestration.waiting().on(task);
    let now = detail(orchestration, task).await?;
    if now.summary.state.is_final() {
        return Ok(now);
    }
    // whatever ends the wait, the answer is how the task stands then
    let _ = tokio::time::timeout(patience, ended).await;
    detail(orchestration, task).await
}

/// Every transition of a task and its steps, the oldest first.
///
/// # Errors
/// As [`detail`].
pub async fn history(orchestration: &Orchestration, task: TaskId) -> Result<History, Error> {
    let mut session = orchestration.database().session("show_history").await?;
    let transitions = history::of_task(&mut session, task).await?;
    if transitions.is_empty() {
        return Err(Error::TaskNotFound(task));
    }
    Ok(History { transitions })
}

/// Why a task is where it is.
///
/// # Errors
/// As [`detail`].
pub async fn explain(orchestration: &Orchestration, task: TaskId) -> Result<Explanation, Error> {
    explain::explain(orchestration, task).await
}

/// The workers that serve one of these namespaces, with those of their namespaces that are among them.
///
/// # Errors
/// [`Error::Storage`].
pub async fn workers(orchestration: &Orchestration, within: &Namespaces) -> Result<WorkerList, Error> {
    let mut session = orchestration.database().session("list_workers").await?;
    let mut workers = worker_rows::list(&mut session).await?;
    for worker in &mut workers {
        worker.namespaces.retain(|namespace| namespace == "*" || within.contain(namespace));
    }
    workers.retain(|worker| !worker.namespaces.is_empty());
    Ok(WorkerList { workers })
}

/// A page of dead letters of these namespaces, the newest first. Those of which no namespace is known are for those who see
/// every one.
///
/// # Errors
/// As [`list`].
pub async fn dead_letters(
    orchestration: &Orchestration,
    filter: &DeadLetterFilter,
    within: &Namespaces,
) -> Result<DeadLetterPage, Error> {
    let limit = page(filter.limit)?;
    let mut session = orchestration.database().session("list_dead_letters").await?;
    let mut found = letters::list(&mut session, filter, within.limit().as_deref(), i64::from(limit) + 1).await?;
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let next = found.last().filter(|_| more).map(|letter| letter.dead_letter_id);
    Ok(DeadLetterPage { dead_letters: found, next })
}

/// A whole dead letter.
///
/// # Errors
/// [`Error::DeadLetterNotFound`], [`Error::Storage`].
pub async fn dead_letter(orchestration: &Orchestration, id: DeadLetterId) -> Result<DeadLetter, Error> {
    let mut session = orchestration.database().session("show_dead_letter").await?;
    letters::find(&mut session, id).await?.ok_or(Error::DeadLetterNotFound(id))
}

/// A dead letter as it stands, whether or not it can be read whole.
///
/// # Errors
/// As [`dead_letter`].
pub(crate) async fn letter(orchestration: &Orchestration, id: DeadLetterId) -> Result<Letter, Error> {
    let mut session = orchestration.database().session("look_at_dead_letter").await?;
    letters::look(&mut session, id).await?.ok_or(Error::DeadLetterNotFound(id))
}

fn page(limit: Option<u32>) -> Result<u32, Error> {
    let limit = limit.unwrap_or(PAGE);
    if (1..=LARGEST_PAGE).contains(&limit) {
        return Ok(limit);
    }
    let reason = format!("{limit} is not between 1 and {LARGEST_PAGE}");
    Err(Error::Invalid { field: "limit", reason })
}
