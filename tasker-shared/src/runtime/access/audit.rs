//! What the gate writes into the audit.

use crate::{
    api::{AuditOutcome, Problem},
    id::RequestId,
    storage::{
        Database,
        audit::{self, Entry},
    },
};
use axum::{http::StatusCode, response::Response};
use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The most callers per minute whose refusal is written down: strangers must not fill the table.
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

/// Writes down that a caller was turned away.
pub(super) async fn turned_away(database: &Database, allowance: &Allowance, asked: Asked, problem: &Problem) {
    if allowance.take() {
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::FORBIDDEN);
        write(database, entry(asked, status, Some(problem.title.clone()))).await;
    }
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
            action = entry.action,
            audit.target = entry.target,
            outcome = %entry.outcome,
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
    taken: u32,
    left_out: u32,
}

impl Allowance {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Minute { since: Instant::now(), taken: 0, left_out: 0 }))
    }

    fn take(&self) -> bool {
        let mut minute = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if minute.since.elapsed() >= Duration::from_secs(60) {
            if minute.left_out > 0 {
                tracing::warn!(count = minute.left_out, "refused callers were left out of the audit: too many");
            }
            *minute = Minute { since: Instant::now(), taken: 0, left_out: 0 };
        }
        let may = minute.taken < REFUSALS_PER_MINUTE;
        if may {
            minute.taken += 1;
        } else {
            minute.left_out += 1;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::{Allowance, REFUSALS_PER_MINUTE};

    #[test]
    fn strangers_cannot_fill_the_audit() {
        let allowance = Allowance::new();
        let written = (0..10_000).filter(|_| allowance.take()).count();
        assert_eq!(written, REFUSALS_PER_MINUTE as usize);
    }
}
