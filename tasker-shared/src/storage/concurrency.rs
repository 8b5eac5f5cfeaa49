//! Tables `permits`, `permit_waits` and `limits`: how many steps run at once.
//!
//! A permit is a row that a claim writes together with the step's new state, and that counts only while the step is
//! `in_progress` with the same attempt. Two claims cannot write the same row, so no lock is held and no counter can be
//! wrong. A step that finds no permit is set aside: its message is hidden, so that claims do not read it again, and a
//! permit that becomes free brings back the one that waits longest. Who frees a permit, and who sets steps aside, looks
//! for both afterwards in a statement of its own; so one of the two sees the other.

use super::{Error, Session};
use crate::{
    api::LimitSummary,
    id::StepId,
    name::Name,
    queue::{
        QueueName,
        traffic::{Door, Traffic},
    },
    step::{Edge, StepEvent, StepState},
};
use chrono::{DateTime, Utc};

/// How long a message of a step that is set aside is hidden at most: if all else fails it is looked at again then.
const HIDDEN: &str = "1 hour";

/// As a limit: none.
const LARGEST: i32 = i32::MAX;

const CLAIM: Edge = Edge::of(StepState::Enqueued, StepEvent::Claim);

/// The parts of a claim's statement that deal with limits.
pub(super) struct Parts {
    /// A condition on the messages that are read.
    pub(super) readable: &'static str,
    /// A further condition under which a message is a copy of another.
    pub(super) copies: String,
    /// Before the steps are claimed.
    pub(super) before: String,
    /// A condition on the steps that are claimed.
    pub(super) allowed: &'static str,
    /// After they are claimed.
    pub(super) after: String,
    /// What is answered beside the claimed steps.
    pub(super) counts: &'static str,
    /// What is answered with each claimed step.
    pub(super) of_step: &'static str,
}

/// A claim where nothing is limited: it only asks whether that is so.
pub(super) fn unlimited() -> Parts {
    Parts {
        readable: "and not coalesce((select is_limited from tasker.namespaces where queue = $5), false)",
        copies: String::new(),
        before: String::new(),
        allowed: "",
        after: String::new(),
        counts: "coalesce((select is_limited from tasker.namespaces where queue = $5), false) as limited, \
                 0::bigint as blocked, '{}'::uuid[] as contended, '{}'::text[] as scopes, '{}'::text[] as scope_values",
        of_step: "false as has_permit",
    }
}

