//! Why a task is where it is: facts from the tables, turned into sentences.

use super::detail;
use crate::{Error, Orchestration};
use chrono::{DateTime, Utc};
use std::collections::HashMap;
use tasker_shared::{
    api::{Explanation, StepDetail, StepExplanation, TaskDetail, WorkerSummary},
    id::{StepId, TaskId},
    step::StepState,
    storage::{
        concurrency::{self, Wait},
        history,
        overview::{self, Doorbell},
        tasks, workers,
    },
    task::TaskState,
};

/// What the sentences are made from.
struct Facts {
    task: TaskDetail,
    now: DateTime<Utc>,
    doorbells: HashMap<StepId, Doorbell>,
    workers: Vec<WorkerSummary>,
    handlers: HashMap<String, String>,
    waits: HashMap<StepId, Wait>,
    /// Why steps failed for good, where their history says so.
    reasons: HashMap<String, String>,
}

pub(super) async fn explain(orchestration: &Orchestration, id: TaskId) -> Result<Explanation, Error> {
    let task = detail(orchestration, id).await?;
    let mut session = orchestration.database().session("explain").await?;
    let on_queue: Vec<StepId> = task
        .steps
        .iter()
        .filter(|step| matches!(step.state, StepState::Enqueued | StepState::InProgress))
        .map(|step| step.step_id)
        .collect();
    let doorbells = match on_queue.as_slice() {
        [] => Vec::new(),
        _ => overview::doorbells(&mut session, &task.summary.namespace, &on_queue).await?,
    };
    let waits = if on_queue.is_empty() { Vec::new() } else { concurrency::waits(&mut session, &on_queue).await? };
    let templates = orchestration.compiled(&mut session, vec![task.template_id]).await?;
    let handlers = templates.values().flat_map(|template| template.steps());
    let failed = task.steps.iter().any(|step| step.state == StepState::Error);
    let history = if failed { history::of_task(&mut session, id).await? } else { Vec::new() };
    let reasons = history.into_iter().filter(|line| line.to == StepState::Error.as_str());
    let facts = Facts {
        // a later line takes the place of an earlier one
        reasons: reasons.filter_map(|line| Some((line.step?, line.reason.unwrap_or_default()))).collect(),
        now: tasks::now(&mut session).await?,
        doorbells: doorbells.into_iter().map(|doorbell| (doorbell.step_id, doorbell)).collect(),
        workers: workers::list(&mut session).await?,
        waits: waits.into_iter().map(|wait| (wait.step_id, wait)).collect(),
        handlers: handlers.map(|step| (step.name.to_string(), step.handler.callable.clone())).collect(),
        task,
    };
    let steps = facts.task.steps.iter().filter(|step| !step.state.satisfies_dependents());
    let steps =
        steps.map(|step| StepExplanation { step: step.name.clone(), state: step.state, because: facts.because(step) });
    Ok(Explanation { task_id: id, state: facts.task.summary.state, steps: steps.collect(), summary: facts.summary() })
}

impl Facts {
    fn summary(&self) -> String {
        let task = &self.task.summary;
        let open = self.task.steps.iter().filter(|step| !step.state.is_final()).count();
        match task.state {
            TaskState::Complete => "It is done.".to_owned(),
            TaskState::Cancelled => "An operator cancelled it.".to_owned(),
            TaskState::ResolvedManually => "An operator declared it settled.".to_owned(),
            TaskState::Paused => format!("It is paused with {open} open steps; `tasker task resume` lets it go on."),
            TaskState::Pending => match self.task.run_at.filter(|at| *at > self.now) {
                Some(at) => format!("It starts at {} (in {}).", at.to_rfc3339(), self.until(at)),
                None => "It is accepted and waits for an orchestration service to make its steps.".to_owned(),
            },
            TaskState::Error => {
                let message = self.task.error.as_ref().and_then(|e| e.get("message")).and_then(|m| m.as_str());
                let why = message.unwrap_or("no reason was stored");
                let then = match self.task.steps.iter().any(|step| step.state == StepState::Error) {
                    true => "`tasker task retry` runs its failed steps again",
                    false => "No step of it can run again; `tasker task resolve` settles it",
                };
                format!("It failed: {why}. {then}.")
            }
            TaskState::InProgress => self.in_progress(open),
        }
    }

    fn in_progress(&self, open: usize) -> String {
        let count = |state| self.task.steps.iter().filter(|step| step.state == state).count();
        let parts: Vec<String> = [
            (StepState::InProgress, "running"),
            (StepState::Enqueued, "waiting for a worker"),
            (StepState::Reported, "being evaluated"),
            (StepState::WaitingForRetry, "waiting for a retry"),
            (StepState::Error, "failed"),
            (StepState::Pending, "waiting for other steps"),
        ]
        .into_iter()
        .filter_map(|(state, words)| Some(count(state)).filter(|n| *n > 0).map(|n| format!("{n} {words}")))
        .collect();
        let nobody = count(StepState::Enqueued) > 0 && !self.serves().any(|_| true);
        let hint = if nobody {
            format!(" No live worker serves namespace `{}`.", self.task.summary.namespace)
        } else {
            String::new()
        };
        format!("{open} of its {} steps are open: {}.{hint}", self.task.steps.len(), parts.join(", "))
    }

