//! Station *report*, for handlers that write in its transaction: the report comes first and is the fence, their writes
//! follow, and both commit or neither does.

use crate::{
    core::Core,
    handler::Writes,
    report::{self, Executed, PAUSE, Stored},
};
use futures::FutureExt as _;
use std::{
    collections::HashSet,
    panic::AssertUnwindSafe,
    time::{Duration, Instant, SystemTime},
};
use tasker_shared::{
    step::{Failure, FailureKind, Outcome},
    storage::{
        self, Error, Session,
        reports::{self, Report},
    },
};

/// Reports a success together with its handler's writes. What comes back is still to be reported: there was nothing to
/// write, or the writes failed and the outcome says so.
pub(crate) async fn report(core: &Core, mut executed: Executed, writes: Writes) -> Option<Executed> {
    if writes.is_empty() || !matches!(executed.outcome, Outcome::Success(_)) {
        return Some(executed);
    }
    // the semaphore is never closed
    let _turn = core.writing.acquire().await;
    let (step, attempt) = (executed.step.step_id, executed.step.attempt);
    let (began, started) = (SystemTime::now(), Instant::now());
    core.running.set_writing(step, attempt, true);
    let stored = match together(core, &executed, writes).await {
        Ok(stored) => stored,
        Err(failure) => {
            core.running.set_writing(step, attempt, false);
            executed.outcome = Outcome::Failure(failure);
            return Some(executed);
        }
    };
    let permits = report::permits_of(std::slice::from_ref(&executed));
    report::told(core, vec![executed], &stored, began, started.elapsed());
    report::free(core, permits).await;
    None
}

/// The report and the writes in one transaction; answers with the step when the report was accepted.
async fn together(core: &Core, executed: &Executed, writes: Writes) -> Result<Stored, Failure> {
    let limit = core.settings.lease / 2;
    let Some(mut session) = fenced(core, executed, limit).await? else { return Ok(Stored::default()) };
    let run = AssertUnwindSafe(writes.run(session.connection())).catch_unwind();
    let written = tokio::time::timeout(limit, run).await;
    // a session that is dropped here rolls back
    match written {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error))) => return Err(error.into()),
        Ok(Err(_)) => {
            return Err(Failure::new(FailureKind::Panic, "the handler panicked while it wrote in its report"));
        }
        Err(_) => {
            let message = format!("the handler's writes took longer than {} s, half of the lease", limit.as_secs_f64());
            return Err(Failure::new(FailureKind::Timeout, message));
        }
    }
    // where the commit's answer is lost, the failure that is reported now is refused if the commit took place
    let transaction = session.commit().await.map_err(|error| unsaved(&error))?;
    Ok(Stored { accepted: HashSet::from([executed.step.step_id]), transaction: Some(transaction) })
}

/// A transaction in which the report is stored; none when it was refused. While the database is away it is tried again
/// until the lease is lost.
async fn fenced(core: &Core, executed: &Executed, limit: Duration) -> Result<Option<Session>, Failure> {
    let report = report::report(executed);
    let mut pause = PAUSE.0;
    loop {
        match fence(core, executed, &report, limit).await {
            Ok(session) => return Ok(session),
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, step.id = %report.step_id, "failed to report; trying again until the lease is lost");
                // nothing holds the step meanwhile, so its lease is extended
                core.running.set_writing(report.step_id, report.attempt, false);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
                if !core.running.holds(report.step_id, report.attempt) {
                    return Ok(None);
                }
                core.running.set_writing(report.step_id, report.attempt, true);
            }
            Err(error) => return Err(unsaved(&error)),
        }
    }
}

async fn fence(
    core: &Core,
    executed: &Executed,
    report: &Report,
    limit: Duration,
) -> Result<Option<Session>, storage::Error> {
    let mut session = core.database.begin("report_with_writes").await?;
    let queue = &executed.served.queue;
    let accepted = reports::store(&mut session, queue, std::slice::from_ref(report), core.registration.id).await?;
    if accepted.is_empty() {
        // the message of a step that was stopped is deleted
        session.commit().await?;
        return Ok(None);
    }
    reports::open_to_writes(&mut session, limit).await?;
    Ok(Some(session))
}

fn unsaved(error: &Error) -> Failure {
    Failure::new(FailureKind::HandlerError, format!("the report with its handler's writes was not stored: {error}"))
}