/// A claim that takes permits, and sets aside who finds none.
pub(super) fn limited(table: &str) -> Parts {
    let (enqueued, in_progress) = (CLAIM.from, CLAIM.to);
    // the step was set aside with another message, which comes back when a permit is free; nobody would bring back two
    let copies = format!(
        "or exists (select from tasker.permit_waits w join {table} o on o.msg_id = w.msg_id
                     where w.step_id = v.step_id and w.msg_id <> v.msg_id and o.vt > statement_timestamp())"
    );
    let before = format!(
        "home as materialized (select name from tasker.namespaces where queue = $5),
         candidate as materialized (
             select seen.step_id, seen.msg_id, seen.vt, s.attempt, s.name as step_name, t.name as task_name, t.template_id, t.input
               from seen join tasker.steps s on s.id = seen.step_id join tasker.tasks t on t.id = s.task_id
              where seen.step_state = '{enqueued}' and seen.task_state = 'in_progress' and not seen.is_copy),
         wanted as materialized (
             select c.step_id, c.msg_id, c.vt, c.attempt, l.scope,
                    case when octet_length(l.value) > 200 then encode(sha256(convert_to(l.value, 'UTF8')), 'hex') else l.value end as value,
                    l.max
               from candidate c
               left join tasker.template_steps d on d.template_id = c.template_id and d.name = c.step_name
              cross join lateral (
                    select o.scope, '' as value, o.max from tasker.limits o, home
                     where o.namespace = home.name and o.scope in ('namespace', 'handler:' || d.handler)
                    union all
                    select case when d.concurrency_key is null then 'step:' || c.task_name || '/' || c.step_name
                                else 'key:' || d.concurrency_key end,
                           case when d.concurrency_key like 'input.%'
                                then coalesce(c.input #>> string_to_array(substr(d.concurrency_key, 7), '.'), '') else '' end,
                           d.concurrency_limit
                     where d.concurrency_limit is not null) l),
         room as materialized (
             select w.scope, w.value, w.max, w.candidates,
                    (select count(*) from tasker.permits p, home
                      where p.namespace = home.name and p.scope = w.scope and p.value = w.value) as used
               from (select scope, value, max(max) as max, count(*) as candidates from wanted group by scope, value) w),
         free as materialized (
             select r.scope, r.value, n as slot, row_number() over (partition by r.scope, r.value order by n) as place
               from room r cross join home cross join generate_series(1, least(r.max, r.used + r.candidates)::integer) n
              where not exists (select from tasker.permits p
                                 where p.namespace = home.name and p.scope = r.scope and p.value = r.value and p.slot = n)),
         ranked as materialized (
             select w.*, row_number() over (partition by w.scope, w.value order by w.vt, w.msg_id) as place from wanted w),
         assigned as materialized (
             select w.step_id, w.msg_id, w.vt, w.attempt, w.scope, w.value, w.max, f.slot, w.place > w.max - r.used as is_blocked
               from ranked w join room r on r.scope = w.scope and r.value = w.value
               left join free f on f.scope = w.scope and f.value = w.value and f.place = w.place),
         blocked as materialized (
             select distinct on (step_id) step_id, msg_id, vt, scope, value, max from assigned where is_blocked order by step_id, scope),
         -- who loses a permit to another claim is neither claimed nor set aside, and comes again with the next turn
         taken as (
             insert into tasker.permits (namespace, scope, value, slot, step_id, attempt)
             select home.name, a.scope, a.value, a.slot, a.step_id, a.attempt + 1 from assigned a cross join home
              where not exists (select from blocked b where b.step_id = a.step_id)
              order by a.scope, a.value, a.slot
             on conflict do nothing returning step_id),
         granted as materialized (select step_id, count(*) as permits from taken group by step_id),"
    );
    let after = format!(
        "aside as (
             update {table} q set vt = clock_timestamp() + interval '{HIDDEN}' from blocked b where q.msg_id = b.msg_id),
         waits as (
             insert into tasker.permit_waits as w (step_id, namespace, scope, value, max, msg_id, vt)
             select b.step_id, home.name, b.scope, b.value, b.max, b.msg_id, b.vt from blocked b cross join home
             on conflict (step_id) do update set scope = excluded.scope, value = excluded.value, max = excluded.max,
                    msg_id = excluded.msg_id, vt = least(w.vt, excluded.vt)),
         waited as (delete from tasker.permit_waits w using claimed c where w.step_id = c.step_id),
         kept as (
             update tasker.permits p set attempt = c.attempt from claimed c
              where p.step_id = c.step_id and c.from_state = '{in_progress}' returning p.step_id),"
    );
    Parts {
        readable: "",
        copies,
        before,
        allowed: "and (s.state = 'in_progress'
                       or (select count(*) from wanted w where w.step_id = seen.step_id)
                          = coalesce((select g.permits from granted g where g.step_id = seen.step_id), 0))",
        after,
        counts: "true as limited, (select count(*) from blocked) as blocked,
                 array(select distinct w.step_id from wanted w
                        where not exists (select from claimed o where o.step_id = w.step_id)
                          and not exists (select from blocked b where b.step_id = w.step_id)) as contended,
                 array(select b.scope from blocked b order by b.step_id) as scopes,
                 array(select b.value from blocked b order by b.step_id) as scope_values",
        of_step: "c.step_id in (select step_id from granted union all select step_id from kept) as has_permit",
    }
}

/// A limit, and what of it is taken from the input.
pub type Scope = (String, String);

