//! What stands at the end, against what was acknowledged, what the model says, and what handlers did.

use super::{
    Promise, Violations,
    facts::{Facts, Line, Step, Task},
    limits,
};
use crate::chaos::{
    effects::Effects,
    graph::Graph,
    ledger::{Action, Entries},
};
use sqlx::types::Uuid;
use std::collections::{HashMap, HashSet};
use tasker_shared::{id::StepId, step::StepState, task::TaskState};

pub(super) fn check(facts: &Facts, ledger: &Entries, graphs: &[Graph], effects: &Effects, found: &mut Violations) {
    let index = Index::of(facts);
    submissions(facts, ledger, graphs, &index, found);
    actions(ledger, &index, found);
    let operated: HashSet<Uuid> = ledger.actions.values().map(|action| action.task.0).collect();
    let cut = limits::cut(facts);
    for task in &facts.tasks {
        stands(task, &index, found);
        if !operated.contains(&task.id) && !cut.contains(&task.id) {
            as_modelled(task, graphs, &index, found);
        }
    }
    order(facts, &index, found);
    ran(facts, &index, effects, found);
    for (queue, messages) in &facts.messages {
        found.unless(false, Promise::NothingLeft, || format!("queue {queue} still holds {messages} messages"));
    }
    found.unless(facts.timers == 0, Promise::NothingLeft, || format!("{} timers are left", facts.timers));
    found.unless(facts.permits == 0, Promise::NothingLeft, || format!("{} permits are left", facts.permits));
}

struct Index<'a> {
    tasks: HashMap<Uuid, &'a Task>,
    steps: HashMap<Uuid, &'a Step>,
    steps_of: HashMap<Uuid, Vec<&'a Step>>,
    parents: HashMap<Uuid, Vec<Uuid>>,
    lines: HashMap<Uuid, Vec<&'a Line>>,
    by_actor: HashMap<&'a str, Vec<&'a Line>>,
}

impl<'a> Index<'a> {
    fn of(facts: &'a Facts) -> Self {
        let mut index = Self {
            tasks: facts.tasks.iter().map(|task| (task.id, task)).collect(),
            steps: facts.steps.iter().map(|step| (step.id, step)).collect(),
            steps_of: HashMap::new(),
            parents: HashMap::new(),
            lines: HashMap::new(),
            by_actor: HashMap::new(),
        };
        for step in &facts.steps {
            index.steps_of.entry(step.task_id).or_default().push(step);
        }
        for (parent, child) in &facts.edges {
            index.parents.entry(*child).or_default().push(*parent);
        }
        for line in &facts.history {
            if let Some(step) = line.step_id {
                index.lines.entry(step).or_default().push(line);
            }
            index.by_actor.entry(line.actor.as_str()).or_default().push(line);
        }
        index
    }

    fn steps_of(&self, task: Uuid) -> &[&'a Step] {
        self.steps_of.get(&task).map_or(&[], Vec::as_slice)
    }

    fn lines(&self, step: Uuid) -> &[&'a Line] {
        self.lines.get(&step).map_or(&[], Vec::as_slice)
    }
}

fn submissions(facts: &Facts, ledger: &Entries, graphs: &[Graph], index: &Index<'_>, found: &mut Violations) {
    let mut of_number: HashMap<i64, Vec<&Task>> = HashMap::new();
    for task in &facts.tasks {
        of_number.entry(task.number).or_default().push(task);
    }
    for (number, submitted) in &ledger.submissions {
        let number = i64::try_from(*number).unwrap_or(-1);
        let tasks = of_number.get(&number).map_or(&[] as &[&Task], Vec::as_slice);
        found
            .unless(tasks.len() <= 1, Promise::OneTask, || format!("submission {number} became {} tasks", tasks.len()));
        if let Some(why) = &submitted.refused {
            found.unless(false, Promise::NothingLost, || format!("submission {number} was refused: {why}"));
        }
        let answered = !submitted.acknowledged.is_empty() || submitted.rolled_back || submitted.refused.is_some();
        found.unless(answered, Promise::Accepted, || {
            format!("submission {number} was tried {} times and never accepted", submitted.tries)
        });
        for id in &submitted.acknowledged {
            found.unless(index.tasks.contains_key(&id.0), Promise::NothingLost, || {
                format!("task {id} of submission {number} was acknowledged and does not exist")
            });
            found.unless(submitted.acknowledged.first() == Some(id), Promise::OneTask, || {
                format!("submission {number} was acknowledged as {:?}", submitted.acknowledged)
            });
        }
        if submitted.rolled_back {
            found.unless(tasks.is_empty(), Promise::OneTask, || {
                format!("submission {number} was rolled back, and there is a task")
            });
        }
        let right = graphs.get(submitted.graph).map(|graph| graph.name.as_str());
        for task in tasks {
            found.unless(right == Some(task.name.as_str()), Promise::Agreement, || {
                format!("task {} is a {}", task.id, task.name)
            });
        }
        if let Some(order) = facts.orders.get(&number) {
            let same = tasks.iter().any(|task| task.id == *order);
            found.unless(same, Promise::NothingLost, || {
                format!("the caller's row of {number} names task {order}, which is not there")
            });
        }
    }
    for task in &facts.tasks {
        let asked = usize::try_from(task.number).is_ok_and(|number| ledger.submissions.contains_key(&number));
        found.unless(asked, Promise::OneTask, || format!("nobody asked for task {} (number {})", task.id, task.number));
    }
}

