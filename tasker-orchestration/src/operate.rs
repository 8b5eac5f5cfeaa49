//! What operators do by hand.
//!
//! Every action locks the task, moves what has to be moved, counts the steps anew, enqueues what became ready, and ends
//! the task when nothing is left to do: one transaction, like the stations.

mod dead_letters;

pub use dead_letters::{discard, park_step, redrive, resolve as resolve_dead_letter};

use crate::{
    Error, Orchestration,
    committed::{Committed, TaskInfo},
    enqueue, finalize, limits,
};
use serde_json::Value;
use std::collections::HashMap;
use tasker_shared::{
    api::{Action, ResolveStep},
    id::{StepId, TaskId},
    runtime::Topic,
    step::{Resolution, StepEvent, StepState},
    storage::{
        Session, dead_letters as letters,
        operations::{self, Locked, Standing},
        steps,
        tasks::{self, Ending},
    },
    task::{TaskEvent, TaskState},
    template::nearest,
};

/// Stops a task and tells its running handlers.
///
/// # Errors
/// [`Error::TaskNotFound`], [`Error::Illegal`] when it has ended, [`Error::Storage`].
pub async fn cancel(orchestration: &Orchestration, task: TaskId, action: &Action) -> Result<TaskState, Error> {
    let mut work = Work::begin(orchestration, task, action).await?;
    let to = work.may(TaskEvent::Cancel)?;
    if work.task.state == TaskState::Pending && !operations::is_known(&mut work.session, task).await? {
        // its message will find it cancelled, and count nothing
        work.committed.requested.push(work.info());
    }
    work.move_steps(None, StepEvent::Cancel, None).await?;
    operations::recount(&mut work.session, task).await?;
    let reason = action.reason.clone().unwrap_or_else(|| "cancelled by an operator".to_owned());
    let error = Some(serde_json::json!({ "message": reason }));
    let ending = Ending { id: task, from: work.task.state, to, error };
    let ended = tasks::finalize(&mut work.session, &[ending], &work.actor).await?;
    work.committed.ended.extend(ended.into_iter().map(|ended| (ended, work.task.state)));
    work.committed.rings.insert(Topic::Stopped);
    work.commit(to).await
}

/// Starts no further step of a task; those that run may end.
///
/// # Errors
/// As [`cancel`].
pub async fn pause(orchestration: &Orchestration, task: TaskId, action: &Action) -> Result<TaskState, Error> {
    let mut work = Work::begin(orchestration, task, action).await?;
    let to = work.move_task(TaskEvent::Pause).await?;
    operations::hold_timers(&mut work.session, task).await?;
    work.commit(to).await
}

/// Lets a paused task go on.
///
/// # Errors
/// As [`cancel`].
pub async fn resume(orchestration: &Orchestration, task: TaskId, action: &Action) -> Result<TaskState, Error> {
    let mut work = Work::begin(orchestration, task, action).await?;
    let to = work.move_task(TaskEvent::Resume).await?;
    operations::resume_timers(&mut work.session, task).await?;
    operations::resume_waits(&mut work.session, task).await?;
    work.committed.rings.insert(Topic::Timers);
    work.go_on(to).await
}

/// Runs all failed steps of a failed task again.
///
/// # Errors
/// As [`cancel`].
pub async fn retry(orchestration: &Orchestration, task: TaskId, action: &Action) -> Result<TaskState, Error> {
    let mut work = Work::begin(orchestration, task, action).await?;
    work.may(TaskEvent::Reopen)?;
    if work.reopen_steps(None).await? == 0 {
        return Err(Error::Illegal(format!(
            "task {task} has no failed step that could run again; resolve the task, or submit a new one"
        )));
    }
    let to = work.move_task(TaskEvent::Reopen).await?;
    work.go_on(to).await
}

