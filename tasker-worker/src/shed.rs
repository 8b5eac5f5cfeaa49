//! Load shedding before *claim*: a worker that cannot get rid of its outcomes, or has too much in memory, takes no more.

use crate::core::Core;
use std::{fs, time::Duration};
use tasker_shared::metrics::{Metrics, labels};

/// How long a claim loop sleeps between two looks at what holds it back.
const LOOK: Duration = Duration::from_millis(50);

/// Outcomes fill their channels.
const OUTCOMES: &str = "outcomes";
/// The process has too much in memory.
const MEMORY: &str = "memory";

/// Counts begin at zero, so that the first time can be seen.
pub(crate) fn announce(metrics: &Metrics) {
    [OUTCOMES, MEMORY]
        .into_iter()
        .for_each(|reason| metrics.worker_claims_held_back.add(0, labels::HeldBack { reason }));
}

/// Waits until the worker may take more.
pub(crate) async fn admitted(core: &Core) {
    let Some(reason) = held_back(core) else { return };
    core.metrics().worker_claims_held_back.add(1, labels::HeldBack { reason });
    tracing::debug!(reason, "no step is claimed for now");
    while held_back(core).is_some() {
        tokio::time::sleep(LOOK).await;
    }
}

fn held_back(core: &Core) -> Option<&'static str> {
    if core.completion.usage() > f64::from(core.settings.claim_below_percent) {
        return Some(OUTCOMES);
    }
    let most = core.settings.max_memory_bytes?;
    (resident_bytes()? > most).then_some(MEMORY)
}

/// The memory of this process that is in RAM; only Linux tells.
fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}
