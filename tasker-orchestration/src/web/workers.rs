//! The route to look at workers.

use super::document::Broken;
use crate::{Orchestration, query};
use axum::{Json, extract::State};
use tasker_shared::api::{Problem, WorkerList};

/// Lists the workers that are known.
#[utoipa::path(get, path = "/v1/workers", tag = "workers", responses(
    (status = 200, description = "The workers.", body = WorkerList),
    Broken,
))]
pub(super) async fn list(State(orchestration): State<Orchestration>) -> Result<Json<WorkerList>, Problem> {
    Ok(Json(query::workers(&orchestration).await?))
}
