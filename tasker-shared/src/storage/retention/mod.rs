//! What is removed because of its age: finished tasks with all that belongs to them, and rows of tables that only grow.
//!
//! Every function is one short statement on a bounded number of rows. Rows that somebody else holds are left for
//! another time, so that nobody waits for retention.

mod aged;
mod archive;

pub use aged::{Aged, archives, audit, prune};
pub use archive::{Archived, ArchivedRow, archive, list, show};

use super::{Error, Session};
use crate::id::TaskId;
use chrono::{DateTime, Utc};
use std::time::Duration;
use uuid::Uuid;

/// How many finished tasks one statement looks at.
const LOOK: i64 = 500;

/// The tables whose rows belong to a task, each after what points to it, and the column that names the task.
const OF_TASKS: [(&str, &str, &str); 6] = [
    ("delete_old_dead_letters", "tasker.dead_letters", "task_id"),
    ("delete_old_step_transitions", "tasker.step_transitions", "task_id"),
    ("delete_old_task_transitions", "tasker.task_transitions", "task_id"),
    ("delete_old_step_edges", "tasker.step_edges", "task_id"),
    ("delete_old_steps", "tasker.steps", "task_id"),
    ("delete_old_tasks", "tasker.tasks", "id"),
];

/// Which tasks are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ended {
    /// Those that are complete.
    Complete,
    /// Those that ended otherwise.
    Otherwise,
}

/// Which tasks become how old. No task is meant by two rules, and whatever a rule means is old enough at the same age: who walks
/// over them by their end passes by none that is too young.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rule {
    /// How they ended.
    pub ended: Ended,
    /// The age that their templates say; `None` for those whose template says none.
    pub said: Option<Duration>,
    /// Whether those with an identity are meant, or those without; `None` for both.
    pub with_identity: Option<bool>,
    /// How old they must be, since their end.
    pub age: Duration,
}

impl Rule {
    /// The rules for tasks that are kept for `age`, and those with an identity for at least `identity`; `None` is for ever. With
    /// `of_template` it is the age that their templates say.
    pub fn keeping(ended: Ended, age: Duration, of_template: bool, identity: Option<Duration>) -> Vec<Self> {
        let both = Self { ended, said: of_template.then_some(age), with_identity: None, age };
        let without = Self { with_identity: Some(false), ..both };
        match identity {
            Some(identity) if identity <= age => vec![both],
            Some(identity) => vec![without, Self { with_identity: Some(true), age: identity, ..both }],
            None => vec![without],
        }
    }

    /// What a task's template must say, in milliseconds.
    fn said_ms(&self) -> Option<i64> {
        self.said.map(|age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX))
    }
}

/// The ages that templates say, each once, for those that ended so.
///
/// # Errors
/// [`Error::Statement`].
pub async fn of_templates(session: &mut Session) -> Result<Vec<(Ended, Duration)>, Error> {
    let query = sqlx::query_as(
        "-- list_ages_of_templates
         select true, complete_after_ms from tasker.templates where complete_after_ms >= 0
          union
         select false, failed_after_ms from tasker.templates where failed_after_ms >= 0
          order by 1, 2",
    );
    let rows: Vec<(bool, i64)> = session.fetch("list_ages_of_templates", query).await?;
    let ended = |complete| if complete { Ended::Complete } else { Ended::Otherwise };
    Ok(rows.into_iter().map(|(complete, ms)| (ended(complete), Duration::from_millis(ms.unsigned_abs()))).collect())
}

/// How far a walk over finished tasks has come: the oldest first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    finished_at: DateTime<Utc>,
    id: TaskId,
}

/// What a look at finished tasks found.
#[derive(Debug, Default)]
pub struct Found {
    /// Tasks that may go, locked.
    pub tasks: Vec<TaskId>,
    /// How many steps they have.
    pub steps: i64,
    /// How far beyond its age the oldest of them is.
    pub overdue: Duration,
    /// How far the walk has come; `None` where it found nothing to look at.
    pub place: Option<Place>,
    /// Whether there is more to look at.
    pub more: bool,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: TaskId,
    finished_at: DateTime<Utc>,
    overdue: f64,
    steps: Option<i64>,
}

