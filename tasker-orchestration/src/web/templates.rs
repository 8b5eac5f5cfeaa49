//! Routes to register templates and to look at them.

use super::{
    answer::Refusal,
    caller::Caller,
    document::{BadBody, BadPath, Broken, Conflict, NoTemplate},
    extract::{Params, Segments, TemplateText},
};
use crate::{Error, Orchestration, templates};
use axum::{Extension, Json, extract::State};
use serde::Deserialize;
use tasker_shared::{
    api::{Applied, ApplyTemplate, CheckedTemplate, TemplateDetail, TemplateList},
    runtime::{access::Target, web::internal},
    template,
};
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
#[utoipa::path(get, path = "/v1/templates", operation_id = "list_templates", tag = "templates", responses(
    (status = 200, description = "The templates.", body = TemplateList),
    Broken,
))]
pub(super) async fn list(
    State(orchestration): State<Orchestration>,
    caller: Caller,
) -> Result<Json<TemplateList>, Refusal> {
    Ok(Json(templates::list(&orchestration, caller.namespaces()).await?))
}

/// Shows a template with its definition.
#[utoipa::path(get, path = "/v1/templates/{namespace}/{name}", operation_id = "get_template", tag = "templates", params(TemplatePath, Version),
    responses(
        (status = 200, description = "The template.", body = TemplateDetail),
        NoTemplate, BadPath, Broken,
    ))]
pub(super) async fn show(
    State(orchestration): State<Orchestration>,
    caller: Caller,
    Segments(TemplatePath { namespace, name }): Segments<TemplatePath>,
    Params(Version { version }): Params<Version>,
) -> Result<Json<TemplateDetail>, Refusal> {
    let found = templates::get(&orchestration, &namespace, &name, version.as_deref()).await;
    Ok(Json(found.map_err(|error| caller.may_hear(error))?))
}

/// Registers a template; the same definition again changes nothing.
#[utoipa::path(post, path = "/v1/templates", operation_id = "apply_template", tag = "templates",
    request_body(content((ApplyTemplate = "application/json"), (String = "application/yaml"))),
    responses(
        (status = 200, description = "It is registered; `changed` tells whether it was before.", body = Applied),
        Conflict, BadBody, Broken,
    ))]
pub(super) async fn apply(
    State(orchestration): State<Orchestration>,
    caller: Caller,
    TemplateText(template): TemplateText,
) -> Result<(Extension<Target>, Json<Applied>), Refusal> {
    let parsed = templates::parse(&template)?;
    caller.reaches(&parsed.namespace)?;
    let applied = templates::apply_parsed(&orchestration, &parsed, &template.source).await?;
    let target = format!("{}/{}@{}", parsed.namespace, parsed.name, parsed.version);
    Ok((Extension(Target(target)), Json(applied)))
}

/// Checks a template without registering it.
#[utoipa::path(post, path = "/v1/templates/check", operation_id = "check_template", tag = "templates",
    request_body(content((ApplyTemplate = "application/json"), (String = "application/yaml"))),
    responses((status = 200, description = "It is in order.", body = CheckedTemplate), BadBody, Broken))]
pub(super) async fn check(TemplateText(template): TemplateText) -> Result<Json<CheckedTemplate>, Refusal> {
    let checked = tokio::task::spawn_blocking(move || checked(&template)).await;
    Ok(Json(checked.map_err(|failed| internal(&failed))??))
}

fn checked(text: &ApplyTemplate) -> Result<CheckedTemplate, Error> {
    let template = template::parse(&text.source, text.file.as_deref())
        .map_err(|invalid| Error::TemplateInvalid(listed(&invalid)))?;
    Ok(CheckedTemplate {
        namespace: template.namespace.to_string(),
        name: template.name.to_string(),
        version: template.version.clone(),
        steps: template.steps.len(),
        checksum: template::checksum(&template),
    })
}

fn listed(invalid: &template::Invalid) -> Vec<String> {
    let more = (invalid.omitted > 0).then(|| format!("and {} more", invalid.omitted));
    invalid.problems.iter().map(ToString::to_string).chain(more).collect()
}