/// Declares a failed task settled.
///
/// # Errors
/// As [`cancel`].
pub async fn resolve(orchestration: &Orchestration, task: TaskId, action: &Action) -> Result<TaskState, Error> {
    let mut work = Work::begin(orchestration, task, action).await?;
    let to = work.may(TaskEvent::Resolve)?;
    let error = action.reason.as_ref().map(|reason| serde_json::json!({ "message": reason }));
    let ending = Ending { id: task, from: work.task.state, to, error };
    let ended = tasks::finalize(&mut work.session, &[ending], &work.actor).await?;
    work.committed.ended.extend(ended.into_iter().map(|ended| (ended, work.task.state)));
    work.commit(to).await
}

/// Runs one failed step again; the task goes on.
///
/// # Errors
/// As [`cancel`], and [`Error::StepNotFound`].
pub async fn retry_step(
    orchestration: &Orchestration,
    task: TaskId,
    step: &str,
    action: &Action,
) -> Result<TaskState, Error> {
    let mut work = Work::begin(orchestration, task, action).await?;
    let standing = work.step(step).await?;
    work.hold_step(&standing, StepEvent::Reopen).await?;
    work.reopen_steps(Some(step)).await?;
    let to = work.reopen_task().await?;
    work.go_on(to).await
}

/// Stops one step; what depends on it cannot run any more.
///
/// # Errors
/// As [`retry_step`].
pub async fn cancel_step(
    orchestration: &Orchestration,
    task: TaskId,
    step: &str,
    action: &Action,
) -> Result<TaskState, Error> {
    let mut work = Work::begin(orchestration, task, action).await?;
    let standing = work.step(step).await?;
    if work.task.state.is_final() {
        return Err(work.has_ended());
    }
    work.hold_step(&standing, StepEvent::Cancel).await?;
    work.move_steps(Some(step), StepEvent::Cancel, None).await?;
    work.committed.rings.insert(Topic::Stopped);
    let state = work.task.state;
    work.go_on(state).await
}

/// Gives a step its result by hand; what depends on it goes on.
///
/// # Errors
/// As [`retry_step`], and [`Error::ResultInvalid`].
pub async fn resolve_step(
    orchestration: &Orchestration,
    task: TaskId,
    step: &str,
    resolution: &ResolveStep,
) -> Result<TaskState, Error> {
    let action = Action { reason: resolution.reason.clone(), by: resolution.by.clone() };
    let mut work = Work::begin(orchestration, task, &action).await?;
    let standing = work.step(step).await?;
    work.hold_step(&standing, StepEvent::Resolve).await?;
    work.check_result(step, &resolution.result).await?;
    work.move_steps(Some(step), StepEvent::Resolve, Some(&resolution.result)).await?;
    work.close_letters(&[standing.id], Resolution::Resolved).await?;
    operations::free_dependents(&mut work.session, standing.id).await?;
    work.committed.rings.insert(Topic::Stopped);
    let to = work.reopen_task().await?;
    work.go_on(to).await
}

/// A transaction for what an operator does.
pub(crate) async fn begin(orchestration: &Orchestration, action: &Action) -> Result<Session, Error> {
    for (field, text) in [("by", &action.by), ("reason", &action.reason)] {
        if text.as_ref().is_some_and(|text| text.len() > 1024 || text.contains('\0')) {
            let reason = "must have at most 1024 bytes and no \\u0000".to_owned();
            return Err(Error::Invalid { field, reason });
        }
    }
    Ok(orchestration.database().begin("operate").await?)
}

/// How the operator stands in histories.
pub(crate) fn actor(action: &Action) -> String {
    format!("operator:{}", action.by.as_deref().unwrap_or("unnamed"))
}

/// One action: a transaction that holds the task.
pub(crate) struct Work<'a> {
    orchestration: &'a Orchestration,
    session: Session,
    task: Locked,
    actor: String,
    reason: Option<String>,
    committed: Committed,
}

impl<'a> Work<'a> {
    async fn begin(orchestration: &'a Orchestration, task: TaskId, action: &Action) -> Result<Self, Error> {
        let session = begin(orchestration, action).await?;
        Self::hold(orchestration, session, task, actor(action), action.reason.clone()).await
    }

