//! Dead letters, against what the plan gave reason to park: each has its letter, as often as its history says, and there
//! is no other.

use super::{Promise, Violations, facts::Facts, limits};
use crate::chaos::{
    graph::{Fate, Graph},
    ledger::Entries,
};
use serde_json::Value;
use sqlx::types::Uuid;
use std::collections::{HashMap, HashSet};

/// The key under which an unreadable message says which it is.
pub const GARBAGE: &str = "garbage";

pub(super) fn check(facts: &Facts, ledger: &Entries, graphs: &[Graph], found: &mut Violations) {
    let missing = without_handler(facts, graphs);
    let (asked, acknowledged) = parked_by_operators(facts, ledger);
    let mut due: HashMap<(&str, String), usize> = HashMap::new();
    for line in facts.history.iter().filter(|line| line.to_state == "error") {
        let Some(step) = line.step_id else { continue };
        if line.actor.starts_with("operator:") {
            *due.entry(("manual", step.to_string())).or_default() += 1;
            found.unless(asked.contains(&step), Promise::Parked, || format!("no operator parked this step: {line:?}"));
        } else if missing.contains(&step) && !limits::is_overdue(line) {
            *due.entry(("handler_not_found", step.to_string())).or_default() += 1;
        }
    }
    let mut seen: HashMap<(&str, String), usize> = HashMap::new();
    for letter in &facts.dead_letters {
        found.unless(!letter.detail.is_empty() && letter.message.is_object(), Promise::Parked, || {
            format!("a dead letter without a reason or its message: {letter:?}")
        });
        let of = match letter.reason.as_str() {
            "unreadable" => letter.message.get(GARBAGE).and_then(Value::as_str).unwrap_or_default().to_owned(),
            _ => letter.step_id.unwrap_or_default().to_string(),
        };
        *seen.entry((letter.reason.as_str(), of)).or_default() += 1;
    }
    for (says, sent) in &ledger.garbage {
        let of = ("unreadable", says.clone());
        // whether it was sent at all is not known when the answer was lost
        if *sent || seen.contains_key(&of) {
            due.insert(of, 1);
        }
    }
    for step in acknowledged {
        found.unless(due.contains_key(&("manual", step.to_string())), Promise::Parked, || {
            format!("an operator parked step {step}, and its history does not know")
        });
    }
    redriven(facts, ledger, found);
    for of in seen.keys().chain(due.keys()).collect::<HashSet<_>>() {
        let (times, right) = (seen.get(of).copied().unwrap_or(0), due.get(of).copied().unwrap_or(0));
        found.unless(times == right, Promise::Parked, || {
            format!("{} was parked {times} times as {}, and {right} times there was reason to", of.1, of.0)
        });
    }
}

/// A letter was put back by whoever said so, once, or retried its task; by nobody else.
fn redriven(facts: &Facts, ledger: &Entries, found: &mut Violations) {
    let mut by: HashMap<&str, usize> = HashMap::new();
    for letter in &facts.dead_letters {
        let redriven = letter.resolution.as_deref() == Some("redriven");
        let Some(operator) = letter.resolved_by.as_deref().filter(|_| redriven) else { continue };
        *by.entry(operator.strip_prefix("operator:").unwrap_or(operator)).or_default() += 1;
    }
    for (operator, times) in &by {
        let verb = ledger.actions.get(*operator).map(|action| action.verb);
        found.unless(verb == Some("retry") || verb == Some("redrive") && *times == 1, Promise::Parked, || {
            format!("{operator} put {times} letters back")
        });
    }
    for (operator, action) in ledger.actions.iter().filter(|(_, action)| action.verb == "redrive") {
        found.unless(!action.acknowledged || by.contains_key(operator.as_str()), Promise::Parked, || {
            format!("{operator} put a letter of task {} back, and it does not know", action.task)
        });
    }
}

/// The steps that no worker has a handler for.
fn without_handler(facts: &Facts, graphs: &[Graph]) -> HashSet<Uuid> {
    let graphs: HashMap<&str, &Graph> = graphs.iter().map(|graph| (graph.name.as_str(), graph)).collect();
    let of_task: HashMap<Uuid, &str> = facts.tasks.iter().map(|task| (task.id, task.name.as_str())).collect();
    let fate = |task: Uuid, place: i32| {
        let graph = graphs.get(of_task.get(&task)?)?;
        Some(graph.steps.get(usize::try_from(place).ok()?)?.fate)
    };
    let missing = facts.steps.iter().filter(|step| fate(step.task_id, step.position) == Some(Fate::Missing));
    missing.map(|step| step.id).collect()
}

/// The steps that operators parked, or may have parked; and those of them where this was acknowledged.
fn parked_by_operators(facts: &Facts, ledger: &Entries) -> (HashSet<Uuid>, HashSet<Uuid>) {
    let named: HashMap<(Uuid, &str), Uuid> =
        facts.steps.iter().map(|step| ((step.task_id, step.name.as_str()), step.id)).collect();
    let (mut asked, mut acknowledged) = (HashSet::new(), HashSet::new());
    for action in ledger.actions.values().filter(|action| action.verb == "park_step") {
        let Some(name) = action.step.map(|step| format!("s{step}")) else { continue };
        let Some(step) = named.get(&(action.task.0, name.as_str())) else { continue };
        asked.insert(*step);
        if action.acknowledged {
            acknowledged.insert(*step);
        }
    }
    (asked, acknowledged)
}
