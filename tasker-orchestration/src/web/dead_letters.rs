//! Routes to look at dead letters and to deal with them.

use super::{
    actions::StepPath,
    answer::Refusal,
    caller::Caller,
    document::{BadBody, BadPath, BadQuery, Broken, Illegal, NoLetter, NoTask},
    extract::{OptionalBody, Params, Segments},
};
use crate::{Error, Orchestration, operate, query};
use axum::{Json, extract::State};
use serde::Deserialize;
use tasker_shared::{
    api::{Acted, Action, DeadLetter, DeadLetterFilter, DeadLetterPage, DeadLetterSummary},
    id::DeadLetterId,
};
use utoipa::IntoParams;

type Answer = Result<Json<DeadLetterSummary>, Refusal>;

/// The dead letter of a route.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct LetterPath {
    /// The dead letter.
    #[param(value_type = uuid::Uuid)]
    dead_letter_id: DeadLetterId,
}

/// Lists dead letters, the newest first.
#[utoipa::path(get, path = "/v1/dead-letters", operation_id = "list_dead_letters", tag = "dead letters",
    params(DeadLetterFilter), responses(
    (status = 200, description = "A page of dead letters.", body = DeadLetterPage),
    BadQuery, Broken,
))]
pub(super) async fn list(
    State(orchestration): State<Orchestration>,
    caller: Caller,
    Params(filter): Params<DeadLetterFilter>,
) -> Result<Json<DeadLetterPage>, Refusal> {
    Ok(Json(query::dead_letters(&orchestration, &filter, caller.namespaces()).await?))
}

/// Shows a dead letter with its message and what task and step were like.
#[utoipa::path(get, path = "/v1/dead-letters/{dead_letter_id}", operation_id = "get_dead_letter", tag = "dead letters",
    params(LetterPath), responses(
    (status = 200, description = "The dead letter.", body = DeadLetter),
    NoLetter, BadPath, Broken,
))]
pub(super) async fn show(
    State(orchestration): State<Orchestration>,
    caller: Caller,
    Segments(path): Segments<LetterPath>,
) -> Result<Json<DeadLetter>, Refusal> {
    let letter = query::dead_letter(&orchestration, path.dead_letter_id).await?;
    if !caller.sees(letter.summary.namespace.as_deref()) {
        return Err(Error::DeadLetterNotFound(path.dead_letter_id).into());
    }
    Ok(Json(letter))
}

/// Puts the work back: runs the step again, or sends the message again. Once only.
#[utoipa::path(post, path = "/v1/dead-letters/{dead_letter_id}/redrive", operation_id = "redrive_dead_letter",
    tag = "dead letters", params(LetterPath), request_body = Option<Action>,
    responses((status = 200, description = "Done.", body = DeadLetterSummary), NoLetter, Illegal, BadPath, BadBody, Broken))]
pub(super) async fn redrive(
    State(orchestration): State<Orchestration>,
    caller: Caller,
    Segments(path): Segments<LetterPath>,
    OptionalBody(action): OptionalBody<Action>,
) -> Answer {
    let action = own(&orchestration, &caller, path.dead_letter_id, action).await?;
    Ok(Json(operate::redrive(&orchestration, path.dead_letter_id, &action).await?))
}

/// Says that it was dealt with by other means.
#[utoipa::path(post, path = "/v1/dead-letters/{dead_letter_id}/resolve", operation_id = "resolve_dead_letter",
    tag = "dead letters", params(LetterPath), request_body = Option<Action>,
    responses((status = 200, description = "Done.", body = DeadLetterSummary), NoLetter, Illegal, BadPath, BadBody, Broken))]
pub(super) async fn resolve(
    State(orchestration): State<Orchestration>,
    caller: Caller,
    Segments(path): Segments<LetterPath>,
    OptionalBody(action): OptionalBody<Action>,
) -> Answer {
    let action = own(&orchestration, &caller, path.dead_letter_id, action).await?;
    Ok(Json(operate::resolve_dead_letter(&orchestration, path.dead_letter_id, &action).await?))
}

/// Gives it up; what still waits for it fails.
#[utoipa::path(post, path = "/v1/dead-letters/{dead_letter_id}/discard", operation_id = "discard_dead_letter",
    tag = "dead letters", params(LetterPath), request_body = Option<Action>,
    responses((status = 200, description = "Done.", body = DeadLetterSummary), NoLetter, Illegal, BadPath, BadBody, Broken))]
pub(super) async fn discard(
    State(orchestration): State<Orchestration>,
    caller: Caller,
    Segments(path): Segments<LetterPath>,
    OptionalBody(action): OptionalBody<Action>,
) -> Answer {
    let action = own(&orchestration, &caller, path.dead_letter_id, action).await?;
    Ok(Json(operate::discard(&orchestration, path.dead_letter_id, &action).await?))
}

/// Takes a step off the line as a dead letter, until somebody redrives it.
#[utoipa::path(post, path = "/v1/tasks/{task_id}/steps/{step}/park", operation_id = "park_step", tag = "dead letters",
    params(StepPath), request_body = Option<Action>,
    responses((status = 200, description = "Done.", body = Acted), NoTask, Illegal, BadPath, BadBody, Broken))]
pub(super) async fn park(
    State(orchestration): State<Orchestration>,
    caller: Caller,
    Segments(StepPath { task_id, step }): Segments<StepPath>,
    OptionalBody(action): OptionalBody<Action>,
) -> Result<Json<Acted>, Refusal> {
    let action = caller.signs(action);
    Ok(Json(operate::park_step(&orchestration, task_id, &step, &action).await?))
}

/// The action in the caller's name, if the dead letter is one that it sees.
async fn own(
    orchestration: &Orchestration,
    caller: &Caller,
    id: DeadLetterId,
    action: Action,
) -> Result<Action, Refusal> {
    if caller.namespaces().limit().is_some() {
        let letter = query::letter(orchestration, id).await?;
        if !caller.sees(letter.summary.namespace.as_deref()) {
            return Err(Error::DeadLetterNotFound(id).into());
        }
    }
    Ok(caller.signs(action))
}
