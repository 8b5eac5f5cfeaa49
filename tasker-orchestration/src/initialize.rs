//! Station *initialize*: template and input become steps and edges.

use crate::{
    Error, Orchestration,
    committed::{Committed, TaskInfo},
    enqueue,
    submit::json_bytes,
};
use serde_json::json;
use std::{collections::HashMap, sync::Arc};
use tasker_shared::{
    id::{StepId, TaskId, TemplateId},
    runtime::Topic,
    step::StepState,
    storage::{
        Session,
        reports::Ready,
        steps::{self, NewStep, NewSteps},
        tasks::{self, Ending, Pending},
        timers,
    },
    task::TaskState,
    template::Compiled,
};

/// Makes the steps of accepted tasks and enqueues those that wait for nothing. Each template is in `templates`.
pub(crate) async fn initialize(
    orchestration: &Orchestration,
    session: &mut Session,
    tasks: Vec<(TaskInfo, Arc<Compiled>)>,
    committed: &mut Committed,
) -> Result<(), Error> {
    if tasks.is_empty() {
        return Ok(());
    }
    let made: Vec<NewSteps> = tasks.iter().map(|(task, template)| steps_of(task.id, template)).collect();
    let begun = steps::initialize(session, &made, &orchestration.settings().environment).await?;
    let begun: HashMap<TaskId, ()> = begun.into_iter().map(|id| (id, ())).collect();
    let mut ready = Vec::new();
    for ((task, _), made) in tasks.into_iter().zip(made) {
        if !begun.contains_key(&task.id) {
            continue;
        }
        if made.max_duration.is_some() {
            committed.rings.insert(Topic::Timers);
        }
        let roots = made.steps.into_iter().filter(|step| step.waiting_on == 0);
        ready.extend(roots.map(|step| (first(task.id, step), task.clone(), StepState::Pending)));
        committed.initialized.push(task);
    }
    enqueue::send(orchestration, session, ready, committed).await
}

/// Makes the steps of tasks that were stored as pending: submitted by SQL, or delayed. One whose input its template
/// refuses ends in `error` with the reason; one that is to start later gets its timer, unless that was what brought it
/// here. Answers with those that are heard of now: a delayed one that had its timer was brought by a second message.
pub(crate) async fn initialize_pending(
    orchestration: &Orchestration,
    session: &mut Session,
    ids: &[TaskId],
    are_due: bool,
    committed: &mut Committed,
) -> Result<Vec<Pending>, Error> {
    let mut pending = tasks::lock_pending(session, ids).await?;
    if are_due {
        pending.iter_mut().for_each(|task| task.starts_at = None);
    }
    let ids = pending.iter().map(|task| task.template_id).collect();
    let templates = orchestration.compiled(session, ids).await?;
    let (mut refused, mut accepted, mut delayed) = (Vec::new(), Vec::new(), Vec::new());
    for task in &pending {
        let template = known(&templates, task.template_id)?;
        match acceptable(orchestration, template, task) {
            Ok(()) => match task.starts_at {
                Some(at) => delayed.push((task.id, at)),
                None => accepted.push((info(task), Arc::clone(template))),
            },
            Err(reason) => refused.push(Ending {
                id: task.id,
                from: TaskState::Pending,
                to: TaskState::Error,
                error: Some(json!({ "message": reason })),
            }),
        }
    }
    if !refused.is_empty() {
        let ended = tasks::finalize(session, &refused, "orchestration").await?;
        committed.ended.extend(ended.into_iter().map(|ended| (ended, TaskState::Pending)));
    }
    if !delayed.is_empty() {
        let set = timers::set_starts(session, &delayed).await?;
        pending.retain(|task| task.starts_at.is_none() || set.contains(&task.id));
        committed.rings.insert(Topic::Timers);
    }
    initialize(orchestration, session, accepted, committed).await?;
    Ok(pending)
}

/// What SQL could not check when the task was stored.
fn acceptable(orchestration: &Orchestration, template: &Compiled, task: &Pending) -> Result<(), String> {
    let input = task.input.read().map_err(|why| format!("the input cannot be read: {why}"))?;
    let (bytes, limit) = (json_bytes(input), orchestration.settings().max_input_bytes);
    if bytes > limit {
        return Err(format!(
            "the input has {bytes} bytes; at most {limit} are allowed (orchestration.max_input_bytes)"
        ));
    }
    template.validate_input(input).map_err(|violation| format!("the input breaks the input_schema: {violation}"))
}

/// What stations need to know of a pending task.
pub(crate) fn info(task: &Pending) -> TaskInfo {
    TaskInfo {
        id: task.id,
        namespace: task.namespace.clone(),
        name: task.name.clone(),
        priority: task.priority,
        correlation_id: task.correlation_id,
        traceparent: task.traceparent.clone(),
    }
}

/// A definition that a task refers to; the database keeps it while the task exists.
pub(crate) fn known(
    templates: &HashMap<TemplateId, Arc<Compiled>>,
    id: TemplateId,
) -> Result<&Arc<Compiled>, tasker_shared::storage::Error> {
    templates.get(&id).ok_or_else(|| tasker_shared::storage::Error::Inconsistent {
        table: "tasks",
        column: "template_id",
        row: id.to_string(),
        reason: "the template is gone".to_owned(),
    })
}

fn steps_of(task_id: TaskId, template: &Compiled) -> NewSteps {
    let (dag, all) = (template.dag(), template.steps());
    let steps = all.iter().enumerate().map(|(index, step)| NewStep {
        id: StepId::generate(),
        name: step.name.clone(),
        waiting_on: bounded(dag.parents(index).len()),
        max_attempts: i32::try_from(step.retry.max_attempts).unwrap_or(i32::MAX),
        timeout_ms: i64::try_from(step.timeout.as_millis()).unwrap_or(i64::MAX),
    });
    let edges = (0..all.len()).flat_map(|parent| dag.children(parent).iter().map(move |child| (parent, *child)));
    NewSteps {
        task_id,
        steps: steps.collect(),
        edges: edges.collect(),
        max_duration: template.template().lifecycle.max_duration,
    }
}

fn first(task_id: TaskId, step: NewStep) -> Ready {
    Ready { step_id: step.id, task_id, name: step.name, attempt: 0, cause: None, cause_attempt: None }
}

fn bounded(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}