/// Gives back the permits of attempts that have ended; answers with what became free.
///
/// # Errors
/// [`Error::Statement`].
pub async fn free(session: &mut Session, attempts: &[(StepId, i32)]) -> Result<Vec<Scope>, Error> {
    let query = sqlx::query_as(
        "-- free_permits
         with mine as materialized (
             select p.namespace, p.scope, p.value, p.slot
               from tasker.permits p join unnest($1::uuid[], $2::integer[]) a (step_id, attempt)
                 on p.step_id = a.step_id and p.attempt = a.attempt
              order by p.namespace, p.scope, p.value, p.slot for update of p)
         delete from tasker.permits p using mine m
          where p.namespace = m.namespace and p.scope = m.scope and p.value = m.value and p.slot = m.slot
         returning p.scope, p.value",
    )
    .bind(attempts.iter().map(|a| a.0).collect::<Vec<_>>())
    .bind(attempts.iter().map(|a| a.1).collect::<Vec<_>>());
    session.fetch("free_permits", query).await
}

/// Gives back permits whose step does not run with them: a claim lost a race, a step was stopped, a worker died between
/// its report and this.
///
/// # Errors
/// [`Error::Statement`].
pub async fn free_unused(session: &mut Session, steps: Option<&[StepId]>) -> Result<Vec<Scope>, Error> {
    let query = sqlx::query_as(
        "-- free_unused_permits
         with unused as materialized (
             select p.namespace, p.scope, p.value, p.slot from tasker.permits p
              where ($1::uuid[] is null or p.step_id = any ($1))
                and not exists (select from tasker.steps s
                                 where s.id = p.step_id and s.state = 'in_progress' and s.attempt = p.attempt)
              order by p.namespace, p.scope, p.value, p.slot for update skip locked)
         delete from tasker.permits p using unused u
          where p.namespace = u.namespace and p.scope = u.scope and p.value = u.value and p.slot = u.slot
         returning p.scope, p.value",
    );
    session.fetch("free_unused_permits", query.bind(steps)).await
}

/// Brings back, for each of these limits, as many of the steps that wait longest as there are permits.
///
/// Versions of a template may say different limits of the same scope: each step waits for its own. What an operator set is
/// read where it stands, since a step may have been set aside by a claim that did not see it yet.
///
/// # Errors
/// [`Error::Statement`].
pub async fn wake(session: &mut Session, queue: &QueueName, scopes: &[Scope]) -> Result<u64, Error> {
    let sql = format!(
        "-- wake_permit_waits
         with recursive home as materialized (select name from tasker.namespaces where queue = $1),
         scope as materialized (
             select s.scope, s.value, (select count(*) from tasker.permits p
                                        where p.namespace = home.name and p.scope = s.scope and p.value = s.value) as used
               from (select distinct scope, value from unnest($2::text[], $3::text[]) s (scope, value)) s cross join home),
         -- walks the index from one limit to the next, however many wait for each
         told as (
             select s.scope, s.value, s.used, (select min(w.max) from tasker.permit_waits w
                                                where w.namespace = home.name and w.scope = s.scope and w.value = s.value) as max
               from scope s cross join home
             union all
             select t.scope, t.value, t.used, (select min(w.max) from tasker.permit_waits w
                                                where w.namespace = home.name and w.scope = t.scope and w.value = t.value
                                                  and w.max > t.max)
               from told t cross join home where t.max is not null),
         room as materialized (
             select t.scope, t.value, t.max,
                    case when t.scope = 'namespace' or t.scope like 'handler:%'
                         then coalesce((select l.max from tasker.limits l
                                         where l.namespace = home.name and l.scope = t.scope), {LARGEST})
                         else t.max end - t.used as permits
               from told t cross join home where t.max is not null),
         next as materialized (
             select n.step_id, n.msg_id, n.vt from room r cross join home
              cross join lateral (
                    select w.step_id, w.msg_id, w.vt from tasker.permit_waits w
                     where w.namespace = home.name and w.scope = r.scope and w.value = r.value and w.max = r.max
                     order by w.vt limit greatest(r.permits, 0) for update skip locked) n),
         -- one that somebody holds is left for another time
         message as materialized (
             select q.msg_id from {table} q where q.msg_id in (select msg_id from next) order by q.msg_id for update skip locked),
         gone as (
             delete from tasker.permit_waits w using next n
              where w.step_id = n.step_id
                and (n.msg_id in (select msg_id from message)
                     or not exists (select from {table} q where q.msg_id = n.msg_id)))
         update {table} q set vt = n.vt from next n join message m on m.msg_id = n.msg_id where q.msg_id = n.msg_id",
        table = queue.table(),
    );
    let query = sqlx::query(&sql)
        .bind(queue.as_str())
        .bind(scopes.iter().map(|s| s.0.as_str()).collect::<Vec<_>>())
        .bind(scopes.iter().map(|s| s.1.as_str()).collect::<Vec<_>>());
    session.execute("wake_permit_waits", query).await
}

