//! What the command does on the database itself stands in the audit, like what is asked of the services.

use crate::{error::Result, shell::Shell};
use tasker_shared::{
    api::AuditOutcome,
    id::RequestId,
    storage::{
        Session,
        audit::{self, Entry},
    },
};

/// Writes down what was done, in the transaction that does it, so that nothing is done without a trace. Entries of one
/// command have the same `run`.
pub(in crate::command) async fn write(
    session: &mut Session,
    run: RequestId,
    action: &'static str,
    target: String,
) -> Result<()> {
    let entry = Entry {
        principal: Shell::operator(),
        address: Some(audit::database_user(session).await?),
        action,
        target,
        outcome: AuditOutcome::Done,
        status: None,
        reason: None,
        request_id: run,
    };
    Ok(audit::insert(session, &entry).await?)
}
