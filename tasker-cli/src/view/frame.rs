//! One picture of running tasks: lines that fit the terminal.

use super::{
    Look, Tone, bar, duration, fit, one_line, state,
    text::{self, pad},
};
use std::collections::BTreeMap;
use tasker_shared::{
    api::{StepDetail, TaskDetail},
    step::StepState,
};

/// Columns of the bar, with and without room for it.
const BAR: (usize, usize) = (24, 10);

/// The picture of `tasks` in at most `height` lines, where that is given.
pub(super) fn frame(tasks: &[TaskDetail], look: &Look, height: Option<usize>) -> Vec<String> {
    let each = height.map(|height| height / tasks.len().max(1));
    // Where not even a head and a step fit, only heads are shown, the open ones first.
    if each.is_some_and(|each| each < 5) && tasks.len() > 1 {
        return heads(tasks, look, height.unwrap_or(usize::MAX));
    }
    tasks.iter().flat_map(|task| picture(task, look, each)).collect()
}

fn heads(tasks: &[TaskDetail], look: &Look, height: usize) -> Vec<String> {
    let mut order: Vec<_> = tasks.iter().collect();
    order.sort_by_key(|task| task.summary.state.is_final());
    let shown = if tasks.len() > height { height.saturating_sub(1) } else { tasks.len() };
    let mut lines: Vec<_> = order.iter().take(shown).map(|task| head(task, look)).collect();
    if shown < tasks.len() {
        let ended = tasks.iter().filter(|task| task.summary.state.is_final()).count();
        let rest = format!("  … {} more; {ended} of {} tasks have ended", tasks.len() - shown, tasks.len());
        lines.push(line(look, &[(Tone::Quiet, rest)]));
    }
    lines
}

fn picture(task: &TaskDetail, look: &Look, height: Option<usize>) -> Vec<String> {
    let room = height.map_or(usize::MAX, |height| height.saturating_sub(3));
    let shown = choose(&task.steps, room);
    let names = shown.iter().map(|step| text::width(&step.name)).max().unwrap_or(0).min(40);
    let mut lines = vec![head(task, look)];
    lines.extend(shown.iter().map(|step| step_line(task, step, names, look)));
    // What a step says is shown with the step.
    if let Some(error) = task.error.as_ref().filter(|_| !task.steps.iter().any(|step| step.error.is_some())) {
        lines.push(line(look, &[(Tone::Bad, format!("  {}", one_line(&super::explain::error_text(error))))]));
    }
    if shown.len() < task.steps.len() {
        lines.push(line(look, &[(Tone::Quiet, format!("  … {}", rest(&task.steps, &shown)))]));
    }
    lines
}

fn head(task: &TaskDetail, look: &Look) -> String {
    let summary = &task.summary;
    let tone = state::task_tone(summary.state);
    let (done, total) = (summary.steps_done.max(0) as usize, summary.steps_total.max(0) as usize);
    let mut parts = vec![
        (tone, format!("{} ", state::task_symbol(summary.state))),
        (Tone::Strong, super::task::template_name(summary)),
        (Tone::Plain, "  ".to_owned()),
        (tone, bar(done, total, bar_width(look))),
        (Tone::Plain, format!("  {done}/{total} steps  ")),
        (tone, summary.state.to_string()),
        (Tone::Plain, format!("  {}", elapsed(task, look))),
    ];
    let id = format!("  {}", summary.task_id);
    let taken: usize = parts.iter().chain([&(tone, id.clone())]).map(|(_, part)| text::width(part)).sum();
    // A piece of an id is of no use.
    if look.width.is_none_or(|width| taken <= width) {
        parts.push((Tone::Quiet, id));
    }
    line(look, &parts)
}

fn bar_width(look: &Look) -> usize {
    if look.width.is_none_or(|width| width >= 90) { BAR.0 } else { BAR.1 }
}

fn elapsed(task: &TaskDetail, look: &Look) -> String {
    match (task.summary.finished_at, task.started_at, task.run_at) {
        (Some(end), started, _) => duration(end - started.unwrap_or(task.summary.created_at)),
        (None, Some(started), _) => duration(look.clock.now() - started),
        (None, None, Some(run_at)) if run_at > look.clock.now() => format!("starts {}", look.clock.relative(run_at)),
        _ => "waits to start".to_owned(),
    }
}

