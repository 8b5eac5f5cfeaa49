//! Tasks: in a list, as a whole, and as news.

use super::{
    Cell, Look, Table, Tone, duration, explain,
    frame::{note, step_time},
    history, plain, state,
};
use serde_json::Value;
use tasker_shared::{
    api::{History, StepDetail, Submitted, TaskDetail, TaskPage, TaskSummary},
    step::StepState,
    task::TaskState,
};

/// From so many columns on a list has room for both forms of a time.
const WIDE: usize = 140;

/// `namespace/name@version`.
pub(super) fn template_name(task: &TaskSummary) -> String {
    format!("{}/{}@{}", task.namespace, task.name, task.version)
}

/// A page of tasks as a table.
pub fn list(page: &TaskPage, look: &Look) -> String {
    if page.tasks.is_empty() {
        return "no tasks; submit one with `tasker task submit NAMESPACE/NAME`".to_owned();
    }
    let mut table =
        Table::new(look, ["TASK", "TEMPLATE", "STATE", "STEPS", "CREATED", "TOOK", "TAGS"], &["TEMPLATE", "TAGS"]);
    for task in &page.tasks {
        let tone = state::task_tone(task.state);
        let took = task.finished_at.map(|end| duration(end - task.created_at)).unwrap_or_default();
        table.row([
            Cell::toned(Tone::Strong, task.task_id.to_string()),
            template_name(task).into(),
            Cell::toned(tone, format!("{} {}", state::task_symbol(task.state), task.state)),
            format!("{}/{}", task.steps_done, task.steps_total).into(),
            created(task, look).into(),
            took.into(),
            task.tags.join(" ").into(),
        ]);
    }
    let more = page.next.map(|next| format!("\nmore: --before {next}")).unwrap_or_default();
    table.draw() + &more
}

fn created(task: &TaskSummary, look: &Look) -> String {
    let wide = look.width.is_none_or(|width| width >= WIDE);
    if wide { look.clock.moment(task.created_at) } else { look.clock.relative(task.created_at) }
}

/// A whole task: where it stands, its steps, what failed, and where to look next.
pub fn overview(task: &TaskDetail, look: &Look) -> String {
    let mut text = facts(task, look);
    text.push_str("\n\n");
    text.push_str(&steps(task, look));
    for failed in task.steps.iter().filter(|step| step.error.is_some() && step.state == StepState::Error) {
        text.push_str(&format!("\n\n{}", failure(failed, look)));
    }
    if let Some(error) = &task.error {
        text.push_str(&format!("\n\n{} {}", look.paint.paint(Tone::Bad, "error"), explain::error_text(error)));
    }
    text.push_str(&format!("\n\n{}", next(task, look)));
    text
}

fn facts(task: &TaskDetail, look: &Look) -> String {
    let summary = &task.summary;
    let tone = state::task_tone(summary.state);
    let when = |at: Option<_>| at.map(|at| look.clock.moment(at));
    let took = summary.finished_at.map(|end| {
        let whole = format!("{} since it was submitted", duration(end - summary.created_at));
        task.started_at.map_or(whole.clone(), |start| format!("{} ({whole})", duration(end - start)))
    });
    let state = format!("{} {}", state::task_symbol(summary.state), summary.state);
    let rows = [
        ("task", Some(look.paint.paint(Tone::Strong, &summary.task_id.to_string()))),
        ("template", Some(template_name(summary))),
        ("state", Some(look.paint.paint(tone, &state))),
        ("steps", Some(format!("{} of {} done", summary.steps_done, summary.steps_total))),
        ("created", when(Some(summary.created_at))),
        ("runs at", when(task.run_at)),
        ("started", when(task.started_at)),
        ("finished", when(summary.finished_at)),
        ("took", took),
        ("priority", (summary.priority != 0).then(|| summary.priority.to_string())),
        ("tags", (!summary.tags.is_empty()).then(|| summary.tags.join(" "))),
        ("key", task.idempotency_key.clone()),
        ("correlation", Some(summary.correlation_id.to_string())),
        ("caused by", task.parent_correlation_id.map(|id| id.to_string())),
        ("initiator", task.initiator.clone()),
        ("source", task.source_system.clone()),
        ("reason", task.reason.clone()),
        ("dashboard", task.dashboard_url.clone()),
        ("input", Some(task.input.to_string())),
    ];
    table_of(&rows, look)
}

