//! Tasks while they run, where nothing can be redrawn: one line per change of state.

use super::{
    Look, duration,
    frame::{attempt, note, step_time},
    plain, state,
    task::template_name,
};
use chrono::{DateTime, Utc};
use std::collections::HashMap;
use tasker_shared::{
    api::{StepDetail, TaskDetail},
    id::{StepId, TaskId},
    step::StepState,
    task::TaskState,
};

type Line = (DateTime<Utc>, String);

/// What was told already, and what is held back until nothing older can turn up.
#[derive(Debug, Default)]
pub(super) struct Told {
    tasks: HashMap<TaskId, TaskState>,
    steps: HashMap<StepId, (StepState, i32)>,
    held: Vec<Line>,
}

impl Told {
    /// The lines that are new, by their time. The tasks of one look were seen one after the other, so the newest lines
    /// wait for the next look, unless every task has ended.
    pub(super) fn news(&mut self, tasks: &[TaskDetail], look: &Look) -> Vec<String> {
        let complete_until = self.held.iter().map(|(at, _)| *at).max();
        let mut lines = std::mem::take(&mut self.held);
        for task in tasks {
            let label = if tasks.len() > 1 { format!("{}  ", template_name(&task.summary)) } else { String::new() };
            self.of_task(task, &label, look, &mut lines);
        }
        // One task's end comes after its steps, also at the same time: the sort is stable.
        lines.sort_by_key(|(at, _)| *at);
        if !tasks.iter().all(|task| task.summary.state.is_final()) {
            self.held = lines.split_off(lines.partition_point(|(at, _)| Some(*at) <= complete_until));
        }
        lines.into_iter().map(|line| written(line, look)).collect()
    }

    /// What is held back.
    pub(super) fn rest(&mut self, look: &Look) -> Vec<String> {
        self.held.drain(..).map(|line| written(line, look)).collect()
    }

    fn of_task(&mut self, task: &TaskDetail, label: &str, look: &Look, lines: &mut Vec<Line>) {
        let summary = &task.summary;
        let before = self.tasks.insert(summary.task_id, summary.state);
        if before.is_none() {
            lines.push((summary.created_at, format!("{}  {}", template_name(summary), summary.task_id)));
        }
        for step in task.steps.iter().filter(|step| self.is_news(step)) {
            lines.push((step_at(step, look), step_line(task, step, label, look)));
        }
        let changed = before.map_or(summary.state.is_final(), |before| before != summary.state);
        if changed {
            lines.push((task_at(task, look), task_line(task, label, look)));
        }
    }

    fn is_news(&mut self, step: &StepDetail) -> bool {
        // between the handler's end and the verdict, which is the news
        if step.state == StepState::Reported {
            return false;
        }
        let now = (step.state, step.attempt);
        self.steps.insert(step.step_id, now).unwrap_or((StepState::Pending, 0)) != now
    }
}

fn written((at, line): Line, look: &Look) -> String {
    format!("{}  {line}", look.clock.precise(at))
}

fn task_at(task: &TaskDetail, look: &Look) -> DateTime<Utc> {
    let started = task.started_at.filter(|_| task.summary.state == TaskState::InProgress);
    task.summary.finished_at.or(started).unwrap_or_else(|| look.clock.now())
}

fn task_line(task: &TaskDetail, label: &str, look: &Look) -> String {
    let summary = &task.summary;
    let state = look.paint.paint(state::task_tone(summary.state), summary.state.as_str());
    let from = task.started_at.unwrap_or(summary.created_at);
    let took = summary.finished_at.map(|end| format!("  {}", duration(end - from))).unwrap_or_default();
    format!("{label}task {state}  {}/{} steps{took}", summary.steps_done, summary.steps_total)
}

fn step_at(step: &StepDetail, look: &Look) -> DateTime<Utc> {
    let at = match step.state {
        StepState::Enqueued => step.enqueued_at,
        StepState::InProgress => step.started_at,
        state if state.is_final() => step.finished_at,
        _ => None,
    };
    at.unwrap_or_else(|| look.clock.now())
}

fn step_line(task: &TaskDetail, step: &StepDetail, label: &str, look: &Look) -> String {
    let state = look.paint.paint(state::step_tone(step.state), step.state.as_str());
    let time = Some(step_time(step, look)).filter(|time| !time.is_empty() && step.state.is_final());
    let more = [time, attempt(step), note(task, step, look)].into_iter().flatten().map(|text| format!("  {text}"));
    format!("{label}step {} {state}{}", plain(&step.name), more.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::Told;
    use crate::view::fixed::{TASK, complete, failed, look, order};

    #[test]
    fn each_change_of_state_is_told_once_and_by_its_time() {
        let mut told = Told::default();
        let first = [
            &format!("12:00:47.000  shop/order@1.0.0  {TASK}"),
            "12:00:50.000  step reserve_stock in_progress  3/9 shelves",
            "12:00:52.000  step validate complete  2.0s",
            "12:01:00.000  step charge waiting_for_retry  attempt 1, 1 of 3 failures  again in 2.0s: card declined by the bank",
        ];
        assert_eq!(told.news(&[order()], &look()), Vec::<String>::new());
        assert_eq!(told.news(&[order()], &look()), first);
        assert_eq!(told.news(&[order()], &look()), Vec::<String>::new());
        let second = [
            "12:00:57.000  step reserve_stock complete  7.0s",
            "12:00:57.000  step charge error  7.0s  attempt 3, 3 of 3 failures  card declined by the bank",
            "12:00:58.000  task error  2/4 steps  10.0s",
        ];
        assert_eq!(told.news(&[failed()], &look()), second);
    }

    #[test]
    fn a_task_that_had_ended_before_is_told_with_its_end() {
        let lines = Told::default().news(&[complete()], &look());
        assert_eq!(lines.last().unwrap(), "12:00:58.000  task complete  4/4 steps  10.0s");
    }

    #[test]
    fn what_turns_up_late_is_told_in_its_place() {
        let mut told = Told::default();
        let mut early = complete();
        early.summary.task_id = tasker_shared::id::TaskId::generate();
        let mut lines = told.news(&[order()], &look());
        lines.extend(told.news(&[order(), early], &look()));
        lines.extend(told.rest(&look()));
        assert!(lines.is_sorted_by_key(|line| line[..12].to_owned()), "{lines:#?}");
        assert!(lines.len() > 6, "{lines:#?}");
    }

    #[test]
    fn among_several_tasks_each_line_names_its_own() {
        let mut other = complete();
        other.summary.task_id = tasker_shared::id::TaskId::generate();
        other.summary.name = "refund".into();
        let mut told = Told::default();
        let mut lines = told.news(&[order(), other], &look());
        lines.extend(told.rest(&look()));
        assert!(
            lines.contains(&"12:00:58.000  shop/refund@1.0.0  task complete  4/4 steps  10.0s".to_owned()),
            "{lines:?}"
        );
        assert!(
            lines.contains(&"12:00:52.000  shop/order@1.0.0  step validate complete  2.0s".to_owned()),
            "{lines:?}"
        );
    }
}