fn step_line(task: &TaskDetail, step: &StepDetail, names: usize, look: &Look) -> String {
    let tone = state::step_tone(step.state);
    let state_width = StepState::WaitingForRetry.as_str().len();
    line(
        look,
        &[
            (tone, format!("  {} ", state::step_symbol(step.state))),
            (Tone::Plain, format!("{}  ", pad(&fit(&step.name, names), names))),
            (tone, pad(step.state.as_str(), state_width)),
            (Tone::Plain, format!("  {:>7}", step_time(step, look))),
            (Tone::Quiet, attempt(step).map(|text| format!("  {text}")).unwrap_or_default()),
            (note_tone(step.state), note(task, step, look).map(|text| format!("  {text}")).unwrap_or_default()),
        ],
    )
}

/// How long a step ran, or has run, or has been queued.
pub(super) fn step_time(step: &StepDetail, look: &Look) -> String {
    let now = look.clock.now();
    let length = match (step.state, step.enqueued_at, step.started_at, step.finished_at) {
        (StepState::InProgress, _, Some(started), _) => now - started,
        (StepState::Enqueued, Some(enqueued), ..) => now - enqueued,
        (state, _, Some(started), Some(finished)) if state.is_final() => finished - started,
        _ => return String::new(),
    };
    duration(length)
}

/// Which attempt it is, from the second on.
pub(super) fn attempt(step: &StepDetail) -> Option<String> {
    (step.attempt > 1 || step.failures > 0)
        .then(|| format!("attempt {}, {} of {} failures", step.attempt, step.failures, step.max_attempts))
}

/// What is worth saying beside the state.
pub(super) fn note(task: &TaskDetail, step: &StepDetail, look: &Look) -> Option<String> {
    let error = step.error.as_ref().map(|error| one_line(&error.message));
    match step.state {
        StepState::Pending => waits_for(task, step),
        StepState::InProgress => step.progress.as_ref().map(text::progress),
        StepState::WaitingForRetry => {
            let again = step.retry_at.map(|at| format!("again in {}", duration(at - look.clock.now())));
            Some([again, error].into_iter().flatten().collect::<Vec<_>>().join(": "))
        }
        StepState::Error => error,
        _ => None,
    }
}

fn waits_for(task: &TaskDetail, step: &StepDetail) -> Option<String> {
    let done = |name: &String| task.steps.iter().any(|s| s.name == *name && s.state.satisfies_dependents());
    let names: Vec<_> = step.dependencies.iter().filter(|name| !done(name)).map(String::as_str).collect();
    (!names.is_empty()).then(|| format!("waits for {}", names.join(", ")))
}

const fn note_tone(state: StepState) -> Tone {
    match state {
        StepState::Error => Tone::Bad,
        StepState::WaitingForRetry => Tone::Warn,
        StepState::InProgress => Tone::Busy,
        _ => Tone::Quiet,
    }
}

/// The steps that fit, in their order: what runs or failed goes first, what ended long ago last.
fn choose(steps: &[StepDetail], room: usize) -> Vec<&StepDetail> {
    let room = if steps.len() > room { room.saturating_sub(1) } else { room };
    let mut order: Vec<usize> = (0..steps.len()).collect();
    order.sort_by_key(|index| (rank(steps[*index].state), std::cmp::Reverse(steps[*index].finished_at)));
    order.truncate(room);
    order.sort_unstable();
    order.into_iter().map(|index| &steps[index]).collect()
}

const fn rank(state: StepState) -> u8 {
    match state {
        StepState::InProgress | StepState::Reported | StepState::WaitingForRetry | StepState::Error => 0,
        StepState::Enqueued => 1,
        StepState::Complete | StepState::Cancelled | StepState::ResolvedManually => 2,
        StepState::Pending | StepState::Skipped => 3,
    }
}

fn rest(steps: &[StepDetail], shown: &[&StepDetail]) -> String {
    let mut counts = BTreeMap::new();
    for step in steps.iter().filter(|step| !shown.iter().any(|other| other.step_id == step.step_id)) {
        *counts.entry(step.state).or_insert(0) += 1;
    }
    let counts: Vec<_> = counts.iter().map(|(state, count)| format!("{count} {state}")).collect();
    format!("{} more: {}", steps.len() - shown.len(), counts.join(", "))
}

