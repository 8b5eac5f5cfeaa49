//! Routes to submit tasks and to look at them.

use super::{
    answer::Refusal,
    caller::Caller,
    document::{BadBody, BadPath, BadQuery, Broken, NoTask},
    extract::{Body, Params, Parts, Segments},
};
use crate::{Error, Orchestration, query};
use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use std::time::Duration;
use tasker_shared::{
    api::{
        Explanation, History, SubmitAnswer, SubmitAnswers, SubmitTask, SubmitTasks, Submitted, TaskDetail, TaskFilter,
        TaskPage,
    },
    id::TaskId,
    runtime::web::{internal, traceparent},
};
use tokio_util::sync::CancellationToken;
use utoipa::IntoParams;

/// The longest that one request waits for a task.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// How long a request waits that does not say how long.
const USUAL_WAIT_MS: u64 = 30_000;

/// The task of a route.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct TaskPath {
    /// The task.
    #[param(value_type = uuid::Uuid)]
    pub(super) task_id: TaskId,
}

/// How long to wait.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Patience {
    /// How long to wait at most, in milliseconds.
    #[param(maximum = 60_000, default = 30_000)]
    timeout_ms: Option<u64>,
}

/// Submits a task.
///
/// Give an `idempotency_key` to be able to repeat the request safely.
#[utoipa::path(post, path = "/v1/tasks", operation_id = "submit_task", tag = "tasks", request_body = SubmitTask,
    params(
        ("traceparent" = Option<String>, Header, description = "W3C trace context; used when the body has none."),
    ),
    responses(
        (status = 201, description = "The task is accepted.", body = Submitted,
            headers(("location" = String, description = "Where the task can be looked at."))),
        (status = 200, description = "The task existed already.", body = Submitted,
            headers(("location" = String, description = "Where the task can be looked at."))),
        super::document::NoTemplate, BadBody, Broken,
    ))]
pub(super) async fn submit(
    State(orchestration): State<Orchestration>,
    caller: Caller,
    headers: HeaderMap,
    Body(task): Body<SubmitTask>,
) -> Result<Response, Refusal> {
    caller.reaches(&task.namespace)?;
    let task = traced(caller.signs_task(task), traceparent(&headers).as_deref());
    let answered = crate::submit::submit(&orchestration, vec![task]).await?.pop();
    let answered = answered.ok_or_else(|| internal("a submitted task was not answered"))?;
    let submitted = answered.map_err(|refused| caller.may_hear(refused))?;
    let status = if submitted.created { StatusCode::CREATED } else { StatusCode::OK };
    let location = format!("/v1/tasks/{}", submitted.task_id);
    Ok((status, [(header::LOCATION, location)], Json(submitted)).into_response())
}

/// Submits many tasks.
///
/// Each is answered by itself, in order; a refused one does not hold back the others.
#[utoipa::path(post, path = "/v1/tasks/batch", operation_id = "submit_tasks", tag = "tasks", request_body = SubmitTasks,
    params(
        ("traceparent" = Option<String>, Header, description = "W3C trace context of all tasks that have none."),
    ),
    responses((status = 200, description = "The answers.", body = SubmitAnswers), BadBody, Broken))]
pub(super) async fn submit_batch(
    State(orchestration): State<Orchestration>,
    caller: Caller,
    headers: HeaderMap,
    Parts(SubmitTasks { tasks }): Parts<SubmitTasks>,
) -> Result<Json<SubmitAnswers>, Refusal> {
    let context = traceparent(&headers);
    let refused: Vec<Option<Refusal>> = tasks.iter().map(|task| caller.reaches(&task.namespace).err()).collect();
    let allowed = tasks.into_iter().zip(&refused).filter(|(_, refused)| refused.is_none());
    let allowed = allowed.map(|(task, _)| traced(caller.signs_task(task), context.as_deref())).collect();
    let mut answers = crate::submit::submit(&orchestration, allowed).await?.into_iter();
    let answers = refused.into_iter().map(|refused| match refused {
        Some(Refusal(problem)) => SubmitAnswer::Refused(*problem),
        None => answers.next().map_or_else(unanswered, |answered| answer(answered.map_err(|e| caller.may_hear(e)))),
    });
    Ok(Json(SubmitAnswers { tasks: answers.collect() }))
}

