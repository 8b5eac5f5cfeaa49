//! What must hold at every moment, asked of the database: each violation is a line of text.

use anyhow::Result;
use sqlx::PgPool;

/// Counters, histories and outcomes, of everything that is stored.
const VIOLATIONS: &str = "
with counted as (
    select t.id, count(s.id) filter (where s.state not in ('complete', 'skipped', 'resolved_manually')) as remaining,
           count(s.id) filter (where s.state in ('enqueued', 'in_progress', 'reported', 'waiting_for_retry')
                                  or s.state = 'pending' and s.waiting_on = 0) as active
      from tasker.tasks t left join tasker.steps s on s.task_id = t.id group by t.id),
waiting as (
    select c.id, count(p.id) filter (where p.state not in ('complete', 'skipped', 'resolved_manually')) as parents
      from tasker.steps c left join tasker.step_edges e on e.child_id = c.id left join tasker.steps p on p.id = e.parent_id
     where c.state = 'pending' group by c.id),
step_moves as (
    select h.*, lag(to_state) over (partition by step_id order by id) as before,
           lead(id) over (partition by step_id order by id) is null as is_last from tasker.step_transitions h),
task_moves as (
    select h.*, lag(to_state) over (partition by task_id order by id) as before,
           lead(id) over (partition by task_id order by id) is null as is_last from tasker.task_transitions h)
select format('task %s counts %s remaining and %s active steps, and has %s and %s',
              t.id, t.remaining_steps, t.active_steps, c.remaining, c.active)
  from tasker.tasks t join counted c on c.id = t.id
 where (t.remaining_steps, t.active_steps) <> (c.remaining, c.active)
union all
select format('step %s waits for %s parents, and %s are not done', s.id, s.waiting_on, w.parents)
  from tasker.steps s join waiting w on w.id = s.id where s.waiting_on <> w.parents
union all
select format('step %s went from %s, and was %s', step_id, from_state, coalesce(before, 'pending'))
  from step_moves where from_state <> coalesce(before, 'pending')
union all
select format('task %s went from %s, and was %s', task_id, from_state, before)
  from task_moves where from_state is distinct from before
union all
select format('step %s is %s, and its history ends with %s', s.id, s.state, m.to_state)
  from tasker.steps s left join step_moves m on m.step_id = s.id and m.is_last
 where s.state <> coalesce(m.to_state, 'pending')
union all
select format('task %s is %s, and its history ends with %s', t.id, t.state, m.to_state)
  from tasker.tasks t left join task_moves m on m.task_id = t.id and m.is_last where t.state is distinct from m.to_state
union all
select format('attempt %s of step %s was %s %s times', attempt, step_id, to_state, count(*))
  from tasker.step_transitions where to_state in ('in_progress', 'reported', 'complete', 'error', 'waiting_for_retry')
 group by step_id, attempt, to_state having count(*) > 1
union all
select format('step %s was completed %s times', step_id, count(*))
  from tasker.step_transitions where to_state = 'complete' group by step_id having count(*) > 1
union all
select format('task %s has ended, and step %s is %s', t.id, s.id, s.state)
  from tasker.tasks t join tasker.steps s on s.task_id = t.id
 where t.state in ('complete', 'cancelled') and s.finished_at is null
union all
select format('task %s has ended, and a %s timer runs', t.id, m.kind)
  from tasker.tasks t join tasker.timers m on m.task_id = t.id where t.finished_at is not null
union all
select format('task %s is %s, and nothing of it is active', t.id, t.state)
  from tasker.tasks t join counted c on c.id = t.id where t.state in ('in_progress', 'paused') and c.active = 0";

/// Everything that must not be.
///
/// # Errors
/// PostgreSQL refuses.
pub async fn violations(pool: &PgPool) -> Result<Vec<String>> {
    Ok(sqlx::query_scalar(VIOLATIONS).fetch_all(pool).await?)
}
