//! Routes for limits on how many steps run at once.

use super::{
    answer::Refusal,
    document::{BadBody, BadPath, BadQuery, Broken, NoLimit},
    extract::{Body, OptionalBody, Params, Segments},
};
use crate::{Orchestration, limits};
use axum::{Json, extract::State};
use serde::Deserialize;
use tasker_shared::api::{Action, LimitList, LimitSummary, SetLimit, WhichLimit};
use utoipa::IntoParams;

/// The namespace of a route.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct NamespacePath {
    /// The namespace.
    namespace: String,
}

/// Lists the limits of operators and templates, and how much of them is used.
#[utoipa::path(get, path = "/v1/limits", operation_id = "list_limits", tag = "limits", responses(
    (status = 200, description = "The limits.", body = LimitList),
    Broken,
))]
pub(super) async fn list(State(orchestration): State<Orchestration>) -> Result<Json<LimitList>, Refusal> {
    Ok(Json(limits::list(&orchestration).await?))
}

/// Sets how many steps of a namespace, or of one of its handlers, run at once.
#[utoipa::path(put, path = "/v1/limits/{namespace}", operation_id = "set_limit", tag = "limits", params(NamespacePath),
    request_body = SetLimit,
    responses((status = 200, description = "The limit.", body = LimitSummary), NoLimit, BadPath, BadBody, Broken))]
pub(super) async fn set(
    State(orchestration): State<Orchestration>,
    Segments(path): Segments<NamespacePath>,
    Body(limit): Body<SetLimit>,
) -> Result<Json<LimitSummary>, Refusal> {
    Ok(Json(limits::set(&orchestration, &path.namespace, &limit).await?))
}

/// Removes a limit that an operator set.
#[utoipa::path(delete, path = "/v1/limits/{namespace}", operation_id = "remove_limit", tag = "limits",
    params(NamespacePath, WhichLimit), request_body = Option<Action>,
    responses((status = 200, description = "The limits that are left.", body = LimitList), NoLimit, BadQuery, BadBody, Broken))]
pub(super) async fn remove(
    State(orchestration): State<Orchestration>,
    Segments(path): Segments<NamespacePath>,
    Params(which): Params<WhichLimit>,
    OptionalBody(action): OptionalBody<Action>,
) -> Result<Json<LimitList>, Refusal> {
    Ok(Json(limits::remove(&orchestration, &path.namespace, &which, &action).await?))
}