    fn because(&self, step: &StepDetail) -> String {
        let failure = step.error.as_ref().map(|e| format!("{}: {}", e.kind, e.message)).unwrap_or_default();
        match step.state {
            StepState::Pending if step.waiting_on == 0 => {
                "It is ready and waits for its task to be resumed.".to_owned()
            }
            StepState::Pending => self.waits_for(step),
            StepState::Enqueued if self.is_paused() => "It waits for its task to be resumed.".to_owned(),
            StepState::Enqueued => self.enqueued(step),
            StepState::InProgress => {
                let lease = self
                    .doorbells
                    .get(&step.step_id)
                    .map(|d| format!("; its lease lasts {}", self.until(d.visible_at)));
                let since = step.started_at.map(|at| format!(" for {}", self.since(at)));
                format!(
                    "Worker {} runs attempt {}{}{}.",
                    step.worker.as_deref().unwrap_or("unknown"),
                    step.attempt,
                    since.unwrap_or_default(),
                    lease.unwrap_or_default()
                )
            }
            StepState::Reported => "Its outcome is stored and waits for an orchestration service.".to_owned(),
            StepState::WaitingForRetry => {
                let still = step.retry_at.filter(|at| *at > self.now);
                let when = match still.map(|at| format!("in {} (at {})", self.until(at), at.to_rfc3339())) {
                    None if self.is_paused() => "when its task is resumed".to_owned(),
                    None => "soon".to_owned(),
                    Some(when) if self.is_paused() => format!("when its task is resumed, at the earliest {when}"),
                    Some(when) => when,
                };
                format!("Failure {} of {} ({failure}); it runs again {when}.", step.failures, step.max_attempts)
            }
            StepState::Error => {
                let said = step.error.as_ref().map_or("", |error| error.message.as_str());
                let reason = self.reasons.get(&step.name).filter(|reason| !reason.is_empty() && *reason != said);
                let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
                format!("It failed for good after {}{reason}: {failure}", failures(step.failures))
            }
            StepState::Cancelled => "It was cancelled.".to_owned(),
            StepState::Complete | StepState::Skipped | StepState::ResolvedManually => "It is done.".to_owned(),
        }
    }

    fn is_paused(&self) -> bool {
        self.task.summary.state == TaskState::Paused
    }

    fn waits_for(&self, step: &StepDetail) -> String {
        let parents = self.task.steps.iter().filter(|p| step.dependencies.contains(&p.name));
        let open: Vec<String> = parents
            .filter(|p| !p.state.satisfies_dependents())
            .map(|p| format!("`{}` ({})", p.name, p.state))
            .collect();
        format!("It waits for {}.", open.join(", "))
    }

    fn enqueued(&self, step: &StepDetail) -> String {
        let namespace = &self.task.summary.namespace;
        let handler = self.handlers.get(&step.name).map_or("", String::as_str);
        let serving: Vec<_> = self.serves().collect();
        if serving.is_empty() {
            return format!("No live worker serves namespace `{namespace}`; start one.");
        }
        if !serving.iter().any(|worker| worker.handlers.iter().any(|known| known == handler)) {
            return format!("No live worker of namespace `{namespace}` has the handler `{handler}`.");
        }
        if let Some(wait) = self.waits.get(&step.step_id) {
            let of = if wait.value.is_empty() { String::new() } else { format!(" for the value `{}`", wait.value) };
            let before = if wait.ahead > 0 { format!(" behind {} others", wait.ahead) } else { String::new() };
            return format!(
                "It waits{before} for a permit of `{}`{of}: {} of {} are taken; since {}.",
                wait.scope,
                wait.used,
                wait.max,
                self.since(wait.since)
            );
        }
        match self.doorbells.get(&step.step_id) {
            Some(doorbell) if doorbell.ahead > 0 => {
                format!("It is on the queue of `{namespace}` behind {} others.", doorbell.ahead)
            }
            Some(_) => format!("It is next on the queue of `{namespace}`."),
            None => "Its message is missing; the repair sweep sends it again.".to_owned(),
        }
    }

    fn serves(&self) -> impl Iterator<Item = &WorkerSummary> {
        let namespace = self.task.summary.namespace.as_str();
        self.workers
            .iter()
            .filter(move |worker| worker.live && worker.namespaces.iter().any(|n| n == "*" || n == namespace))
    }

    fn until(&self, at: DateTime<Utc>) -> String {
        spelled((at - self.now).num_milliseconds())
    }

    fn since(&self, at: DateTime<Utc>) -> String {
        spelled((self.now - at).num_milliseconds())
    }
}

fn failures(n: i32) -> String {
    if n == 1 { "1 failure".to_owned() } else { format!("{n} failures") }
}

fn spelled(milliseconds: i64) -> String {
    match milliseconds.max(0) {
        ms @ 0..=9_999 => format!("{ms} ms"),
        ms @ 10_000..=599_999 => format!("{} s", ms / 1_000),
        ms => format!("{} min", ms / 60_000),
    }
}

#[cfg(test)]
mod tests {
    use super::spelled;

    #[test]
    fn times_are_spelled_in_the_unit_that_reads_best() {
        assert_eq!(
            [spelled(-5), spelled(1_500), spelled(61_000), spelled(600_000)],
            ["0 ms", "1500 ms", "61 s", "10 min"]
        );
    }
}
