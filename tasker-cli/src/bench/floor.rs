//! The floor: the queue sends, reads, deletes and row writes of a step, in the same batches and transactions, and
//! nothing else. No decision, no graph, no handler, no fence.

use super::load::broken;
use crate::{error::Result, local::Local};
use sqlx::PgPool;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Steps of one round.
const BATCH: i32 = 100;

/// Rounds at once: as many as the system has stations that write.
const LANES: usize = 4;

const SETUP: &[&str] = &[
    "drop schema if exists tasker_floor cascade",
    "create schema tasker_floor",
    "create table tasker_floor.tasks (like tasker.tasks including defaults including constraints including indexes including storage)",
    "create table tasker_floor.steps (like tasker.steps including defaults including constraints including indexes including storage)",
    "alter table tasker_floor.steps set (fillfactor = 50)",
    "alter table tasker_floor.tasks set (fillfactor = 70)",
    "create table tasker_floor.history (like tasker.step_transitions including defaults including constraints including indexes)",
    "select pgmq.create('floor_steps')",
    "select pgmq.create('floor_results')",
];

const TEARDOWN: &[&str] = &[
    "drop schema tasker_floor cascade",
    "select pgmq.drop_queue('floor_steps')",
    "select pgmq.drop_queue('floor_results')",
];

/// Measures for `duration`; answers with steps per second.
pub(super) async fn measure(local: &Local, duration: Duration, steps: u16) -> Result<f64> {
    let pool = local.database.pool();
    each(pool, SETUP).await?;
    let (done, began) = (Arc::new(AtomicU64::new(0)), Instant::now());
    let lanes =
        (0..LANES).map(|_| tokio::spawn(lane(pool.clone(), began + duration, i32::from(steps), Arc::clone(&done))));
    for lane in lanes.collect::<Vec<_>>() {
        lane.await.map_err(broken)?.map_err(broken)?;
    }
    let rate = done.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
    each(pool, TEARDOWN).await?;
    Ok(rate)
}

async fn each(pool: &PgPool, statements: &[&str]) -> Result<()> {
    for statement in statements {
        sqlx::query(statement).execute(pool).await.map_err(broken)?;
    }
    Ok(())
}

async fn lane(pool: PgPool, until: Instant, steps: i32, done: Arc<AtomicU64>) -> Result<(), sqlx::Error> {
    let mut connection = pool.acquire().await?;
    while Instant::now() < until {
        let tasks = (BATCH / steps).max(1);
        for statement in [MAKE, CLAIM, REPORT, PROCESS] {
            sqlx::query(statement).bind(BATCH).bind(tasks).execute(&mut *connection).await?;
        }
        done.fetch_add(u64::from(BATCH.unsigned_abs()), Ordering::Relaxed);
    }
    Ok(())
}

/// Tasks and steps are made and enqueued.
const MAKE: &str = "
    with task as (
        insert into tasker_floor.tasks (id, template_id, namespace, name, version, state, input, correlation_id, started_at)
        select gen_random_uuid(), gen_random_uuid(), 'bench', 'linear', '1', 'in_progress', '{}', gen_random_uuid(), clock_timestamp()
          from generate_series(1, $2) returning id),
    first as (select id from task limit 1),
    step as (
        insert into tasker_floor.steps (id, task_id, name, position, state, waiting_on, max_attempts, timeout_ms, enqueued_at)
        select gen_random_uuid(), first.id, 'step_' || n, n, 'enqueued', 0, 3, 300000, clock_timestamp()
          from first, generate_series(1, $1) n returning id, task_id),
    history as (
        insert into tasker_floor.history (task_id, step_id, from_state, to_state, attempt, actor)
        select task_id, id, 'pending', 'enqueued', 0, 'orchestration' from step)
    insert into pgmq.q_floor_steps (vt, message, headers)
    select clock_timestamp(), jsonb_build_object('task_id', task_id, 'step_id', id), jsonb_build_object('correlation_id', task_id) from step";

/// Messages are read and hidden; steps are written.
const CLAIM: &str = "
    with visible as materialized (
        select msg_id, (message->>'step_id')::uuid as step_id from pgmq.q_floor_steps
         where vt <= clock_timestamp() order by vt limit $1 + 0 * $2 for update skip locked),
    leased as (
        update pgmq.q_floor_steps q set vt = clock_timestamp() + interval '30 seconds', read_ct = q.read_ct + 1, last_read_at = clock_timestamp()
          from visible v where q.msg_id = v.msg_id),
    claimed as (
        update tasker_floor.steps s set state = 'in_progress', attempt = attempt + 1, started_at = clock_timestamp()
          from visible v where s.id = v.step_id returning s.id, s.task_id)
    insert into tasker_floor.history (task_id, step_id, from_state, to_state, attempt, actor)
    select task_id, id, 'enqueued', 'in_progress', 1, 'worker' from claimed";

/// Steps are written, their messages deleted, results sent.
const REPORT: &str = "
    with held as materialized (
        select msg_id, (message->>'step_id')::uuid as step_id from pgmq.q_floor_steps
         where vt > clock_timestamp() limit $1 + 0 * $2 for update skip locked),
    reported as (
        update tasker_floor.steps s set state = 'reported', outcome = 'success', result = '{}', reported_at = clock_timestamp()
          from held h where s.id = h.step_id returning s.id, s.task_id),
    history as (
        insert into tasker_floor.history (task_id, step_id, from_state, to_state, attempt, actor)
        select task_id, id, 'in_progress', 'reported', 1, 'worker' from reported),
    gone as (delete from pgmq.q_floor_steps q using held h where q.msg_id = h.msg_id)
    insert into pgmq.q_floor_results (vt, message)
    select clock_timestamp(), jsonb_build_object('task_id', task_id, 'step_id', id, 'attempt', 1) from reported";

/// Results are taken; steps and their tasks are written.
const PROCESS: &str = "
    with popped as (
        delete from pgmq.q_floor_results q where q.msg_id = any (array (
            select msg_id from pgmq.q_floor_results where vt <= clock_timestamp() order by vt limit $1 + 0 * $2 for update skip locked))
        returning (message->>'step_id')::uuid as step_id),
    applied as (
        update tasker_floor.steps s set state = 'complete', finished_at = clock_timestamp()
          from popped p where s.id = p.step_id returning s.id, s.task_id),
    locked as materialized (
        select t.id from tasker_floor.tasks t where t.id in (select task_id from applied) order by t.id for no key update),
    task as (
        update tasker_floor.tasks t set active_steps = 0 from locked l where t.id = l.id)
    insert into tasker_floor.history (task_id, step_id, from_state, to_state, attempt, actor)
    select task_id, id, 'reported', 'complete', 1, 'orchestration' from applied";
