//! What the gate writes into the audit.

use crate::{
    api::AuditOutcome,
    id::RequestId,
    storage::{
        Database,
        audit::{self, Entry},
    },
};
use axum::{http::StatusCode, response::Response};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The most refusals per minute that are written down, of each caller who is known and of all others together: they must
/// not fill the table, and not hide each other.
const REFUSALS_PER_MINUTE: u32 = 100;

/// On what an action was, where the path of the request does not tell: an extension of the answer.
#[derive(Debug, Clone)]
pub struct Target(pub String);

/// Why an answer is a refusal: an extension of the answer.
#[derive(Debug, Clone)]
pub(crate) struct Reason(pub(crate) String);

/// Who asked for what, from where.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) principal: String,
    pub(super) address: Option<String>,
    pub(super) action: &'static str,
    pub(super) target: String,
    pub(super) request_id: RequestId,
}

/// What became of an action.
pub(super) fn answered(asked: Asked, response: &Response) -> Entry {
    let target = response.extensions().get::<Target>().map_or(asked.target, |target| target.0.clone());
    let reason = response.extensions().get::<Reason>().map(|reason| reason.0.clone());
    entry(Asked { target, ..asked }, response.status(), reason)
}

/// What to write of a caller who was turned away, if there is room for it.
pub(super) fn turned_away(allowance: &Allowance, asked: Asked, response: &Response) -> Option<Entry> {
    allowance.take(&asked.principal).then(|| answered(asked, response))
}

fn entry(asked: Asked, status: StatusCode, reason: Option<String>) -> Entry {
    let outcome = match status {
        status if status.is_success() => AuditOutcome::Done,
        status if status.is_server_error() => AuditOutcome::Failed,
        _ => AuditOutcome::Refused,
    };
    Entry {
        principal: asked.principal,
        address: asked.address,
        action: asked.action,
        target: asked.target,
        outcome,
        status: Some(status.as_u16()),
        reason,
        request_id: asked.request_id,
    }
}

/// What cannot be stored is at least logged whole.
pub(super) async fn write(database: &Database, entry: Entry) {
    let written = async { audit::insert(&mut database.session("audit").await?, &entry).await };
    if let Err(error) = written.await {
        tracing::error!(
            principal = entry.principal,
            address = entry.address,
            action = entry.action,
            audit.target = entry.target,
            outcome = %entry.outcome,
            status = entry.status,
            reason = entry.reason,
            request.id = %entry.request_id,
            "failed to write the audit: {error}"
        );
    }
}

/// How many refusals may be written down in this minute.
#[derive(Debug)]
pub(super) struct Allowance(Mutex<Minute>);

#[derive(Debug)]
struct Minute {
    since: Instant,
    taken: HashMap<String, u32>,
    left_out: u32,
}

impl Allowance {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Minute::new()))
    }

    fn take(&self, principal: &str) -> bool {
        let mut minute = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if minute.since.elapsed() >= Duration::from_secs(60) {
            if minute.left_out > 0 {
                tracing::warn!(count = minute.left_out, "refusals were left out of the audit: too many");
            }
            *minute = Minute::new();
        }
        let taken = minute.taken.entry(principal.to_owned()).or_default();
        let may = *taken < REFUSALS_PER_MINUTE;
        if may {
            *taken += 1;
        } else {
            minute.left_out += 1;
        }
        may
    }
}

impl Minute {
    fn new() -> Self {
        Self { since: Instant::now(), taken: HashMap::new(), left_out: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::{Allowance, REFUSALS_PER_MINUTE};

    #[test]
    fn nobody_can_fill_the_audit_or_hide_the_refusals_of_another() {
        let allowance = Allowance::new();
        for principal in ["unknown", "key:ci", "key:ada"] {
            let written = (0..10_000).filter(|_| allowance.take(principal)).count();
            assert_eq!(written, REFUSALS_PER_MINUTE as usize, "{principal}");
        }
    }
}
