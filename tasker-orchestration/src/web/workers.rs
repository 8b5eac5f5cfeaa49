//! The route to look at workers.

use super::{answer::Refusal, caller::Caller, document::Broken};
use crate::{Orchestration, query};
use axum::{Json, extract::State};
use tasker_shared::api::WorkerList;

/// Lists the workers that are known.
#[utoipa::path(get, path = "/v1/workers", operation_id = "list_workers", tag = "workers", responses(
    (status = 200, description = "The workers.", body = WorkerList),
    Broken,
))]
pub(super) async fn list(
    State(orchestration): State<Orchestration>,
    caller: Caller,
) -> Result<Json<WorkerList>, Refusal> {
    Ok(Json(query::workers(&orchestration, caller.namespaces()).await?))
}
