//! A service that starts while PostgreSQL is away waits for it a little.

use crate::storage::Error;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// The time between two tries.
const PAUSE: Duration = Duration::from_millis(250);

/// Does `work` again and again while PostgreSQL is away: for `patience` at most. Nothing when `stop` comes first.
///
/// # Errors
/// What `work` said last. An error that trying does not change, such as a wrong password, is said at once.
pub(super) async fn while_away<T>(
    patience: Duration,
    stop: &CancellationToken,
    mut work: impl AsyncFnMut() -> Result<T, Error>,
) -> Result<Option<T>, Error> {
    let (began, mut told) = (Instant::now(), false);
    loop {
        let Some(outcome) = stop.run_until_cancelled(work()).await else { return Ok(None) };
        let error = match outcome {
            Err(error) if error.is_away() && began.elapsed() + PAUSE < patience => error,
            outcome => return outcome.map(Some),
        };
        if !told {
            tracing::warn!(%error, "PostgreSQL cannot be used yet; it is tried for {patience:?}");
            told = true;
        }
        if stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_none() {
            return Ok(None);
        }
    }
}