fn table_of(rows: &[(&str, Option<String>)], look: &Look) -> String {
    let lines = rows.iter().filter_map(|(name, value)| {
        let value = value.as_ref()?;
        // Painted values are ours; all others are made harmless.
        let value = if value.starts_with('\x1b') { value.clone() } else { super::one_line(value) };
        Some(format!("{}{value}", look.paint.paint(Tone::Quiet, &format!("{name:<13}"))))
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn steps(task: &TaskDetail, look: &Look) -> String {
    if task.steps.is_empty() {
        return "no steps yet: they are made when the task starts".to_owned();
    }
    let mut table = Table::new(look, ["", "STEP", "STATE", "TIME", "ATTEMPT", "WORKER", "NOTE"], &["NOTE"]);
    for step in &task.steps {
        let tone = state::step_tone(step.state);
        table.row([
            Cell::toned(tone, state::step_symbol(step.state)),
            step.name.as_str().into(),
            Cell::toned(tone, step.state.as_str()),
            step_time(step, look).into(),
            attempts(step).into(),
            step.worker.clone().unwrap_or_default().into(),
            short_note(task, step, look).into(),
        ]);
    }
    table.draw()
}

fn attempts(step: &StepDetail) -> String {
    match (step.attempt, step.failures) {
        (0, _) => String::new(),
        (attempt, 0) => attempt.to_string(),
        (attempt, failures) => format!("{attempt} ({failures}/{} failed)", step.max_attempts),
    }
}

fn short_note(task: &TaskDetail, step: &StepDetail, look: &Look) -> String {
    super::fit(&note(task, step, look).unwrap_or_default(), 60)
}

fn failure(step: &StepDetail, look: &Look) -> String {
    let Some(error) = &step.error else { return String::new() };
    let head = format!("{} {}", look.paint.paint(Tone::Bad, "error in"), look.paint.paint(Tone::Strong, &step.name));
    let details =
        error.details.as_ref().map(|details| format!("\n  {}", explain::error_text(details))).unwrap_or_default();
    format!("{head} ({})\n  {}{details}", error.kind, plain(&error.message).replace('\n', "\n  "))
}

fn next(task: &TaskDetail, look: &Look) -> String {
    let id = task.summary.task_id;
    let failed = task.steps.iter().find(|step| step.state == StepState::Error);
    let commands = match (task.summary.state, failed) {
        (TaskState::Error, Some(step)) => vec![
            ("see the failed step", format!("tasker step show {id} {}", step.name)),
            ("run what failed again", format!("tasker task retry {id}")),
            ("give its result by hand", format!("tasker step resolve {id} {} --result JSON", step.name)),
        ],
        (TaskState::Error | TaskState::ResolvedManually | TaskState::Cancelled, _) => {
            vec![("what happened", format!("tasker task show {id} --history"))]
        }
        (TaskState::Complete, _) => vec![
            ("a step's result", format!("tasker step show {id} STEP")),
            ("what happened", format!("tasker task show {id} --history")),
        ],
        (TaskState::Paused, _) => vec![("let it go on", format!("tasker task resume {id}"))],
        (TaskState::Pending | TaskState::InProgress, _) => vec![
            ("follow it", format!("tasker task watch {id}")),
            ("why it is not running", format!("tasker task explain {id}")),
        ],
    };
    let width = commands.iter().map(|(what, _)| what.len()).max().unwrap_or(0);
    let line = |(what, command): &(&str, String)| {
        format!("{}  {command}", look.paint.paint(Tone::Quiet, &format!("{what:<width$}")))
    };
    commands.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A step with its result, its error and its history.
pub fn step(task: &TaskDetail, step: &StepDetail, past: &History, look: &Look) -> String {
    let tone = state::step_tone(step.state);
    let when = |at: Option<_>| at.map(|at| look.clock.moment(at));
    let state = format!("{} {}", state::step_symbol(step.state), step.state);
    let time = step_time(step, look);
    let rows = [
        ("step", Some(look.paint.paint(Tone::Strong, &step.name))),
        ("task", Some(format!("{}  {}", task.summary.task_id, template_name(&task.summary)))),
        ("state", Some(look.paint.paint(tone, &state))),
        ("note", note(task, step, look)),
        ("attempt", (step.attempt > 0).then(|| attempts(step))),
        ("time", (!time.is_empty()).then_some(time)),
        ("worker", step.worker.clone()),
        ("after", (!step.dependencies.is_empty()).then(|| step.dependencies.join(", "))),
        ("queued", when(step.enqueued_at)),
        ("started", when(step.started_at)),
        ("finished", when(step.finished_at)),
    ];
    let mut text = table_of(&rows, look);
    if step.error.is_some() {
        text.push_str(&format!("\n\n{}", failure(step, look)));
    }
    if let Some(result) = &step.result {
        text.push_str(&format!("\n\n{}\n{}", look.paint.paint(Tone::Quiet, "result"), pretty(result)));
    }
    let own: Vec<_> = past.transitions.iter().filter(|t| t.step.as_deref() == Some(&step.name)).cloned().collect();
    text.push_str(&format!("\n\n{}", history(&History { transitions: own }, look)));
    text
}

fn pretty(value: &Value) -> String {
    plain(&serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string()))
}

/// What submitting came to, in one line.
pub fn submitted(task: &Submitted, look: &Look) -> String {
    let what = if task.created { "submitted" } else { "exists already" };
    let id = look.paint.paint(Tone::Strong, &task.task_id.to_string());
    format!("{id}  {what}  {}  correlation {}", task.state, task.correlation_id)
}

#[cfg(test)]
mod tests {
    use super::{list, overview, step, submitted};
    use crate::view::fixed::{TASK, at, complete, failed, look, order};
    use tasker_shared::{
        api::{History, Submitted, TaskPage, Transition},
        task::TaskState,
    };

    #[test]
    fn a_list_shows_a_line_for_each_task_and_how_to_see_more() {
        let page = TaskPage { tasks: vec![order().summary, complete().summary], next: Some(order().summary.task_id) };
        let expected = format!(
            "\
TASK                                  TEMPLATE          STATE          STEPS  CREATED             TOOK   TAGS
{TASK}  shop/order@1.0.0  ▸ in_progress  1/4    13s ago (12:00:47)         eu web
{TASK}  shop/order@1.0.0  ✓ complete     4/4    13s ago (12:00:47)  11.0s  eu web
more: --before {TASK}"
        );
        assert_eq!(list(&page, &look()), expected);
    }

    #[test]
    fn an_empty_list_says_how_to_begin() {
        assert!(list(&TaskPage { tasks: vec![], next: None }, &look()).contains("tasker task submit"));
    }

    #[test]
    fn an_overview_shows_facts_steps_errors_and_where_to_look_next() {
        let expected = format!(
            "\
task         {TASK}
template     shop/order@1.0.0
state        ✗ error
steps        2 of 4 done
created      13s ago (12:00:47)
started      12s ago (12:00:48)
finished     2s ago (12:00:58)
took         10.0s (11.0s since it was submitted)
tags         eu web
correlation  0197f000-0000-7000-8000-000000000002
initiator    anna
input        {{\"id\":7}}

   STEP           STATE     TIME  ATTEMPT         WORKER  NOTE
✓  validate       complete  7.0s  1               w-1
✓  reserve_stock  complete  7.0s  1               w-1
✗  charge         error     7.0s  3 (3/3 failed)  w-1     card declined by the bank
·  ship           pending                                 waits for charge

error in charge (handler_error)
  card declined
  by the bank

see the failed step      tasker step show {TASK} charge
run what failed again    tasker task retry {TASK}
give its result by hand  tasker step resolve {TASK} charge --result JSON"
        );
        assert_eq!(overview(&failed(), &look()), expected);
    }

    #[test]
    fn a_running_task_says_how_to_follow_it() {
        let text = overview(&order(), &look());
        assert!(text.ends_with(&format!(
            "follow it              tasker task watch {TASK}\nwhy it is not running  tasker task explain {TASK}"
        )));
    }

    #[test]
    fn a_step_shows_its_error_and_its_own_history() {
        let transition = |step: Option<&str>, to: &str, second| Transition {
            sequence: second,
            step: step.map(Into::into),
            from: None,
            to: to.into(),
            attempt: None,
            actor: "orchestration".into(),
            reason: None,
            at: at(second),
        };
        let past = [transition(None, "pending", 1), transition(Some("charge"), "enqueued", 2)];
        let task = order();
        let text = step(&task, &task.steps[2], &History { transitions: past.to_vec() }, &look());
        let expected = format!(
            "\
step         charge
task         {TASK} shop/order@1.0.0
state        ↻ waiting_for_retry
note         again in 2.0s: card declined by the bank
attempt      1 (1/3 failed)
worker       w-1
after        validate
queued       12s ago (12:00:48)
started      10s ago (12:00:50)

error in charge (handler_error)
  card declined
  by the bank

TIME          AFTER  WHAT    FROM  TO        ATTEMPT  BY             REASON
12:00:02.000  0.0ms  charge        enqueued           orchestration"
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn submitting_twice_is_told_apart() {
        let task = order().summary;
        let answer = |created| Submitted {
            task_id: task.task_id,
            correlation_id: task.correlation_id,
            created,
            state: TaskState::Pending,
        };
        assert!(submitted(&answer(true), &look()).starts_with(&format!("{TASK}  submitted  pending")));
        assert!(submitted(&answer(false), &look()).starts_with(&format!("{TASK}  exists already  pending")));
    }
}
