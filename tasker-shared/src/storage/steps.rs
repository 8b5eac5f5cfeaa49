//! Tables `steps` and `step_edges`: making a task's steps, and enqueueing what is ready.

use super::{Error, Session, reports::Ready};
use crate::{
    id::{StepId, TaskId},
    name::Name,
    step::{Edge, StepEvent},
};
use std::time::Duration;

const ENQUEUE: Edge = Edge::of(crate::step::StepState::Pending, StepEvent::Enqueue);

/// The steps of one task, to be stored.
#[derive(Debug, Clone)]
pub struct NewSteps {
    /// The task; it is pending and locked.
    pub task_id: TaskId,
    /// The steps, in the order of the template.
    pub steps: Vec<NewStep>,
    /// (parent, child), as places in `steps`.
    pub edges: Vec<(usize, usize)>,
    /// The longest time to the end of the task.
    pub max_duration: Option<Duration>,
}

/// A step to be stored.
#[derive(Debug, Clone)]
pub struct NewStep {
    /// Its id.
    pub id: StepId,
    /// Its name.
    pub name: Name,
    /// How many parents it has; without any it is enqueued at once.
    pub waiting_on: i32,
    /// How often it may fail.
    pub max_attempts: i32,
    /// The longest run of its handler, in milliseconds.
    pub timeout_ms: i64,
}

/// Makes the steps of pending tasks and brings these to `in_progress`; answers with the tasks that were pending.
///
/// # Errors
/// [`Error::Statement`].
pub async fn initialize(session: &mut Session, tasks: &[NewSteps], environment: &str) -> Result<Vec<TaskId>, Error> {
    let sql = format!(
        "-- initialize_tasks
         with begun as (
             update tasker.tasks t
                set state = 'in_progress', environment = $4, remaining_steps = a.steps, active_steps = a.roots,
                    started_at = clock_timestamp()
               from unnest($1::uuid[], $2::integer[], $3::integer[]) a (id, steps, roots)
              where t.id = a.id and t.state = 'pending'
             returning t.id, greatest(t.created_at, t.run_at) as due_at),
         made as (
             insert into tasker.steps (id, task_id, name, position, state, waiting_on, max_attempts, timeout_ms, enqueued_at)
             select s.id, s.task_id, s.name, s.position, case s.waiting_on when 0 then '{enqueued}' else '{pending}' end,
                    s.waiting_on, s.max_attempts, s.timeout_ms, case s.waiting_on when 0 then clock_timestamp() end
               from unnest($5::uuid[], $6::uuid[], $7::text[], $8::integer[], $9::integer[], $10::integer[], $11::bigint[])
                    s (id, task_id, name, position, waiting_on, max_attempts, timeout_ms)
               join begun b on b.id = s.task_id
             returning id, task_id, state),
         edges as (
             insert into tasker.step_edges (parent_id, child_id, task_id)
             select e.parent_id, e.child_id, e.task_id
               from unnest($12::uuid[], $13::uuid[], $14::uuid[]) e (parent_id, child_id, task_id)
               join begun b on b.id = e.task_id),
         deadline as (
             insert into tasker.timers (kind, subject, task_id, due_at)
             select 'deadline', b.id, b.id, b.due_at + make_interval(secs => d.seconds)
               from unnest($15::uuid[], $16::double precision[]) d (task_id, seconds) join begun b on b.id = d.task_id),
         task_history as (
             insert into tasker.task_transitions (task_id, from_state, to_state, actor)
             select id, 'pending', 'in_progress', 'orchestration' from begun),
         step_history as (
             insert into tasker.step_transitions (task_id, step_id, from_state, to_state, attempt, actor)
             select task_id, id, '{pending}', '{enqueued}', 0, 'orchestration' from made where state = '{enqueued}')
         select id from begun",
        pending = ENQUEUE.from,
        enqueued = ENQUEUE.to,
    );
    let steps = || tasks.iter().flat_map(|t| t.steps.iter().enumerate().map(move |(i, s)| (t.task_id, i, s)));
    let edges = || tasks.iter().flat_map(|t| t.edges.iter().map(move |(p, c)| (t, *p, *c)));
    let deadlines = || tasks.iter().filter_map(|t| t.max_duration.map(|d| (t.task_id, d.as_secs_f64())));
    let query = sqlx::query_as(&sql)
        .bind(tasks.iter().map(|t| t.task_id).collect::<Vec<_>>())
        .bind(tasks.iter().map(|t| count(t.steps.len())).collect::<Vec<_>>())
        .bind(tasks.iter().map(|t| count(t.steps.iter().filter(|s| s.waiting_on == 0).count())).collect::<Vec<_>>())
        .bind(environment)
        .bind(steps().map(|(_, _, s)| s.id).collect::<Vec<_>>())
        .bind(steps().map(|(task, _, _)| task).collect::<Vec<_>>())
        .bind(steps().map(|(_, _, s)| s.name.as_str()).collect::<Vec<_>>())
        .bind(steps().map(|(_, position, _)| count(position)).collect::<Vec<_>>())
        .bind(steps().map(|(_, _, s)| s.waiting_on).collect::<Vec<_>>())
        .bind(steps().map(|(_, _, s)| s.max_attempts).collect::<Vec<_>>())
        .bind(steps().map(|(_, _, s)| s.timeout_ms).collect::<Vec<_>>())
        .bind(edges().map(|(t, parent, _)| t.steps[parent].id).collect::<Vec<_>>())
        .bind(edges().map(|(t, _, child)| t.steps[child].id).collect::<Vec<_>>())
        .bind(edges().map(|(t, _, _)| t.task_id).collect::<Vec<_>>())
        .bind(deadlines().map(|d| d.0).collect::<Vec<_>>())
        .bind(deadlines().map(|d| d.1).collect::<Vec<_>>());
    let rows: Vec<(TaskId,)> = session.fetch("initialize_tasks", query).await?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

/// Enqueues what is ready in running tasks: steps that are pending and wait for no parent.
///
/// # Errors
/// [`Error::Statement`].
pub async fn enqueue_ready(session: &mut Session, tasks: &[TaskId], actor: &str) -> Result<Vec<Ready>, Error> {
    let sql = format!(
        "-- enqueue_ready_steps
         with ready as (
             update tasker.steps s set state = '{to}', enqueued_at = clock_timestamp()
               from tasker.tasks t
              where t.id = s.task_id and t.state = 'in_progress' and s.task_id = any ($1)
                and s.state = '{from}' and s.waiting_on = 0
             returning s.id as step_id, s.task_id, s.name, s.attempt),
         history as (
             insert into tasker.step_transitions (task_id, step_id, from_state, to_state, attempt, actor)
             select task_id, step_id, '{from}', '{to}', attempt, $2 from ready)
         select step_id, task_id, name, attempt from ready",
        from = ENQUEUE.from,
        to = ENQUEUE.to,
    );
    session.fetch("enqueue_ready_steps", sqlx::query_as(&sql).bind(tasks).bind(actor)).await
}

fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}