/// The limits of a namespace that steps wait for.
///
/// # Errors
/// [`Error::Statement`].
pub async fn waited_for(session: &mut Session, namespace: &str) -> Result<Vec<Scope>, Error> {
    // walks the index from one limit to the next, however many wait for each
    let query = sqlx::query_as(
        "-- list_permit_waits
         with recursive scope as (
             (select scope, value from tasker.permit_waits where namespace = $1 order by scope, value limit 1)
             union all
             select n.scope, n.value from scope s
              cross join lateral (
                    select w.scope, w.value from tasker.permit_waits w
                     where w.namespace = $1 and (w.scope, w.value) > (s.scope, s.value) order by w.scope, w.value limit 1) n)
         select scope, value from scope",
    );
    session.fetch("list_permit_waits", query.bind(namespace)).await
}

/// Deletes the messages of steps that were stopped while they waited for a permit.
///
/// # Errors
/// [`Error::Statement`].
pub async fn give_up(session: &mut Session, queue: &QueueName, steps: &[StepId]) -> Result<u64, Error> {
    let sql = format!(
        "-- give_up_permit_waits
         with gone as (delete from tasker.permit_waits where step_id = any ($1) returning msg_id),
         -- who holds steps waits for no message; one that is locked is being woken
         free as materialized (
             select q.msg_id from {table} q where q.msg_id in (select msg_id from gone) order by q.msg_id for update skip locked)
         delete from {table} q using free where q.msg_id = free.msg_id",
        table = queue.table(),
    );
    let door = Door::of(queue);
    let deleted = session.execute("give_up_permit_waits", sqlx::query(&sql).bind(steps)).await;
    door.close(session, deleted, |deleted| Traffic { deleted: *deleted, ..Traffic::default() })
}

/// What an enqueued step waits for.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Wait {
    /// The step.
    pub step_id: StepId,
    /// The limit.
    pub scope: String,
    /// What of it is taken from the input.
    pub value: String,
    /// How many permits there are.
    pub max: i32,
    /// How many of them are taken.
    pub used: i64,
    /// How many wait before it.
    pub ahead: i64,
    /// Since when.
    pub since: DateTime<Utc>,
}

/// Which of these steps wait for a permit.
///
/// # Errors
/// [`Error::Statement`].
pub async fn waits(session: &mut Session, steps: &[StepId]) -> Result<Vec<Wait>, Error> {
    let query = sqlx::query_as(
        "-- find_permit_waits
         select w.step_id, w.scope, w.value, w.max, w.since,
                (select count(*) from tasker.permits p
                  where p.namespace = w.namespace and p.scope = w.scope and p.value = w.value) as used,
                (select count(*) from tasker.permit_waits o
                  where o.namespace = w.namespace and o.scope = w.scope and o.value = w.value and o.vt < w.vt) as ahead
           from tasker.permit_waits w where w.step_id = any ($1)",
    );
    session.fetch("find_permit_waits", query.bind(steps)).await
}