    /// What orchestration itself does to a task.
    pub(crate) async fn of_orchestration(orchestration: &'a Orchestration, task: TaskId) -> Result<Self, Error> {
        let session = orchestration.database().begin("park").await?;
        Self::hold(orchestration, session, task, "orchestration".to_owned(), None).await
    }

    async fn hold(
        orchestration: &'a Orchestration,
        mut session: Session,
        task: TaskId,
        actor: String,
        reason: Option<String>,
    ) -> Result<Self, Error> {
        let task = operations::lock(&mut session, task).await?.ok_or(Error::TaskNotFound(task))?;
        Ok(Self { orchestration, session, task, actor, reason, committed: Committed::new() })
    }

    /// Whether the task has ended.
    pub(crate) fn is_ended(&self) -> bool {
        self.task.state.is_final()
    }

    /// Whether the task is paused.
    pub(crate) fn is_paused(&self) -> bool {
        self.task.state == TaskState::Paused
    }

    async fn close_letters(&mut self, steps: &[StepId], resolution: Resolution) -> Result<(), Error> {
        let note = self.reason.as_deref();
        letters::close_of_steps(&mut self.session, steps, resolution, &self.actor, note).await?;
        Ok(())
    }

    /// The state that `event` leads the task to.
    fn may(&self, event: TaskEvent) -> Result<TaskState, Error> {
        let refused = |e: tasker_shared::task::state::Illegal| Error::Illegal(format!("task {}: {e}", self.task.id));
        self.task.state.on(event).map_err(refused)
    }

    fn has_ended(&self) -> Error {
        Error::Illegal(format!("task {} is {}; its steps stay as they are", self.task.id, self.task.state))
    }

    async fn move_task(&mut self, event: TaskEvent) -> Result<TaskState, Error> {
        let (from, to) = (self.task.state, self.may(event)?);
        let (actor, reason) = (&self.actor, self.reason.as_deref());
        operations::move_task(&mut self.session, self.task.id, from, to, actor, reason).await?;
        self.committed.moved_tasks.push((from, to));
        self.task.state = to;
        Ok(to)
    }

    /// A task that had failed goes on; any other one stays where it is.
    async fn reopen_task(&mut self) -> Result<TaskState, Error> {
        match self.task.state {
            TaskState::Error => self.move_task(TaskEvent::Reopen).await,
            state => Ok(state),
        }
    }

    /// A step of a task that goes on, or that can be reopened.
    pub(crate) async fn step(&mut self, name: &str) -> Result<Standing, Error> {
        let state = self.task.state;
        if state.is_final() && state != TaskState::Error {
            return Err(self.has_ended());
        }
        let mut all = operations::steps(&mut self.session, self.task.id).await?;
        match all.iter().position(|step| &*step.name == name) {
            Some(place) => Ok(all.swap_remove(place)),
            None => Err(Error::StepNotFound {
                task: self.task.id,
                step: name.to_owned(),
                nearest: nearest(name, all.iter().map(|step| step.name.as_str())),
            }),
        }
    }

    /// Holds a step until the end, if `event` may move it: what it reports comes before or after.
    async fn hold_step(&mut self, step: &Standing, event: StepEvent) -> Result<(), Error> {
        let state = operations::hold_step(&mut self.session, step.id).await?.unwrap_or(step.state);
        may(&Standing { state, ..step.clone() }, event)
    }

    /// Moves all steps (or the named one) that `event` applies to.
    async fn move_steps(
        &mut self,
        name: Option<&str>,
        event: StepEvent,
        result: Option<&Value>,
    ) -> Result<usize, Error> {
        let edges = StepState::ALL.iter().filter_map(|from| from.on(event).ok().map(|to| (*from, to)));
        let (from, to): (Vec<_>, Vec<_>) = edges.unzip();
        let Some(to) = to.first().copied() else { return Ok(0) };
        let reason = self.reason.as_deref();
        let moved =
            operations::move_steps(&mut self.session, self.task.id, name, &from, to, result, &self.actor, reason)
                .await?;
        self.committed.moved_steps.extend(moved.iter().map(|step| (step.from_state, to)));
        let steps: Vec<StepId> = moved.iter().map(|step| step.step_id).collect();
        limits::clear(&mut self.session, &self.task.namespace, &steps).await?;
        Ok(moved.len())
    }

