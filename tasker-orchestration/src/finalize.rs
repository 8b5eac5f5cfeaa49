//! Station *finalize*: step counts decide what becomes of a task.

use crate::{Error, committed::Committed};
use serde_json::{Value, json};
use std::collections::HashMap;
use tasker_shared::{
    id::TaskId,
    storage::{
        Session,
        reports::Counts,
        tasks::{self, Ending, FailedStep},
    },
    task::{TaskEvent, TaskState, ending},
};

/// How many failed steps a task's error names.
const NAMED: usize = 10;

/// Ends those of these locked tasks in which nothing can run any more. `states` tells where they stand.
pub(crate) async fn finalize(
    session: &mut Session,
    counts: &[Counts],
    states: &HashMap<TaskId, TaskState>,
    actor: &str,
    committed: &mut Committed,
) -> Result<(), Error> {
    let ends = counts.iter().filter_map(|count| {
        let from = *states.get(&count.task_id)?;
        let event = ending(count.remaining, count.active)?;
        // a task that has ended already stays as it is
        Some((count.task_id, from, from.on(event).ok()?, event))
    });
    let ends: Vec<_> = ends.collect();
    if ends.is_empty() {
        return Ok(());
    }
    let failing: Vec<TaskId> = ends.iter().filter(|end| end.3 == TaskEvent::Fail).map(|end| end.0).collect();
    let failed = if failing.is_empty() { Vec::new() } else { tasks::failed_steps(session, &failing).await? };
    let endings: Vec<Ending> = ends
        .into_iter()
        .map(|(id, from, to, event)| Ending {
            id,
            from,
            to,
            error: (event == TaskEvent::Fail).then(|| error_of(id, &failed)),
        })
        .collect();
    for ended in tasks::finalize(session, &endings, actor).await? {
        let from = states.get(&ended.id).copied().unwrap_or(TaskState::InProgress);
        committed.ended.push((ended, from));
    }
    Ok(())
}

fn error_of(task: TaskId, failed: &[FailedStep]) -> Value {
    let failed: Vec<&FailedStep> = failed.iter().filter(|step| step.task_id == task).collect();
    let said = |step: &FailedStep| step.message.clone().unwrap_or_else(|| "cancelled".to_owned());
    let message = match failed.as_slice() {
        [] => "no step can run any more".to_owned(),
        [one] => format!("step `{}`: {}", one.name, said(one)),
        [first, rest @ ..] => format!("step `{}`: {} (and {} more failed)", first.name, said(first), rest.len()),
    };
    let steps: Vec<Value> =
        failed.iter().take(NAMED).map(|step| json!({ "step": step.name, "message": said(step) })).collect();
    json!({ "message": message, "failed_steps": steps })
}