/// Joins the parts into one line of the terminal: cut first and painted then, so that no colour code is cut.
fn line(look: &Look, parts: &[(Tone, String)]) -> String {
    let mut left = look.width.unwrap_or(usize::MAX);
    let mut line = String::new();
    for (tone, part) in parts {
        let part = fit(part, left);
        left = left.saturating_sub(text::width(&part));
        line.push_str(&look.paint.paint(*tone, &part));
    }
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::frame;
    use crate::view::{
        Look, Paint,
        fixed::{TASK, failed, look, order, step, task},
        text::width,
    };
    use serde_json::json;
    use tasker_shared::{step::StepState, task::TaskState};

    fn drawn(tasks: &[tasker_shared::api::TaskDetail], width: Option<usize>, height: Option<usize>) -> Vec<String> {
        frame(tasks, &Look { width, ..look() }, height)
    }

    #[test]
    fn a_running_task_shows_each_step_with_what_matters_about_it() {
        let expected = [
            &format!("▸ shop/order@1.0.0  ██████░░░░░░░░░░░░░░░░░░  1/4 steps  in_progress  12.0s  {TASK}"),
            "  ✓ validate       complete              2.0s",
            "  ▸ reserve_stock  in_progress          10.0s  3/9 shelves",
            "  ↻ charge         waiting_for_retry           attempt 1, 1 of 3 failures  again in 2.0s: card declined by the bank",
            "  · ship           pending                     waits for reserve_stock, charge",
        ];
        assert_eq!(drawn(&[order()], None, None), expected);
    }

    #[test]
    fn a_failed_task_shows_the_error_with_its_step() {
        let lines = drawn(&[failed()], None, None);
        assert!(
            lines[0].starts_with("✗ shop/order@1.0.0  ████████████░░░░░░░░░░░░  2/4 steps  error  10.0s"),
            "{lines:?}"
        );
        assert_eq!(
            lines[3],
            "  ✗ charge         error                 7.0s  attempt 3, 3 of 3 failures  card declined by the bank"
        );
    }

    #[test]
    fn a_task_that_was_rejected_shows_why() {
        let mut rejected = task(TaskState::Error, vec![]);
        rejected.error = Some(json!({"message": "the input breaks the input_schema"}));
        assert_eq!(drawn(&[rejected], None, None)[1], "  the input breaks the input_schema");
    }

    #[test]
    fn every_line_fits_the_terminal_with_and_without_colours() {
        for on in [false, true] {
            let look = Look { width: Some(60), paint: Paint::new(on), ..look() };
            for line in frame(&[order()], &look, None) {
                let bare = crate::view::paint::bare(&line);
                assert!(width(&bare) <= 60, "{bare}");
                assert_eq!(on, line != bare);
            }
        }
    }

    #[test]
    fn what_runs_stays_in_sight_when_there_are_many_steps() {
        let mut steps: Vec<_> = (0..40).map(|n| step(n, &format!("s{n}"), &[], StepState::Complete)).collect();
        steps.extend((40..80).map(|n| step(n, &format!("s{n}"), &["s0"], StepState::Pending)));
        steps[39].state = StepState::InProgress;
        let lines = drawn(&[task(TaskState::InProgress, steps)], None, Some(10));
        assert!(lines.len() <= 10, "{}", lines.len());
        assert!(lines.iter().any(|line| line.contains("s39") && line.contains("in_progress")), "{lines:?}");
        assert_eq!(lines.last().unwrap(), "  … 74 more: 40 pending, 34 complete");
    }

    #[test]
    fn many_tasks_are_one_line_each_and_the_rest_is_counted() {
        let mut tasks = vec![failed(); 30];
        tasks.push(order());
        let lines = drawn(&tasks, None, Some(6));
        assert_eq!(lines.len(), 6);
        assert!(lines[0].starts_with('▸'), "what runs comes first: {lines:?}");
        assert_eq!(lines[5], "  … 26 more; 30 of 31 tasks have ended");
    }
}
