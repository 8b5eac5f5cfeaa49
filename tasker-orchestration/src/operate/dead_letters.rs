//! What operators do about dead letters.
//!
//! A letter is closed once, by compare-and-swap, in the transaction that does what was decided. A step that is parked
//! stands in `error`; a message that is parked leaves its task or step where it waits, so such a letter is redriven or
//! discarded, and not merely called resolved.

use super::Work;
use crate::{Error, Orchestration, query};
use serde_json::json;
use tasker_shared::{
    api::{Acted, Action, DeadLetterSummary},
    id::{DeadLetterId, TaskId},
    queue::{QueueName, STEP_RESULTS, TASK_REQUESTS},
    runtime::Topic,
    step::{DeadLetterReason, Failure, FailureKind, Resolution, StepEvent, StepState},
    storage::{
        dead_letters::{self, Letter},
        operations::{self, Standing},
        tasks::{self, Ending},
    },
    task::{TaskEvent, TaskState},
};

/// Puts the work of a dead letter back: runs its step again, or sends its message again.
///
/// # Errors
/// [`Error::DeadLetterNotFound`]; [`Error::Illegal`] when it was dealt with, or its task has gone on or ended meanwhile;
/// [`Error::Storage`].
pub async fn redrive(
    orchestration: &Orchestration,
    id: DeadLetterId,
    action: &Action,
) -> Result<DeadLetterSummary, Error> {
    let letter = open(orchestration, id).await?;
    let Some(task) = letter.summary.task_id else { return send_again(orchestration, &letter, action).await };
    let mut work = begin(orchestration, &letter, task, action).await?;
    work.close(&letter, Resolution::Redriven).await?;
    work.committed.redriven.push(letter.summary.reason);
    let state = work.task.state;
    if is_message(&letter) {
        if work.waiting(&letter).await?.is_none() {
            return Err(has_gone_on(&letter, state));
        }
        dead_letters::send_again(&mut work.session, &letter.summary).await?;
        work.committed.rings.extend([Topic::Results, Topic::Requests]);
        work.commit(state).await?;
    } else {
        let Some(step) = letter.summary.step.clone() else { return Err(has_gone_on(&letter, state)) };
        let standing = work.step(&step).await?;
        if standing.state != StepState::Error {
            return Err(has_gone_on(&letter, state));
        }
        work.reopen_steps(Some(&step)).await?;
        let to = work.reopen_task().await?;
        work.go_on(to).await?;
    }
    Ok(query::letter(orchestration, id).await?.summary)
}

/// Says that a dead letter was dealt with by other means.
///
/// # Errors
/// As [`redrive`]; [`Error::Illegal`] also while something still waits for its message.
pub async fn resolve(
    orchestration: &Orchestration,
    id: DeadLetterId,
    action: &Action,
) -> Result<DeadLetterSummary, Error> {
    let letter = open(orchestration, id).await?;
    if let Some(task) = letter.summary.task_id {
        let mut work = begin(orchestration, &letter, task, action).await?;
        if is_message(&letter) && work.waiting(&letter).await?.is_some() {
            let what = if letter.summary.queue == STEP_RESULTS { "its step" } else { "its task" };
            return Err(Error::Illegal(format!(
                "dead letter {id} cannot be resolved: {what} still waits for this message; redrive it, or discard it and let {what} fail"
            )));
        }
        work.close(&letter, Resolution::Resolved).await?;
        let state = work.task.state;
        work.commit(state).await?;
    } else {
        close_alone(orchestration, &letter, Resolution::Resolved, action).await?;
    }
    Ok(query::letter(orchestration, id).await?.summary)
}

/// Gives a dead letter up. What still waits for its message fails.
///
/// # Errors
/// As [`redrive`].
pub async fn discard(
    orchestration: &Orchestration,
    id: DeadLetterId,
    action: &Action,
) -> Result<DeadLetterSummary, Error> {
    let letter = open(orchestration, id).await?;
    let Some(task) = letter.summary.task_id else {
        close_alone(orchestration, &letter, Resolution::Discarded, action).await?;
        return Ok(query::letter(orchestration, id).await?.summary);
    };
    let mut work = begin(orchestration, &letter, task, action).await?;
    work.close(&letter, Resolution::Discarded).await?;
    let state = work.task.state;
    let waiting = if is_message(&letter) { work.waiting(&letter).await? } else { None };
    match waiting {
        Some(Waiting::Step(step)) => {
            let detail = format!("its outcome was discarded: {}", letter.summary.detail);
            operations::set_error(&mut work.session, step.id, &Failure::new(FailureKind::Poison, detail)).await?;
            work.move_steps(Some(step.name.as_str()), StepEvent::Fail, None).await?;
            work.go_on(state).await?;
        }
        Some(Waiting::Task) => {
            let to = work.may(TaskEvent::Reject)?;
            let error = json!({ "message": format!("its request was discarded: {}", letter.summary.detail) });
            let ending = Ending { id: task, from: state, to, error: Some(error) };
            let ended = tasks::finalize(&mut work.session, &[ending], &work.actor).await?;
            work.committed.ended.extend(ended.into_iter().map(|ended| (ended, state)));
            work.commit(to).await?;
        }
        None => {
            work.commit(state).await?;
        }
    }
    Ok(query::letter(orchestration, id).await?.summary)
}

