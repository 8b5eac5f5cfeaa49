//! Routes by which operators act on tasks and steps.

use super::{
    answer::Refusal,
    document::{BadBody, BadPath, Broken, Illegal, NoTask},
    extract::{Body, OptionalBody, Segments},
    tasks::TaskPath,
};
use crate::{Error, Orchestration, operate};
use axum::{Json, extract::State};
use serde::Deserialize;
use tasker_shared::{
    api::{Acted, Action, ResolveStep},
    id::TaskId,
    task::TaskState,
};
use utoipa::IntoParams;

type Answer = Result<Json<Acted>, Refusal>;

/// The step of a route.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct StepPath {
    /// The task.
    #[param(value_type = uuid::Uuid)]
    pub(super) task_id: TaskId,
    /// The step's name.
    pub(super) step: String,
}

/// Stops a task and tells its running handlers.
#[utoipa::path(post, path = "/v1/tasks/{task_id}/cancel", operation_id = "cancel_task", tag = "operate", params(TaskPath),
    request_body = Option<Action>,
    responses((status = 200, description = "Done.", body = Acted), NoTask, Illegal, BadPath, BadBody, Broken))]
pub(super) async fn cancel(
    State(orchestration): State<Orchestration>,
    Segments(TaskPath { task_id }): Segments<TaskPath>,
    OptionalBody(action): OptionalBody<Action>,
) -> Answer {
    acted(task_id, operate::cancel(&orchestration, task_id, &action).await)
}

/// Starts no further step of a task; those that run may end.
#[utoipa::path(post, path = "/v1/tasks/{task_id}/pause", operation_id = "pause_task", tag = "operate", params(TaskPath),
    request_body = Option<Action>,
    responses((status = 200, description = "Done.", body = Acted), NoTask, Illegal, BadPath, BadBody, Broken))]
pub(super) async fn pause(
    State(orchestration): State<Orchestration>,
    Segments(TaskPath { task_id }): Segments<TaskPath>,
    OptionalBody(action): OptionalBody<Action>,
) -> Answer {
    acted(task_id, operate::pause(&orchestration, task_id, &action).await)
}

/// Lets a paused task go on.
#[utoipa::path(post, path = "/v1/tasks/{task_id}/resume", operation_id = "resume_task", tag = "operate", params(TaskPath),
    request_body = Option<Action>,
    responses((status = 200, description = "Done.", body = Acted), NoTask, Illegal, BadPath, BadBody, Broken))]
pub(super) async fn resume(
    State(orchestration): State<Orchestration>,
    Segments(TaskPath { task_id }): Segments<TaskPath>,
    OptionalBody(action): OptionalBody<Action>,
) -> Answer {
    acted(task_id, operate::resume(&orchestration, task_id, &action).await)
}

/// Runs all failed steps of a failed task again.
#[utoipa::path(post, path = "/v1/tasks/{task_id}/retry", operation_id = "retry_task", tag = "operate", params(TaskPath),
    request_body = Option<Action>,
    responses((status = 200, description = "Done.", body = Acted), NoTask, Illegal, BadPath, BadBody, Broken))]
pub(super) async fn retry(
    State(orchestration): State<Orchestration>,
    Segments(TaskPath { task_id }): Segments<TaskPath>,
    OptionalBody(action): OptionalBody<Action>,
) -> Answer {
    acted(task_id, operate::retry(&orchestration, task_id, &action).await)
}

/// Declares a failed task settled.
#[utoipa::path(post, path = "/v1/tasks/{task_id}/resolve", operation_id = "resolve_task", tag = "operate", params(TaskPath),
    request_body = Option<Action>,
    responses((status = 200, description = "Done.", body = Acted), NoTask, Illegal, BadPath, BadBody, Broken))]
pub(super) async fn resolve(
    State(orchestration): State<Orchestration>,
    Segments(TaskPath { task_id }): Segments<TaskPath>,
    OptionalBody(action): OptionalBody<Action>,
) -> Answer {
    acted(task_id, operate::resolve(&orchestration, task_id, &action).await)
}

/// Runs one failed step again; the task goes on.
#[utoipa::path(post, path = "/v1/tasks/{task_id}/steps/{step}/retry", tag = "operate", params(StepPath),
    request_body = Option<Action>,
    responses((status = 200, description = "Done.", body = Acted), NoTask, Illegal, BadPath, BadBody, Broken))]
pub(super) async fn retry_step(
    State(orchestration): State<Orchestration>,
    Segments(StepPath { task_id, step }): Segments<StepPath>,
    OptionalBody(action): OptionalBody<Action>,
) -> Answer {
    acted(task_id, operate::retry_step(&orchestration, task_id, &step, &action).await)
}

/// Stops one step; what depends on it cannot run any more.
#[utoipa::path(post, path = "/v1/tasks/{task_id}/steps/{step}/cancel", tag = "operate", params(StepPath),
    request_body = Option<Action>,
    responses((status = 200, description = "Done.", body = Acted), NoTask, Illegal, BadPath, BadBody, Broken))]
pub(super) async fn cancel_step(
    State(orchestration): State<Orchestration>,
    Segments(StepPath { task_id, step }): Segments<StepPath>,
    OptionalBody(action): OptionalBody<Action>,
) -> Answer {
    acted(task_id, operate::cancel_step(&orchestration, task_id, &step, &action).await)
}

/// Gives a step its result by hand; what depends on it goes on.
#[utoipa::path(post, path = "/v1/tasks/{task_id}/steps/{step}/resolve", tag = "operate", params(StepPath),
    request_body = ResolveStep,
    responses((status = 200, description = "Done.", body = Acted), NoTask, Illegal, BadPath, BadBody, Broken))]
pub(super) async fn resolve_step(
    State(orchestration): State<Orchestration>,
    Segments(StepPath { task_id, step }): Segments<StepPath>,
    Body(resolution): Body<ResolveStep>,
) -> Answer {
    acted(task_id, operate::resolve_step(&orchestration, task_id, &step, &resolution).await)
}

fn acted(task_id: TaskId, state: Result<TaskState, Error>) -> Answer {
    Ok(Json(Acted { task_id, state: state? }))
}