/// An acknowledged action is in the history once, with its operator; one that nobody knows of at most once.
fn actions(ledger: &Entries, index: &Index<'_>, found: &mut Violations) {
    for (operator, Action { task, verb, acknowledged, .. }) in &ledger.actions {
        let lines = index.by_actor.get(format!("operator:{operator}").as_str()).map_or(&[] as &[&Line], Vec::as_slice);
        if *acknowledged {
            found.unless(!lines.is_empty(), Promise::NothingLost, || {
                format!("{verb} of task {task} was acknowledged and left no trace")
            });
        }
        found.unless(lines.iter().all(|line| line.task_id == task.0), Promise::LegalHistory, || {
            format!("{verb} of task {task} moved another task")
        });
        if *acknowledged && *verb == "cancel" {
            let state = index.tasks.get(&task.0).map(|task| task.state.as_str());
            found.unless(state == Some("cancelled"), Promise::Agreement, || {
                format!("task {task} was cancelled and is {state:?}")
            });
        }
    }
}

/// A task has ended, nothing of it is active, and its counters and its state agree with its steps.
fn stands(task: &Task, index: &Index<'_>, found: &mut Violations) {
    let state: Option<TaskState> = task.state.parse().ok();
    let ended = state.is_some_and(TaskState::is_final);
    found.unless(ended, Promise::NothingLost, || {
        let steps: Vec<String> =
            index.steps_of(task.id).iter().map(|s| format!("{}={}({})", s.name, s.state, s.waiting_on)).collect();
        format!("task {} ({}) is {}: {}", task.id, task.number, task.state, steps.join(" "))
    });
    let steps = index.steps_of(task.id);
    let states: Vec<StepState> = steps.iter().filter_map(|step| step.state.parse().ok()).collect();
    let remaining = states.iter().filter(|state| !state.satisfies_dependents()).count();
    let active = steps.iter().zip(&states).filter(|(step, state)| match state {
        StepState::Enqueued | StepState::InProgress | StepState::Reported | StepState::WaitingForRetry => true,
        StepState::Pending => step.waiting_on == 0,
        _ => false,
    });
    let counted = (usize::try_from(task.remaining_steps), usize::try_from(task.active_steps));
    let active = active.count();
    found.unless(counted == (Ok(remaining), Ok(active)), Promise::Agreement, || {
        format!("task {} counts {counted:?} and has {remaining} remaining, {active} active", task.id)
    });
    if ended {
        found.unless(active == 0, Promise::Agreement, || {
            format!("task {} is {} with {active} active steps", task.id, task.state)
        });
    }
    if state == Some(TaskState::Complete) {
        found.unless(remaining == 0 && !steps.is_empty(), Promise::Agreement, || {
            format!("task {} is complete with {remaining} of {} steps remaining", task.id, steps.len())
        });
    }
    for step in steps {
        let parents = index.parents.get(&step.id).map_or(&[] as &[Uuid], Vec::as_slice);
        let open = parents.iter().filter(|parent| !is_done(index, **parent)).count();
        // what is not pending any more does not wait, whatever becomes of its parents
        let agrees = step.state != "pending" || usize::try_from(step.waiting_on) == Ok(open);
        found.unless(agrees, Promise::Agreement, || {
            format!("step {} waits for {} of {open} open parents", step.id, step.waiting_on)
        });
    }
}

