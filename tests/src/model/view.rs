//! What can be seen of the system, as lines of text: what the oracle shows and what the database shows must be the same.

use super::{
    operation::Queue,
    oracle::{About, Of, Oracle},
};
use std::fmt::Display;
use tasker_shared::step::StepState;

/// The same lines, from the database. A task is called by its initiator.
pub(super) const FROM_DATABASE: &str = "
with t as (select id, initiator as label, state, remaining_steps, active_steps from tasker.tasks),
s as (select s.*, t.label || '.' || s.name as label from tasker.steps s join t on t.id = s.task_id)
select label || ' ' || state || ' remaining=' || remaining_steps || ' active=' || active_steps from t
union all
select label || ' ' || state || ' attempt=' || attempt || ' failures=' || failures
       || case when state = 'pending' then ' waiting_on=' || waiting_on else '' end from s
union all
select t.label || ' history '
       || string_agg(coalesce(h.from_state, '') || '>' || h.to_state, ' ' order by h.id)
  from tasker.task_transitions h join t on t.id = h.task_id group by t.label
union all
select s.label || ' history ' || string_agg(h.from_state || '>' || h.to_state || '@' || h.attempt, ' ' order by h.id)
  from tasker.step_transitions h join s on s.id = h.step_id group by s.label
union all
select 'worker_model ' || coalesce(s.label, '?') || ' read=' || q.read_ct
       || case when q.vt <= clock_timestamp() then ' visible' else ' leased' end
  from pgmq.q_worker_model q left join s on s.id::text = q.message->>'step_id'
union all
select 'step_results ' || coalesce(s.label || '@' || (q.message->>'attempt'), '?')
  from pgmq.q_step_results q left join s on s.id::text = q.message->>'step_id'
union all
select 'task_requests ' || coalesce(t.label, '?')
  from pgmq.q_task_requests q left join t on t.id::text = q.message->>'task_id'
union all
select 'timer ' || m.kind || ' ' || coalesce(s.label, t.label)
       || case when m.due_at = 'infinity' then ' held' when m.due_at <= clock_timestamp() then ' due' else ' later' end
  from tasker.timers m join t on t.id = m.task_id left join s on s.id = m.subject
union all
select 'dead ' || reason || ' ' || queue from tasker.dead_letters";

impl Oracle {
    /// Everything, in order.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (n, task) in self.tasks.iter().enumerate() {
            lines.push(format!("t{n} {} remaining={} active={}", task.state, self.remaining(n), self.active(n)));
            let moves = task.history.iter().map(|(from, to)| format!("{}>{to}", shown(*from)));
            lines.push(format!("t{n} history {}", moves.collect::<Vec<_>>().join(" ")));
            for (m, step) in task.steps.iter().enumerate() {
                let mut line = format!("t{n}.s{m} {} attempt={} failures={}", step.state, step.attempt, step.failures);
                if step.state == StepState::Pending {
                    line.push_str(&format!(" waiting_on={}", self.waiting_on(n, m)));
                }
                lines.push(line);
                let moves = step.history.iter().map(|(from, to, attempt)| format!("{from}>{to}@{attempt}"));
                let moves = moves.collect::<Vec<_>>().join(" ");
                if !moves.is_empty() {
                    lines.push(format!("t{n}.s{m} history {moves}"));
                }
            }
        }
        for message in &self.messages {
            let mut line = format!("{} {}", message.queue.name(), message.about.label());
            if message.queue == Queue::Steps {
                let visible = if message.visible { "visible" } else { "leased" };
                line.push_str(&format!(" read={} {visible}", message.read));
            }
            lines.push(line);
        }
        for timer in &self.timers {
            let when = match timer {
                timer if timer.held => "held",
                timer if timer.due => "due",
                _ => "later",
            };
            let of = match timer.of {
                Of::Start => format!("start t{}", timer.task),
                Of::Retry(step) => format!("retry t{}.s{step}", timer.task),
                Of::Deadline => format!("deadline t{}", timer.task),
            };
            lines.push(format!("timer {of} {when}"));
        }
        lines.extend(self.dead.iter().map(|dead| format!("dead {dead}")));
        lines.sort();
        lines
    }
}

impl About {
    fn label(self) -> String {
        match self {
            Self::Step { task, step } => format!("t{task}.s{step}"),
            Self::Outcome { task, step, attempt } => format!("t{task}.s{step}@{attempt}"),
            Self::Task(task) => format!("t{task}"),
            Self::Nothing => "?".to_owned(),
        }
    }
}

fn shown(state: Option<impl Display>) -> String {
    state.map(|state| state.to_string()).unwrap_or_default()
}

/// What only one of both shows: `- ` the oracle, `+ ` the database. Both are in order.
pub(super) fn difference(oracle: &[String], database: &[String]) -> Vec<String> {
    let (mut left, mut right) = (oracle.iter().peekable(), database.iter().peekable());
    let mut lines = Vec::new();
    loop {
        match (left.peek(), right.peek()) {
            (None, None) => return lines,
            (Some(l), Some(r)) if l == r => {
                left.next();
                right.next();
            }
            (Some(l), r) if r.is_none_or(|r| l < r) => {
                lines.push(format!("- {l}"));
                left.next();
            }
            (_, r) => {
                lines.extend(r.map(|r| format!("+ {r}")));
                right.next();
            }
        }
    }
}
