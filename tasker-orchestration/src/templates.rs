//! Registered templates.

use crate::{Error, Orchestration};
use tasker_shared::api::{Applied, ApplyTemplate, TemplateDetail, TemplateList};

/// Registers a template; the same definition again changes nothing.
///
/// # Errors
/// [`Error::TemplateInvalid`], [`Error::TemplateConflict`], [`Error::Storage`].
pub async fn apply(orchestration: &Orchestration, request: &ApplyTemplate) -> Result<Applied, Error> {
    let _ = (orchestration, request);
    todo!()
}

/// All registered templates.
///
/// # Errors
/// [`Error::Storage`].
pub async fn list(orchestration: &Orchestration) -> Result<TemplateList, Error> {
    let _ = orchestration;
    todo!()
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
    let _ = (orchestration, namespace, name, version);
    todo!()
}