fn is_done(index: &Index<'_>, step: Uuid) -> bool {
    let state = index.steps.get(&step).and_then(|step| step.state.parse::<StepState>().ok());
    state.is_some_and(StepState::satisfies_dependents)
}

fn as_modelled(task: &Task, graphs: &[Graph], index: &Index<'_>, found: &mut Violations) {
    let Some(graph) = graphs.iter().find(|graph| graph.name == task.name) else { return };
    let model: Vec<&str> = graph.model().into_iter().map(StepState::as_str).collect();
    let stands: Vec<&str> = index.steps_of(task.id).iter().map(|step| step.state.as_str()).collect();
    found.unless(model == stands, Promise::Agreement, || {
        format!("task {} ({}): {stands:?}, not {model:?}", task.id, task.name)
    });
    let complete = model.iter().all(|state| *state == "complete");
    let ends = if complete { "complete" } else { "error" };
    found.unless(task.state == ends, Promise::Agreement, || format!("task {} is {}, not {ends}", task.id, task.state));
}

/// A step is put on its queue after all its parents are done, and is given the results that count.
fn order(facts: &Facts, index: &Index<'_>, found: &mut Violations) {
    for step in &facts.steps {
        let Some(parents) = index.parents.get(&step.id) else { continue };
        let first = index.lines(step.id).iter().find(|line| line.to_state == "enqueued").map(|line| line.id);
        for parent in parents {
            let done = index
                .lines(*parent)
                .iter()
                .find(|line| line.to_state.parse::<StepState>().is_ok_and(StepState::satisfies_dependents));
            if let Some(first) = first {
                found.unless(done.is_some_and(|done| done.id < first), Promise::Order, || {
                    format!("step {} was enqueued before its parent {parent} was done", step.id)
                });
            }
            given(step, *parent, index, found);
        }
    }
}

fn given(step: &Step, parent: Uuid, index: &Index<'_>, found: &mut Violations) {
    let (Some(result), Some(parent)) = (&step.result, index.steps.get(&parent)) else { return };
    // programs do not tell what they were given
    let Some(given) = result.get("parents").and_then(|parents| parents.as_object()) else { return };
    let told = given.get(&parent.name).cloned().unwrap_or_default();
    let right = parent.result.as_ref().map(|result| result["attempt"].clone()).unwrap_or_default();
    found.unless(told == right, Promise::Order, || {
        format!("step {} was given {told} of its parent {}, whose result is {right}", step.id, parent.name)
    });
}

/// Handlers ran at least once for every outcome, once for each claim, and for no claim that the history does not have.
fn ran(facts: &Facts, index: &Index<'_>, effects: &Effects, found: &mut Violations) {
    for line in &effects.unreadable {
        found.unless(false, Promise::AtLeastOnce, || format!("an effect cannot be read: {line}"));
    }
    for ((step, attempt), effect) in &effects.attempts {
        let claimed = index.lines(step.0).iter().any(|line| line.to_state == "in_progress" && line.attempt == *attempt);
        found.unless(claimed, Promise::AtLeastOnce, || {
            format!("step {step} ran attempt {attempt}, which was never claimed")
        });
        found.unless(effect.begun <= 1, Promise::AtLeastOnce, || {
            format!("step {step} ran attempt {attempt} {} times", effect.begun)
        });
    }
    for step in &facts.steps {
        let lines = index.lines(step.id);
        let outcomes = lines.iter().filter(|line| line.to_state == "complete").count();
        found.unless(outcomes <= 1, Promise::CountedOnce, || format!("step {} completed {outcomes} times", step.id));
        for line in lines.iter().filter(|line| line.to_state == "complete") {
            let effect = effects.attempts.get(&(StepId(step.id), line.attempt)).copied().unwrap_or_default();
            found.unless(effect.ended == 1, Promise::AtLeastOnce, || {
                format!(
                    "step {} completed with attempt {}, whose handler ended {} times",
                    step.id, line.attempt, effect.ended
                )
            });
            let told = step.result.as_ref().and_then(|result| result["attempt"].as_i64());
            found.unless(told == Some(line.attempt.into()), Promise::CountedOnce, || {
                format!("step {} completed with attempt {} and has the result of {told:?}", step.id, line.attempt)
            });
        }
    }
}
