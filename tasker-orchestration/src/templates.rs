//! Registered templates.

use crate::{Error, Orchestration};
use tasker_shared::{
    access::Namespaces,
    api::{Applied, ApplyTemplate, TemplateDetail, TemplateList},
    id::TemplateId,
    runtime::Topic,
    storage::{self, templates},
    template::{self, Template},
};

/// Registers a template; the same definition again changes nothing.
///
/// # Errors
/// [`Error::TemplateInvalid`], [`Error::TemplateConflict`], [`Error::Storage`].
pub async fn apply(orchestration: &Orchestration, request: &ApplyTemplate) -> Result<Applied, Error> {
    apply_parsed(orchestration, &parse(request)?, &request.source).await
}

/// Reads a template that is to be registered.
///
/// # Errors
/// [`Error::TemplateInvalid`].
pub fn parse(request: &ApplyTemplate) -> Result<Template, Error> {
    let parsed = template::parse(&request.source, request.file.as_deref())
        .map_err(|invalid| Error::TemplateInvalid(invalid.problems.iter().map(ToString::to_string).collect()))?;
    if request.source.contains('\0') {
        return Err(Error::TemplateInvalid(vec!["the text contains the character \\u0000".to_owned()]));
    }
    Ok(parsed)
}

/// Registers a template that was read from `source`.
///
/// # Errors
/// As [`apply`].
pub async fn apply_parsed(orchestration: &Orchestration, parsed: &Template, source: &str) -> Result<Applied, Error> {
    let checksum = template::checksum(parsed);
    let (namespace, name, version) = (&parsed.namespace, &parsed.name, &parsed.version);
    let mut session = orchestration.database().begin("apply_template").await?;
    templates::open_namespace(&mut session, namespace).await?;
    templates::lock(&mut session, namespace, name).await?;
    let found = templates::find(&mut session, namespace, name, Some(version)).await?;
    if let Some(found) = &found {
        if found.checksum == checksum {
            session.commit().await?;
            return Ok(Applied { template: found.summary(), changed: false });
        }
        match templates::delete_unused(&mut session, found.id).await {
            Ok(true) => {}
            // a task came to use it at that moment
            Err(error) if !error.breaks_reference() => return Err(error.into()),
            Ok(false) | Err(_) => {
                return Err(Error::TemplateConflict { template: format!("{namespace}/{name}@{version}") });
            }
        }
    }
    templates::insert(&mut session, TemplateId::generate(), parsed, source, &checksum).await?;
    let stored = templates::find(&mut session, namespace, name, Some(version)).await?;
    session.commit().await?;
    orchestration.bell().ring(Topic::Namespaces);
    let stored = stored.ok_or_else(|| storage::Error::Inconsistent {
        table: "templates",
        column: "version",
        row: format!("{namespace}/{name}@{version}"),
        reason: "it was inserted and is not there".to_owned(),
    })?;
    Ok(Applied { template: stored.summary(), changed: true })
}

/// All registered templates of these namespaces.
///
/// # Errors
/// [`Error::Storage`].
pub async fn list(orchestration: &Orchestration, within: &Namespaces) -> Result<TemplateList, Error> {
    let mut session = orchestration.database().session("list_templates").await?;
    let rows = templates::list(&mut session).await?;
    Ok(TemplateList {
        templates: rows.iter().filter(|row| within.contain(&row.namespace)).map(templates::Row::summary).collect(),
    })
}

/// One template; the newest registered version when none is given.
///
/// # Errors
/// [`Error::TemplateNotFound`], [`Error::Storage`].
pub async fn get(
    orchestration: &Orchestration,
    namespace: &str,
    name: &str,
    version: Option<&str>,
) -> Result<TemplateDetail, Error> {
    let mut session = orchestration.database().session("show_template").await?;
    let storable = [namespace, name, version.unwrap_or_default()].iter().all(|text| !text.contains('\0'));
    let found = if storable { templates::find(&mut session, namespace, name, version).await? } else { None };
    let Some(found) = found else {
        let wanted = format!("{namespace}/{name}");
        let names: Vec<String> = templates::list(&mut session)
            .await?
            .iter()
            .map(|row| format!("{}/{}", row.namespace, row.name))
            .filter(|known| *known != wanted)
            .collect();
        let nearest = template::nearest(&wanted, names.iter().map(String::as_str));
        let template = version.map_or(wanted.clone(), |version| format!("{wanted}@{version}"));
        return Err(Error::TemplateNotFound { template, nearest });
    };
    Ok(found.detail()?)
}