/// Sets an operator's limit. Steps that run count against it from the start; what waits for it is judged anew.
///
/// # Errors
/// [`Error::Statement`].
pub async fn set(
    session: &mut Session,
    namespace: &str,
    scope: &str,
    max: i32,
    actor: &str,
    reason: Option<&str>,
) -> Result<(), Error> {
    let query = sqlx::query(
        "-- set_limit
         with stored as (
             insert into tasker.limits as l (namespace, scope, max, set_by, reason) values ($1, $2, $3, $4, $5)
             on conflict (namespace, scope) do update
                set max = excluded.max, set_by = excluded.set_by, reason = excluded.reason, set_at = clock_timestamp()),
         -- written in any case: whoever removes the last limit at this moment waits here
         home as (update tasker.namespaces set is_limited = true where name = $1),
         waits as (update tasker.permit_waits set max = $3 where namespace = $1 and scope = $2),
         running as materialized (
             select s.id, s.attempt, row_number() over (order by s.started_at, s.id) as place
               from tasker.tasks t join tasker.steps s on s.task_id = t.id
               join tasker.template_steps d on d.template_id = t.template_id and d.name = s.name
              where t.namespace = $1 and t.finished_at is null and s.state = 'in_progress'
                and $2 in ('namespace', 'handler:' || d.handler)
                and not exists (select from tasker.permits p where p.step_id = s.id and p.scope = $2))
         insert into tasker.permits (namespace, scope, slot, step_id, attempt)
         select $1, $2, r.place + coalesce((select max(slot) from tasker.permits where namespace = $1 and scope = $2), 0),
                r.id, r.attempt
           from running r on conflict do nothing",
    )
    .bind(namespace)
    .bind(scope)
    .bind(max)
    .bind(actor)
    .bind(reason);
    session.execute("set_limit", query).await.map(drop)
}

/// Removes an operator's limit; answers whether there was one. What waits for it need not any more.
///
/// # Errors
/// [`Error::Statement`].
pub async fn remove(session: &mut Session, namespace: &str, scope: &str) -> Result<bool, Error> {
    let query = sqlx::query("-- hold_namespace\nselect from tasker.namespaces where name = $1 for no key update");
    session.execute("hold_namespace", query.bind(namespace)).await?;
    let sql = format!(
        "-- remove_limit
         with waits as (update tasker.permit_waits set max = {LARGEST} where namespace = $1 and scope = $2),
         permits as (delete from tasker.permits where namespace = $1 and scope = $2)
         delete from tasker.limits where namespace = $1 and scope = $2"
    );
    let removed = session.execute("remove_limit", sqlx::query(&sql).bind(namespace).bind(scope)).await? > 0;
    let query = sqlx::query(
        "-- forget_limits
         update tasker.namespaces n set is_limited = false
          where n.name = $1 and n.is_limited and not exists (select from tasker.limits where namespace = $1)
            and not exists (select from tasker.templates t join tasker.template_steps d on d.template_id = t.id
                             where t.namespace = $1 and d.concurrency_limit is not null)",
    );
    session.execute("forget_limits", query.bind(namespace)).await?;
    Ok(removed)
}

#[derive(sqlx::FromRow)]
struct Row {
    namespace: Name,
    scope: String,
    max: i32,
    used: i64,
    waiting: i64,
    set_by: Option<String>,
    reason: Option<String>,
    set_at: Option<DateTime<Utc>>,
}

/// Every limit of operators and templates. Values of one key are taken together.
///
/// # Errors
/// [`Error::Statement`].
pub async fn list(session: &mut Session) -> Result<Vec<LimitSummary>, Error> {
    let query = sqlx::query_as(
        "-- list_limits
         with declared as (
             select namespace, scope, max, set_by, reason, set_at from tasker.limits
             union all
             select t.namespace,
                    case when d.concurrency_key is null then 'step:' || t.name || '/' || d.name else 'key:' || d.concurrency_key end,
                    max(d.concurrency_limit), null, null, null
               from tasker.template_steps d join tasker.templates t on t.id = d.template_id
              where d.concurrency_limit is not null group by 1, 2)
         select d.*,
                (select count(*) from tasker.permits p where p.namespace = d.namespace and p.scope = d.scope) as used,
                (select count(*) from tasker.permit_waits w where w.namespace = d.namespace and w.scope = d.scope) as waiting
           from declared d order by d.namespace, d.scope",
    );
    let rows: Vec<Row> = session.fetch("list_limits", query).await?;
    Ok(rows
        .into_iter()
        .map(|row| LimitSummary {
            namespace: row.namespace.to_string(),
            scope: row.scope,
            max: row.max,
            used: row.used,
            waiting: row.waiting,
            set_by: row.set_by,
            reason: row.reason,
            set_at: row.set_at,
        })
        .collect())
}