/// Lists tasks, the newest first.
#[utoipa::path(get, path = "/v1/tasks", operation_id = "list_tasks", tag = "tasks", params(TaskFilter), responses(
    (status = 200, description = "A page of tasks.", body = TaskPage),
    BadQuery, Broken,
))]
pub(super) async fn list(
    State(orchestration): State<Orchestration>,
    caller: Caller,
    Params(filter): Params<TaskFilter>,
) -> Result<Json<TaskPage>, Refusal> {
    Ok(Json(query::list(&orchestration, &filter, caller.namespaces()).await?))
}

/// Shows a task with its steps.
#[utoipa::path(get, path = "/v1/tasks/{task_id}", operation_id = "get_task", tag = "tasks", params(TaskPath), responses(
    (status = 200, description = "The task.", body = TaskDetail),
    NoTask, BadPath, Broken,
))]
pub(super) async fn show(
    State(orchestration): State<Orchestration>,
    Segments(path): Segments<TaskPath>,
) -> Result<Json<TaskDetail>, Refusal> {
    Ok(Json(query::detail(&orchestration, path.task_id).await?))
}

/// Waits until a task has ended, or the time is over.
///
/// Either way the answer is the task as it stands; its `state` tells which. Ask again to wait longer.
#[utoipa::path(get, path = "/v1/tasks/{task_id}/wait", operation_id = "wait_for_task", tag = "tasks", params(TaskPath, Patience), responses(
    (status = 200, description = "The task.", body = TaskDetail),
    NoTask, BadPath, BadQuery, Broken,
))]
pub(super) async fn wait(
    State(orchestration): State<Orchestration>,
    State(shutdown): State<CancellationToken>,
    Segments(path): Segments<TaskPath>,
    Params(patience): Params<Patience>,
) -> Result<Json<TaskDetail>, Refusal> {
    let patience = patience.checked()?;
    let waited = tokio::select! {
        waited = query::wait(&orchestration, path.task_id, patience) => waited?,
        () = shutdown.cancelled() => query::detail(&orchestration, path.task_id).await?,
    };
    Ok(Json(waited))
}

/// Tells every transition of a task and its steps, the oldest first.
#[utoipa::path(get, path = "/v1/tasks/{task_id}/history", operation_id = "get_task_history", tag = "tasks", params(TaskPath), responses(
    (status = 200, description = "The history.", body = History),
    NoTask, BadPath, Broken,
))]
pub(super) async fn history(
    State(orchestration): State<Orchestration>,
    Segments(path): Segments<TaskPath>,
) -> Result<Json<History>, Refusal> {
    Ok(Json(query::history(&orchestration, path.task_id).await?))
}

/// Tells why a task is where it is.
#[utoipa::path(get, path = "/v1/tasks/{task_id}/explain", operation_id = "explain_task", tag = "tasks", params(TaskPath), responses(
    (status = 200, description = "The explanation.", body = Explanation),
    NoTask, BadPath, Broken,
))]
pub(super) async fn explain(
    State(orchestration): State<Orchestration>,
    Segments(path): Segments<TaskPath>,
) -> Result<Json<Explanation>, Refusal> {
    Ok(Json(query::explain(&orchestration, path.task_id).await?))
}

impl Patience {
    fn checked(&self) -> Result<Duration, Error> {
        let asked = Duration::from_millis(self.timeout_ms.unwrap_or(USUAL_WAIT_MS));
        let reason = || format!("at most {} are allowed; ask again to wait longer", LONGEST_WAIT.as_millis());
        (asked <= LONGEST_WAIT).then_some(asked).ok_or_else(|| Error::Invalid { field: "timeout_ms", reason: reason() })
    }
}

fn traced(task: SubmitTask, context: Option<&str>) -> SubmitTask {
    SubmitTask { traceparent: task.traceparent.or_else(|| context.map(str::to_owned)), ..task }
}

fn unanswered() -> SubmitAnswer {
    SubmitAnswer::Refused(internal("a submitted task was not answered"))
}

fn answer(answer: Result<Submitted, Error>) -> SubmitAnswer {
    answer.map_or_else(|refused| SubmitAnswer::Refused(refused.into()), SubmitAnswer::Accepted)
}
