//! What the database holds after a run.

use anyhow::Result;
use serde_json::Value;
use sqlx::{PgConnection, types::Uuid};
use std::collections::HashMap;

/// A task.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Task {
    /// Its id.
    pub id: Uuid,
    /// Its workflow.
    pub name: String,
    /// Where it stands.
    pub state: String,
    /// The number of the submission.
    pub number: i64,
    /// How urgent it is.
    pub priority: i16,
    /// When it was accepted, in seconds since 1970.
    pub created_at: f64,
    /// When it ended.
    pub finished_at: Option<f64>,
    /// The counters.
    pub remaining_steps: i32,
    /// See above.
    pub active_steps: i32,
}

/// A step.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Step {
    /// Its id.
    pub id: Uuid,
    /// Its task.
    pub task_id: Uuid,
    /// Its name.
    pub name: String,
    /// Its place.
    pub position: i32,
    /// Where it stands.
    pub state: String,
    /// Parents that are not done.
    pub waiting_on: i32,
    /// Its fence.
    pub attempt: i32,
    /// What it returned.
    pub result: Option<Value>,
}

/// One line of a history.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Line {
    /// The order.
    pub id: i64,
    /// The task.
    pub task_id: Uuid,
    /// The step; none for the task's own.
    pub step_id: Option<Uuid>,
    /// From where.
    pub from_state: Option<String>,
    /// To where.
    pub to_state: String,
    /// The attempt; 0 for the task's own.
    pub attempt: i32,
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: Option<String>,
    /// When, in seconds since 1970.
    pub at: f64,
}

/// A dead letter.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Letter {
    /// Why it was parked.
    pub reason: String,
    /// What went wrong.
    pub detail: String,
    /// The queue of its message.
    pub queue: String,
    /// The message as it was.
    pub message: Value,
    /// The step, where it is about one.
    pub step_id: Option<Uuid>,
    /// How it was dealt with.
    pub resolution: Option<String>,
    /// Who did.
    pub resolved_by: Option<String>,
}

/// All of it.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Tasks.
    pub tasks: Vec<Task>,
    /// Steps.
    pub steps: Vec<Step>,
    /// Parent and child.
    pub edges: Vec<(Uuid, Uuid)>,
    /// Both histories, in order.
    pub history: Vec<Line>,
    /// Messages by queue, where there are any.
    pub messages: HashMap<String, i64>,
    /// Timers that are left.
    pub timers: i64,
    /// Permits that are left, and steps that wait for one.
    pub permits: i64,
    /// Dead letters.
    pub dead_letters: Vec<Letter>,
    /// Rows of the caller's own: number and task.
    pub orders: HashMap<i64, Uuid>,
    /// Workers by name.
    pub workers: HashMap<String, Uuid>,
}

impl Facts {
    /// Reads everything.
    ///
    /// # Errors
    /// The database refuses.
    pub async fn read(connection: &mut PgConnection) -> Result<Self> {
        let mut facts = Self {
            tasks: sqlx::query_as(
                "select id, name, state, coalesce((input->>'number')::bigint, -1) as number, priority,
                        extract(epoch from created_at)::double precision as created_at,
                        extract(epoch from finished_at)::double precision as finished_at, remaining_steps, active_steps
                   from tasker.tasks order by id",
            )
            .fetch_all(&mut *connection)
            .await?,
            steps: sqlx::query_as(
                "select id, task_id, name, position, state, waiting_on, attempt, result from tasker.steps
                  order by task_id, position",
            )
            .fetch_all(&mut *connection)
            .await?,
            edges: sqlx::query_as("select parent_id, child_id from tasker.step_edges")
                .fetch_all(&mut *connection)
                .await?,
            history: sqlx::query_as(
                "select id, task_id, null::uuid as step_id, from_state, to_state, 0 as attempt, actor, reason,
                        extract(epoch from at)::double precision as at from tasker.task_transitions
                 union all
                 select id, task_id, step_id, from_state, to_state, attempt, actor, reason,
                        extract(epoch from at)::double precision from tasker.step_transitions
                 order by id",
            )
            .fetch_all(&mut *connection)
            .await?,
            timers: sqlx::query_scalar("select count(*) from tasker.timers").fetch_one(&mut *connection).await?,
            permits: sqlx::query_scalar(
                "select (select count(*) from tasker.permits) + (select count(*) from tasker.permit_waits)",
            )
            .fetch_one(&mut *connection)
            .await?,
            dead_letters: sqlx::query_as(
                "select reason, detail, queue, message, step_id, resolution, resolved_by from tasker.dead_letters",
            )
            .fetch_all(&mut *connection)
            .await?,
            ..Self::default()
        };
        let queues: Vec<(String,)> =
            sqlx::query_as("select queue_name from pgmq.list_queues()").fetch_all(&mut *connection).await?;
        for (queue,) in queues {
            let sql = format!("select count(*) from pgmq.q_{queue}");
            let messages: i64 = sqlx::query_scalar(&sql).fetch_one(&mut *connection).await?;
            if messages > 0 {
                facts.messages.insert(queue, messages);
            }
        }
        let orders: Vec<(i64, Uuid)> =
            sqlx::query_as("select number, task_id from chaos.orders").fetch_all(&mut *connection).await?;
        facts.orders = orders.into_iter().collect();
        let workers: Vec<(String, Uuid)> =
            sqlx::query_as("select name, id from tasker.workers").fetch_all(connection).await?;
        facts.workers = workers.into_iter().collect();
        Ok(facts)
    }
}
