//! Every history, followed line by line through the two machines.

use super::{
    Promise, Violations,
    facts::{Facts, Line},
};
use sqlx::types::Uuid;
use std::collections::HashMap;
use tasker_shared::{
    step::{StepState, state::Edge},
    task::TaskState,
};

/// Where a step stands in its history.
struct Place {
    state: StepState,
    attempt: i32,
    at: f64,
    claimed_by: String,
}

pub(super) fn check(facts: &Facts, found: &mut Violations) {
    let mut steps: HashMap<Uuid, Place> = facts
        .steps
        .iter()
        .map(|step| (step.id, Place { state: StepState::Pending, attempt: 0, at: 0.0, claimed_by: String::new() }))
        .collect();
    let mut tasks: HashMap<Uuid, (Option<TaskState>, f64)> =
        facts.tasks.iter().map(|task| (task.id, (None, 0.0))).collect();
    for line in &facts.history {
        match line.step_id {
            Some(step) => match steps.get_mut(&step) {
                Some(place) => step_moves(line, place, found),
                None => {
                    found.unless(false, Promise::LegalHistory, || format!("a step that does not exist moves: {line:?}"))
                }
            },
            None => match tasks.get_mut(&line.task_id) {
                Some(place) => task_moves(line, place, found),
                None => {
                    found.unless(false, Promise::NothingLost, || format!("a task that does not exist moves: {line:?}"))
                }
            },
        }
    }
    for task in &facts.tasks {
        let told = tasks.get(&task.id).and_then(|place| place.0).map(TaskState::as_str);
        found.unless(told == Some(task.state.as_str()), Promise::LegalHistory, || {
            format!("task {} is {}, and its history ends at {told:?}", task.id, task.state)
        });
    }
    for step in &facts.steps {
        let Some(place) = steps.get(&step.id) else { continue };
        let agrees = place.state.as_str() == step.state && place.attempt == step.attempt;
        found.unless(agrees, Promise::LegalHistory, || {
            format!(
                "step {} is {} at attempt {}, and its history ends at {} {}",
                step.id, step.state, step.attempt, place.state, place.attempt
            )
        });
    }
}

fn step_moves(line: &Line, place: &mut Place, found: &mut Violations) {
    let to: Option<StepState> = line.to_state.parse().ok();
    let from = line.from_state.as_deref();
    found.unless(from == Some(place.state.as_str()), Promise::LegalHistory, || {
        format!("the step was {}: {line:?}", place.state)
    });
    let legal = to.is_some_and(|to| Edge::all().any(|edge| Some(edge.from.as_str()) == from && edge.to == to));
    found.unless(legal, Promise::LegalHistory, || format!("there is no such move: {line:?}"));
    let Some(to) = to else { return };
    let claimed = to == StepState::InProgress;
    let expected = place.attempt + i32::from(claimed);
    found.unless(line.attempt == expected, Promise::CountedOnce, || format!("attempt {expected} was due: {line:?}"));
    found.unless(line.at >= place.at, Promise::LegalHistory, || format!("it goes back in time: {line:?}"));
    found.unless(is_right(line, place.state, to), Promise::LegalHistory, || format!("another actor was due: {line:?}"));
    if to == StepState::Reported {
        found.unless(line.actor == place.claimed_by, Promise::CountedOnce, || {
            format!("{} held the lease: {line:?}", place.claimed_by)
        });
    }
    if claimed {
        place.claimed_by.clone_from(&line.actor);
    }
    (place.state, place.attempt, place.at) = (to, line.attempt, line.at);
}

/// Who may make this move.
fn is_right(line: &Line, from: StepState, to: StepState) -> bool {
    let operator = line.actor.starts_with("operator:");
    let worker = line.actor.starts_with("worker:");
    let orchestration = line.actor == "orchestration";
    match to {
        StepState::InProgress | StepState::Reported => worker,
        StepState::Complete | StepState::WaitingForRetry => orchestration,
        // a step that has reported fails; one that has not is put aside
        StepState::Error => orchestration || operator && from != StepState::Reported,
        StepState::ResolvedManually => operator,
        StepState::Pending => worker || operator,
        StepState::Enqueued => worker || operator || orchestration,
        StepState::Cancelled | StepState::Skipped => operator || orchestration,
    }
}

fn task_moves(line: &Line, place: &mut (Option<TaskState>, f64), found: &mut Violations) {
    let from = line.from_state.as_deref();
    found.unless(from == place.0.map(TaskState::as_str), Promise::LegalHistory, || {
        format!("the task was {:?}: {line:?}", place.0)
    });
    let to: Option<TaskState> = line.to_state.parse().ok();
    let legal = match (from, to) {
        (None, Some(to)) => to == TaskState::Pending,
        (Some(from), Some(to)) => TaskState::edges().any(|(a, _, b)| a.as_str() == from && b == to),
        _ => false,
    };
    found.unless(legal, Promise::LegalHistory, || format!("there is no such move: {line:?}"));
    found.unless(line.at >= place.1, Promise::LegalHistory, || format!("it goes back in time: {line:?}"));
    *place = (to, line.at);
}
