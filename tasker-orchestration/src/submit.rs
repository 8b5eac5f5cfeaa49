//! Station *submit*.

use crate::{Error, Orchestration};
use tasker_shared::api::{SubmitTask, Submitted};

/// Accepts tasks, all in one transaction; each is answered by itself, in order. A refused one does not hold back the others.
///
/// # Errors
/// The outer error is a failure of the database: nothing was accepted.
pub async fn submit(
    orchestration: &Orchestration,
    tasks: Vec<SubmitTask>,
) -> Result<Vec<Result<Submitted, Error>>, Error> {
    let _ = (orchestration, tasks);
    todo!()
}
