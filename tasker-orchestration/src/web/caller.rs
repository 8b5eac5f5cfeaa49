//! The one who asks, as handlers see it. The gate has asked for the permission; where a route reaches into several
//! namespaces, the handler says here which one it is about.

use super::answer::Refusal;
use crate::Error;
use axum::{extract::FromRequestParts, http::request::Parts};
use tasker_shared::{
    access::{Namespaces, Principal},
    api::{Action, ResolveStep, SubmitTask},
    runtime::{access, web::internal},
};

/// The caller of a request.
pub(super) struct Caller(pub(super) Principal);

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Refusal;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let principal = parts.extensions.get::<Principal>().cloned();
        principal.map(Self).ok_or_else(|| internal("a request came by the gate of access").into())
    }
}

impl Caller {
    /// Where its permissions hold.
    pub(super) fn namespaces(&self) -> &Namespaces {
        self.0.namespaces()
    }

    /// Whether something of this namespace is its to see; what has none is for those who see every one.
    pub(super) fn sees(&self, namespace: Option<&str>) -> bool {
        match namespace {
            Some(namespace) => self.namespaces().contain(namespace),
            None => self.namespaces().limit().is_none(),
        }
    }

    /// Refuses what is about another namespace.
    pub(super) fn reaches(&self, namespace: &str) -> Result<(), Refusal> {
        if self.namespaces().contain(namespace) { Ok(()) } else { Err(access::outside(&self.0, namespace).into()) }
    }

    /// An action in its own name.
    pub(super) fn signs(&self, action: Action) -> Action {
        Action { by: self.0.or_named(action.by), ..action }
    }

    /// A step's result in its own name.
    pub(super) fn signs_result(&self, resolution: ResolveStep) -> ResolveStep {
        ResolveStep { by: self.0.or_named(resolution.by), ..resolution }
    }

    /// A task in its own name.
    pub(super) fn signs_task(&self, task: SubmitTask) -> SubmitTask {
        SubmitTask { initiator: self.0.or_named(task.initiator), ..task }
    }

    /// An error without what it tells of other namespaces.
    pub(super) fn may_hear(&self, error: Error) -> Error {
        match error {
            Error::TemplateNotFound { template, .. } if self.namespaces().limit().is_some() => {
                Error::TemplateNotFound { template, nearest: None }
            }
            other => other,
        }
    }
}
