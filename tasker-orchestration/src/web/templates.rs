//! Routes to register templates and to look at them.

use super::{
    document::{BadBody, BadPath, BadQuery, Broken, Conflict, NoTemplate},
    extract::{Params, Segments, TemplateText},
};
use crate::{Orchestration, templates};
use axum::{Json, extract::State};
use serde::Deserialize;
use tasker_shared::api::{Applied, ApplyTemplate, Problem, TemplateDetail, TemplateList};
use utoipa::IntoParams;

/// The template of a route.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct TemplatePath {
    /// The template's namespace.
    namespace: String,
    /// The template's name.
    name: String,
}

/// Which version.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Version {
    /// The version; the newest registered one when not given.
    version: Option<String>,
}

/// Lists all registered templates.
#[utoipa::path(get, path = "/v1/templates", tag = "templates", responses(
    (status = 200, description = "The templates.", body = TemplateList),
    Broken,
))]
pub(super) async fn list(State(orchestration): State<Orchestration>) -> Result<Json<TemplateList>, Problem> {
    Ok(Json(templates::list(&orchestration).await?))
}

/// Shows a template with its definition.
#[utoipa::path(get, path = "/v1/templates/{namespace}/{name}", tag = "templates", params(TemplatePath, Version),
    responses(
        (status = 200, description = "The template.", body = TemplateDetail),
        NoTemplate, BadPath, BadQuery, Broken,
    ))]
pub(super) async fn show(
    State(orchestration): State<Orchestration>,
    Segments(TemplatePath { namespace, name }): Segments<TemplatePath>,
    Params(Version { version }): Params<Version>,
) -> Result<Json<TemplateDetail>, Problem> {
    Ok(Json(templates::get(&orchestration, &namespace, &name, version.as_deref()).await?))
}

/// Registers a template; the same definition again changes nothing.
#[utoipa::path(post, path = "/v1/templates", tag = "templates",
    request_body(content((ApplyTemplate = "application/json"), (String = "application/yaml"))),
    responses(
        (status = 200, description = "It is registered; `changed` tells whether it was before.", body = Applied),
        Conflict, BadBody, Broken,
    ))]
pub(super) async fn apply(
    State(orchestration): State<Orchestration>,
    TemplateText(template): TemplateText,
) -> Result<Json<Applied>, Problem> {
    Ok(Json(templates::apply(&orchestration, &template).await?))
}
