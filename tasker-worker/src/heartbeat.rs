//! The worker's heartbeat: it tells that it is there, extends its leases, and learns which of its steps were stopped.

use crate::core::Core;
use std::{collections::HashSet, time::Duration};
use tasker_shared::{
    id::StepId,
    storage::{self, leases, workers},
};

/// Extends every lease; answers with the time until the next heartbeat.
pub(crate) async fn turn(core: &Core) -> Result<Duration, storage::Error> {
    let answer = beat(core).await;
    if answer.is_err() {
        core.metrics().worker_heartbeat_failures.add(1, ());
    }
    answer.map(|()| core.settings.heartbeat_interval)
}

async fn beat(core: &Core) -> Result<(), storage::Error> {
    let mut session = core.database.session("heartbeat").await?;
    workers::heartbeat(&mut session, &core.registration).await?;
    for (queue, held) in core.running.held() {
        let ours = leases::extend(&mut session, &queue, &held, core.settings.lease).await?;
        let ours: HashSet<StepId> = ours.into_iter().collect();
        for lost in held.iter().filter(|held| !ours.contains(&held.step_id)) {
            core.running.cancel(lost.step_id, lost.attempt, "the step was stopped, or its lease was lost");
        }
    }
    Ok(())
}
