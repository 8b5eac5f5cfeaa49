//! How much ran at once and how long tasks lasted, against what their templates allow; and how urgent they are.

use super::{
    Promise, Violations,
    facts::{Facts, Line},
};
use crate::chaos::{
    graph::{Graph, SCARCE},
    ledger::Entries,
};
use sqlx::types::Uuid;
use std::collections::{HashMap, HashSet};

/// Why a step that waited on its queue too long failed, up to the limit.
const OVERDUE: &str = "it waited on its queue longer than lifecycle.max_queued allows";

/// Why a task was cut short.
const REASON: &str = "the task lasted longer than its lifecycle.max_duration allows";

/// How much later than its time a task may end, in seconds: what the longest fault lasts, and what is behind it.
const SLACK: f64 = 45.0;

/// The tasks that lasted longer than they may, or a step of which waited too long.
pub(super) fn cut(facts: &Facts) -> HashSet<Uuid> {
    facts.history.iter().filter(|line| is_cut(line) || is_overdue(line)).map(|line| line.task_id).collect()
}

fn is_cut(line: &Line) -> bool {
    line.reason.as_deref() == Some(REASON)
}

/// Whether a step failed because it waited too long.
pub(super) fn is_overdue(line: &Line) -> bool {
    line.reason.as_deref().is_some_and(|reason| reason.starts_with(OVERDUE))
}

pub(super) fn check(facts: &Facts, ledger: &Entries, graphs: &[Graph], found: &mut Violations) {
    let graphs: HashMap<&str, &Graph> = graphs.iter().map(|graph| (graph.name.as_str(), graph)).collect();
    let of_task: HashMap<Uuid, &Graph> =
        facts.tasks.iter().filter_map(|task| Some((task.id, *graphs.get(task.name.as_str())?))).collect();
    at_once(facts, &of_task, found);
    durations(facts, ledger, &of_task, found);
    waits(facts, &of_task, found);
    for task in &facts.tasks {
        let submitted = usize::try_from(task.number).ok().and_then(|number| ledger.submissions.get(&number));
        let right = submitted.is_none_or(|submitted| submitted.priority == task.priority);
        found.unless(right, Promise::Limits, || format!("task {} has priority {}", task.id, task.priority));
    }
}

/// Steps that share permits, in the order of the history: a permit is free when the end of its step is durable.
fn at_once(facts: &Facts, of_task: &HashMap<Uuid, &Graph>, found: &mut Violations) {
    let mut running: HashMap<&str, usize> = HashMap::new();
    let runs = |state: Option<&str>| state == Some("in_progress");
    for line in facts.history.iter().filter(|line| line.step_id.is_some()) {
        let Some(graph) = of_task.get(&line.task_id).filter(|graph| graph.limits.scarce) else { continue };
        let now = running.entry(graph.namespace).or_default();
        match (runs(line.from_state.as_deref()), runs(Some(line.to_state.as_str()))) {
            (false, true) => *now += 1,
            (true, false) => *now = now.saturating_sub(1),
            _ => continue,
        }
        found.unless(*now <= SCARCE, Promise::Limits, || {
            format!("{now} steps of {} run at once where {SCARCE} may: {line:?}", graph.namespace)
        });
    }
}

fn durations(facts: &Facts, ledger: &Entries, of_task: &HashMap<Uuid, &Graph>, found: &mut Violations) {
    let limit = |task: &Uuid| of_task.get(task).and_then(|graph| graph.limits.duration).map(|most| most.as_secs_f64());
    let operated: HashSet<Uuid> = ledger.actions.values().map(|action| action.task.0).collect();
    let created: HashMap<Uuid, f64> = facts.tasks.iter().map(|task| (task.id, task.created_at)).collect();
    for line in facts.history.iter().filter(|line| is_cut(line)) {
        let due = created.get(&line.task_id).zip(limit(&line.task_id)).map(|(created, most)| created + most);
        found.unless(due.is_some_and(|due| line.at >= due), Promise::Limits, || {
            format!("a task was cut short before its time, {due:?}: {line:?}")
        });
    }
    for task in facts.tasks.iter().filter(|task| !operated.contains(&task.id)) {
        let Some((most, ended)) = limit(&task.id).zip(task.finished_at) else { continue };
        let lasted = ended - task.created_at;
        found.unless(lasted <= most + SLACK, Promise::Limits, || {
            format!("task {} lasted {lasted:.1} s where {most:.1} s are allowed", task.id)
        });
    }
    let cut: HashSet<Uuid> = facts.history.iter().filter(|line| is_cut(line)).map(|line| line.task_id).collect();
    for task in cut.difference(&operated) {
        let ended = facts.tasks.iter().any(|one| one.id == *task && one.state == "error");
        let open = facts.steps.iter().filter(|step| step.task_id == *task && step.state == "pending").count();
        found.unless(ended && open == 0, Promise::Limits, || {
            format!("task {task} was cut short, and has {open} open steps")
        });
    }
}

/// A step that failed because it waited too long had waited so long, and one that ran had not waited much longer.
fn waits(facts: &Facts, of_task: &HashMap<Uuid, &Graph>, found: &mut Violations) {
    let mut since: HashMap<Uuid, f64> = HashMap::new();
    for line in &facts.history {
        let (Some(step), Some(graph)) = (line.step_id, of_task.get(&line.task_id)) else { continue };
        if line.to_state == "enqueued" {
            since.insert(step, line.at);
            continue;
        }
        let waited = since.remove(&step).map(|since| line.at - since);
        let most = graph.limits.queued.map(|most| most.as_secs_f64());
        if is_overdue(line) {
            found.unless(most.zip(waited).is_some_and(|(most, waited)| waited >= most), Promise::Limits, || {
                format!("a step that may wait {most:?} s had waited {waited:?} s: {line:?}")
            });
        } else if let Some((most, waited)) = most.zip(waited) {
            found.unless(waited <= most + SLACK, Promise::Limits, || {
                format!("a step that may wait {most} s waited {waited} s: {line:?}")
            });
        }
    }
}