/// Looks at the finished tasks after `place`, and locks those that a rule means and that are old enough, with up to `most_steps` steps together or
/// one larger task.
///
/// Tasks with a dead letter that nobody has resolved stay, as do those that somebody holds or has reopened.
///
/// # Errors
/// [`Error::Statement`].
pub async fn find(session: &mut Session, rule: Rule, place: Option<Place>, most_steps: i64) -> Result<Found, Error> {
    let query = sqlx::query_as(
        "-- find_old_tasks
         with seen as materialized (
             select t.id, t.template_id, t.finished_at, t.state, t.identity_hash from tasker.tasks t
              where t.finished_at is not null and t.finished_at < statement_timestamp() - make_interval(secs => $1)
                and (t.finished_at, t.id) > ($2, $3)
              order by t.finished_at, t.id limit $4),
         old as materialized (
             select s.id from seen s join tasker.templates p on p.id = s.template_id
              where (s.state = 'complete') = $5
                and case when $5 then p.complete_after_ms else p.failed_after_ms end is not distinct from $7
                and ($6::boolean is null or (s.identity_hash is not null) = $6)
                and not exists (select from tasker.dead_letters d where d.task_id = s.id and d.resolved_at is null)),
         locked as materialized (
             select t.id from tasker.tasks t
              where t.id in (select id from old) and t.finished_at is not null
              order by t.id for update skip locked)
         select s.id, s.finished_at,
                extract(epoch from statement_timestamp() - s.finished_at)::double precision - $1 as overdue,
                case when l.id is not null then (select count(*) from tasker.steps p where p.task_id = s.id) end as steps
           from seen s left join locked l on l.id = s.id
          order by s.finished_at, s.id",
    )
    .bind(rule.age.as_secs_f64())
    .bind(place.map_or(DateTime::UNIX_EPOCH, |place| place.finished_at))
    .bind(place.map_or(TaskId(Uuid::nil()), |place| place.id))
    .bind(LOOK)
    .bind(rule.ended == Ended::Complete)
    .bind(rule.with_identity)
    .bind(rule.said_ms());
    let rows: Vec<Row> = session.fetch("find_old_tasks", query).await?;
    Ok(chosen(&rows, most_steps))
}

/// As many of the locked tasks as fit.
fn chosen(rows: &[Row], most_steps: i64) -> Found {
    let full = i64::try_from(rows.len()).is_ok_and(|rows| rows == LOOK);
    let mut found = Found { more: full, ..Found::default() };
    for row in rows {
        if let Some(steps) = row.steps {
            if !found.tasks.is_empty() && found.steps + steps > most_steps {
                found.more = true;
                break;
            }
            found.overdue = found.overdue.max(Duration::from_secs_f64(row.overdue.max(0.0)));
            found.tasks.push(row.id);
            found.steps += steps;
        }
        found.place = Some(Place { finished_at: row.finished_at, id: row.id });
    }
    found
}

/// How many of the finished tasks that a rule means are old enough, and how many steps they have.
///
/// # Errors
/// [`Error::Statement`].
pub async fn count(session: &mut Session, rule: Rule) -> Result<(i64, i64), Error> {
    let query = sqlx::query_as(
        "-- count_old_tasks
         select count(*), coalesce(sum((select count(*) from tasker.steps p where p.task_id = t.id)), 0)::bigint
           from tasker.tasks t join tasker.templates o on o.id = t.template_id
          where t.finished_at < statement_timestamp() - make_interval(secs => $1) and (t.state = 'complete') = $2
            and case when $2 then o.complete_after_ms else o.failed_after_ms end is not distinct from $4
            and ($3::boolean is null or (t.identity_hash is not null) = $3)
            and not exists (select from tasker.dead_letters d where d.task_id = t.id and d.resolved_at is null)",
    )
    .bind(rule.age.as_secs_f64())
    .bind(rule.ended == Ended::Complete)
    .bind(rule.with_identity)
    .bind(rule.said_ms());
    Ok(session.fetch_optional("count_old_tasks", query).await?.unwrap_or_default())
}

/// Deletes tasks that [`find`] has locked in this transaction, with all that belongs to them.
///
/// # Errors
/// [`Error::Statement`].
pub async fn delete(session: &mut Session, tasks: &[TaskId]) -> Result<(), Error> {
    for (name, table, column) in OF_TASKS {
        let sql = format!("-- {name}\ndelete from {table} where {column} = any ($1)");
        session.execute(name, sqlx::query(&sql).bind(tasks)).await?;
    }
    Ok(())
}

/// How many tasks the planner believes there are.
///
/// # Errors
/// [`Error::Statement`].
pub async fn estimate(session: &mut Session) -> Result<i64, Error> {
    let query = sqlx::query_as(
        "-- estimate_tasks\nselect greatest(reltuples, 0)::bigint from pg_class where oid = 'tasker.tasks'::regclass",
    );
    let row: Option<(i64,)> = session.fetch_optional("estimate_tasks", query).await?;
    Ok(row.map_or(0, |(tasks,)| tasks))
}

/// Tells the planner anew how much there is, after much was deleted. Where this role does not own a table, PostgreSQL warns and
/// leaves it to autovacuum.
///
/// # Errors
/// [`Error::Statement`].
pub async fn analyze(session: &mut Session) -> Result<(), Error> {
    for (_, table, _) in OF_TASKS {
        let sql = format!("-- analyze_tables\nanalyze {table}");
        session.execute("analyze_tables", sqlx::query(&sql)).await?;
    }
    Ok(())
}