/// Takes one step off the line until somebody redrives it: its message is parked, and the step stands in `error`.
///
/// # Errors
/// As [`super::retry_step`].
pub async fn park_step(
    orchestration: &Orchestration,
    task: TaskId,
    step: &str,
    action: &Action,
) -> Result<Acted, Error> {
    let mut work = Work::begin(orchestration, task, action).await?;
    let standing = work.step(step).await?;
    if work.task.state.is_final() {
        return Err(work.has_ended());
    }
    super::may(&standing, StepEvent::Park)?;
    let said = work.reason.clone().unwrap_or_else(|| "no reason was given".to_owned());
    let failure =
        Failure { retryable: false, ..Failure::new(FailureKind::Parked, format!("parked by an operator: {said}")) };
    let from = dead_letters::PARK.map(|edge| edge.from);
    let state = work.take_off(&standing, &from, Some(DeadLetterReason::Manual), &failure).await?;
    Ok(Acted { task_id: task, state })
}

/// What waits for a parked message.
enum Waiting {
    /// A step whose outcome it is.
    Step(Standing),
    /// A task that was requested by it.
    Task,
}

impl Work<'_> {
    /// Takes a step off the line, if it still stands where `from` says, and lets its task go on without it.
    pub(crate) async fn take_off(
        mut self,
        step: &Standing,
        from: &[StepState],
        reason: Option<DeadLetterReason>,
        failure: &Failure,
    ) -> Result<TaskState, Error> {
        let queue = QueueName::of_namespace(&self.task.namespace);
        let taken =
            dead_letters::take_off(&mut self.session, &queue, &[step.id], from, reason, failure, &self.actor).await?;
        if taken.is_empty() {
            return Err(Error::Illegal(format!("step `{}` has gone on meanwhile", step.name)));
        }
        self.committed.moved_steps.extend(taken.iter().map(|step| (step.from_state, StepState::Error)));
        self.committed.parked.extend(reason);
        self.committed.rings.insert(Topic::Stopped);
        let state = self.task.state;
        self.go_on(state).await
    }

    async fn close(&mut self, letter: &Letter, resolution: Resolution) -> Result<(), Error> {
        let id = letter.summary.dead_letter_id;
        let note = self.reason.as_deref();
        if dead_letters::close(&mut self.session, id, resolution, &self.actor, note).await? {
            return Ok(());
        }
        Err(Error::Illegal(format!("dead letter {id} was dealt with meanwhile")))
    }

    /// What waits for the letter's message, if anything still does.
    async fn waiting(&mut self, letter: &Letter) -> Result<Option<Waiting>, Error> {
        if letter.summary.queue == TASK_REQUESTS {
            return Ok((self.task.state == TaskState::Pending).then_some(Waiting::Task));
        }
        let steps = operations::steps(&mut self.session, self.task.id).await?;
        let step = steps.into_iter().find(|step| Some(step.id) == letter.summary.step_id);
        let is_waiting = |step: &Standing| {
            !self.task.state.is_final()
                && step.state == StepState::Reported
                && letter.attempt.is_none_or(|attempt| attempt == i64::from(step.attempt))
        };
        Ok(step.filter(is_waiting).map(Waiting::Step))
    }
}

/// Whether the letter is a message of a queue that all share; else it stands for a step.
fn is_message(letter: &Letter) -> bool {
    [STEP_RESULTS, TASK_REQUESTS].contains(&letter.summary.queue.as_str()) || letter.summary.step_id.is_none()
}

/// A letter that nobody has dealt with.
async fn open(orchestration: &Orchestration, id: DeadLetterId) -> Result<Letter, Error> {
    let letter = query::letter(orchestration, id).await?;
    let DeadLetterSummary { resolution, resolved_by, resolved_at, .. } = &letter.summary;
    match (resolution, resolved_at) {
        (Some(resolution), Some(at)) => Err(Error::Illegal(format!(
            "dead letter {id} was {resolution} by {} at {}",
            resolved_by.as_deref().unwrap_or("somebody"),
            at.to_rfc3339()
        ))),
        _ => Ok(letter),
    }
}

async fn begin<'a>(
    orchestration: &'a Orchestration,
    letter: &Letter,
    task: TaskId,
    action: &Action,
) -> Result<Work<'a>, Error> {
    match Work::begin(orchestration, task, action).await {
        Err(Error::TaskNotFound(_)) => Err(Error::Illegal(format!(
            "task {task} of dead letter {} was removed; the message can no longer be dealt with",
            letter.summary.dead_letter_id
        ))),
        work => work,
    }
}

fn has_gone_on(letter: &Letter, state: TaskState) -> Error {
    Error::Illegal(format!(
        "dead letter {} cannot be redriven: its task is {state} and its step has gone on without it; resolve or discard it",
        letter.summary.dead_letter_id
    ))
}

/// A message whose task is not known goes back to its queue.
async fn send_again(
    orchestration: &Orchestration,
    letter: &Letter,
    action: &Action,
) -> Result<DeadLetterSummary, Error> {
    let id = letter.summary.dead_letter_id;
    let mut session = super::begin(orchestration, action).await?;
    if !dead_letters::close(&mut session, id, Resolution::Redriven, &super::actor(action), action.reason.as_deref())
        .await?
    {
        return Err(Error::Illegal(format!("dead letter {id} was dealt with meanwhile")));
    }
    dead_letters::send_again(&mut session, &letter.summary).await?;
    session.commit().await?;
    let mut committed = crate::committed::Committed::new();
    committed.redriven.push(letter.summary.reason);
    committed.rings.extend([Topic::Results, Topic::Requests]);
    committed.tell(orchestration);
    Ok(query::letter(orchestration, id).await?.summary)
}

async fn close_alone(
    orchestration: &Orchestration,
    letter: &Letter,
    resolution: Resolution,
    action: &Action,
) -> Result<(), Error> {
    let id = letter.summary.dead_letter_id;
    let mut session = super::begin(orchestration, action).await?;
    if !dead_letters::close(&mut session, id, resolution, &super::actor(action), action.reason.as_deref()).await? {
        return Err(Error::Illegal(format!("dead letter {id} was dealt with meanwhile")));
    }
    session.commit().await?;
    Ok(())
}