    /// Failed steps to the queue again.
    async fn reopen_steps(&mut self, name: Option<&str>) -> Result<usize, Error> {
        let (from, to) = (StepState::Error, StepState::Enqueued);
        let reason = self.reason.as_deref();
        let (task, actor) = (self.task.id, &self.actor);
        let moved = operations::move_steps(&mut self.session, task, name, &[from], to, None, actor, reason).await?;
        let ids: Vec<StepId> = moved.iter().map(|step| step.step_id).collect();
        self.close_letters(&ids, Resolution::Redriven).await?;
        let all = operations::steps(&mut self.session, task).await?;
        let moved: Vec<_> = moved.iter().filter_map(|m| all.iter().find(|s| s.id == m.step_id)).collect();
        let info = self.info();
        let ready = moved.iter().map(|step| {
            let ready = tasker_shared::storage::reports::Ready {
                step_id: step.id,
                task_id: task,
                name: step.name.clone(),
                attempt: step.attempt,
                cause: None,
                cause_attempt: None,
            };
            (ready, info.clone(), from)
        });
        let ready: Vec<_> = ready.collect();
        enqueue::send(self.orchestration, &mut self.session, ready, &mut self.committed).await?;
        Ok(moved.len())
    }

    async fn check_result(&mut self, step: &str, result: &Value) -> Result<(), Error> {
        let limit = self.orchestration.settings().max_input_bytes;
        let size = crate::submit::json_bytes(result);
        if size > limit {
            return Err(Error::TooLarge { field: "result", size, limit });
        }
        if crate::submit::has_nul(result) {
            let reason = "contains the character \\u0000, which PostgreSQL cannot store".to_owned();
            return Err(Error::Invalid { field: "result", reason });
        }
        let templates = self.orchestration.compiled(&mut self.session, vec![self.task.template_id]).await?;
        let template = crate::initialize::known(&templates, self.task.template_id)?;
        let Some(index) = template.index(step) else { return Ok(()) };
        template.validate_result(index, result).map_err(|violation| Error::ResultInvalid {
            step: step.to_owned(),
            violations: violation.violations.iter().map(ToString::to_string).collect(),
        })
    }

    /// Counts anew, enqueues what is ready, ends the task if nothing is left, and commits.
    async fn go_on(mut self, state: TaskState) -> Result<TaskState, Error> {
        let id = self.task.id;
        if state == TaskState::InProgress {
            let ready = steps::enqueue_ready(&mut self.session, &[id], &self.actor).await?;
            let info = self.info();
            let ready = ready.into_iter().map(|step| (step, info.clone(), StepState::Pending)).collect();
            enqueue::send(self.orchestration, &mut self.session, ready, &mut self.committed).await?;
        }
        let counts: Vec<_> = operations::recount(&mut self.session, id).await?.into_iter().collect();
        let states = HashMap::from([(id, state)]);
        let before = self.committed.ended.len();
        finalize::finalize(&mut self.session, &counts, &states, &self.actor, &mut self.committed).await?;
        let ended = self.committed.ended.get(before).map(|(ended, _)| ended.state);
        self.commit(ended.unwrap_or(state)).await
    }

    async fn commit(mut self, state: TaskState) -> Result<TaskState, Error> {
        self.committed.transaction = Some(self.session.commit().await?);
        self.committed.tell(self.orchestration);
        Ok(state)
    }

    fn info(&self) -> TaskInfo {
        TaskInfo::from(&self.task)
    }
}

fn may(step: &Standing, event: StepEvent) -> Result<(), Error> {
    step.state.on(event).map(drop).map_err(|e| Error::Illegal(format!("step `{}`: {e}", step.name)))
}
