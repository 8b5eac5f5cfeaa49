//! Routes to manage API keys, and to read the audit.

use super::{
    answer::Refusal,
    caller::Caller,
    document::{AuthenticationOff, BadBody, BadPath, BadQuery, Broken, NoKey},
    extract::{Body, Params, Segments},
};
use crate::{Error, Orchestration, keys};
use axum::{
    Extension, Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use tasker_shared::{
    access::{Grant, Namespaces},
    api::{AuditFilter, AuditPage, CreateKey, CreatedKey, KeyList, KeySummary, Problem},
    runtime::{access::Target, web::problem},
};
use utoipa::IntoParams;

/// The key of a route.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct KeyPath {
    /// The part of the key that may be shown.
    prefix: String,
}

/// Makes an API key.
///
/// It is shown once. It cannot have more permissions or namespaces than the caller, nor end later than the key or token of the caller.
#[utoipa::path(post, path = "/v1/keys", operation_id = "create_key", tag = "keys", request_body = CreateKey,
    responses((status = 201, description = "The key; it is shown this once.", body = CreatedKey), AuthenticationOff, BadBody, Broken))]
pub(super) async fn create(
    State(orchestration): State<Orchestration>,
    caller: Caller,
    Body(request): Body<CreateKey>,
) -> Result<Response, Refusal> {
    is_known(&caller)?;
    let target = request.name.clone();
    let asked = keys::check(request)?;
    if let Some(grant) = asked.grants.iter().find(|grant| !caller.0.covers(**grant)) {
        let title = format!("`{}` cannot hand on the permission `{grant}`, which it does not have", caller.0);
        return Err(problem(StatusCode::FORBIDDEN, "forbidden", title).into());
    }
    if !caller.namespaces().cover(&asked.namespaces) {
        let title = format!("`{}` cannot hand on namespaces that it does not have", caller.0);
        return Err(problem(StatusCode::FORBIDDEN, "forbidden", title).into());
    }
    if let Some(end) = caller.0.ends()
        && asked.expires_at().is_none_or(|asked| asked > end)
    {
        let title = format!("`{}` ends at {end} and cannot hand out a key that ends later", caller.0);
        let detail = Some(format!("give `expires_at`, at most {}", end.to_rfc3339()));
        return Err(Problem { detail, ..problem(StatusCode::FORBIDDEN, "forbidden", title) }.into());
    }
    let mut session = orchestration.database().session("create_key").await.map_err(Error::from)?;
    let created = keys::create(&mut session, &asked, caller.0.name()).await?;
    Ok((StatusCode::CREATED, Extension(Target(target)), Json(created)).into_response())
}

/// Lists the API keys that have no more permissions and namespaces than the caller, also those that have ended.
#[utoipa::path(get, path = "/v1/keys", operation_id = "list_keys", tag = "keys",
    responses((status = 200, description = "The keys.", body = KeyList), AuthenticationOff, Broken))]
pub(super) async fn list(State(orchestration): State<Orchestration>, caller: Caller) -> Result<Json<KeyList>, Refusal> {
    is_known(&caller)?;
    let mut session = orchestration.database().session("list_keys").await.map_err(Error::from)?;
    let KeyList { mut keys } = keys::list(&mut session).await?;
    keys.retain(|key| commands(&caller, key));
    Ok(Json(KeyList { keys }))
}

/// Ends an API key.
#[utoipa::path(post, path = "/v1/keys/{prefix}/revoke", operation_id = "revoke_key", tag = "keys", params(KeyPath),
    responses((status = 200, description = "It has ended.", body = KeySummary), NoKey, AuthenticationOff, BadPath, Broken))]
pub(super) async fn revoke(
    State(orchestration): State<Orchestration>,
    caller: Caller,
    Segments(KeyPath { prefix }): Segments<KeyPath>,
) -> Result<(Extension<Target>, Json<KeySummary>), Refusal> {
    is_known(&caller)?;
    let mut session = orchestration.database().session("revoke_key").await.map_err(Error::from)?;
    let found = keys::find(&mut session, &prefix).await?;
    if !commands(&caller, &found) {
        return Err(Error::KeyNotFound(prefix).into());
    }
    let revoked = keys::revoke(&mut session, &prefix).await?;
    Ok((Extension(Target(revoked.name.clone())), Json(revoked)))
}

/// Tells what operators did and tried to do, the newest first.
#[utoipa::path(get, path = "/v1/audit", operation_id = "list_audit", tag = "audit", params(AuditFilter),
    responses((status = 200, description = "A page of the audit.", body = AuditPage), BadQuery, Broken))]
pub(super) async fn audit(
    State(orchestration): State<Orchestration>,
    Params(filter): Params<AuditFilter>,
) -> Result<Json<AuditPage>, Refusal> {
    Ok(Json(keys::audited(orchestration.database(), &filter).await?))
}

/// Keys are handed out by those who are known: while authentication is off, everybody would be an administrator later.
fn is_known(caller: &Caller) -> Result<(), Refusal> {
    if caller.0.is_authenticated() {
        return Ok(());
    }
    let title = "authentication is off, so API keys are managed with `tasker key`, which works on the database";
    Err(problem(StatusCode::CONFLICT, "authentication_off", title).into())
}

/// Whether the caller could have made this key.
fn commands(caller: &Caller, key: &KeySummary) -> bool {
    // a word of a later version is more than anybody has here
    let grants = key.permissions.iter().map(|word| word.parse::<Grant>());
    grants.into_iter().all(|grant| grant.is_ok_and(|grant| caller.0.covers(grant)))
        && caller.namespaces().cover(&Namespaces::from_list(key.namespaces.iter().cloned()))
}
