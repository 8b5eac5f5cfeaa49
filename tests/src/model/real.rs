//! The real system, driven turn by turn in this process: the stations' own code on a database of its own.

use super::{
    operation::{Outcome, Queue, StepAction, Submit, TaskAction, Turn},
    oracle::{About, Answer, Of, Run, Visible},
    shape::{NAMESPACE, OLDER},
    view::FROM_DATABASE,
};
use crate::{TestDatabase, system};
use anyhow::{Context as _, Result, bail};
use serde_json::json;
use sqlx::PgPool;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tasker_orchestration::{
    Error, Orchestration, Settings, operate,
    service::{self, Loop},
    submit, templates,
};
use tasker_shared::{
    api::{Action, ApplyTemplate, ResolveStep, SubmitTask},
    id::{StepId, TaskId, WorkerId},
    metrics::Metrics,
    queue::QueueName,
    runtime::Bell,
    step::{Failure, FailureKind, ResultType},
    storage::{
        self, Database, Gate, Options, Passed,
        leases::{self, Held},
        repair,
        reports::{self, Report},
    },
    task::TaskState,
    telemetry::Tracing,
};

/// Longer than any story.
const LEASE: Duration = Duration::from_secs(3600);

/// Everything but the templates, which stories do not share; children before their parents.
const TABLES: [&str; 12] = [
    "tasker.timers",
    "tasker.step_edges",
    "tasker.steps",
    "tasker.step_transitions",
    "tasker.task_transitions",
    "tasker.dead_letters",
    "tasker.tasks",
    "pgmq.q_worker_model",
    "pgmq.q_step_results",
    "pgmq.q_task_requests",
    "pgmq.a_worker_model",
    "pgmq.a_step_results",
];

/// After so many stories what they left is truncated, which takes longer than deleting it.
const OFTEN: usize = 50;

#[derive(Debug)]
pub(crate) struct Real {
    test_database: Option<TestDatabase>,
    url: String,
    pool: PgPool,
    database: Database,
    orchestration: Orchestration,
    fuse: Arc<Fuse>,
    worker: WorkerId,
    queue: QueueName,
    templates: usize,
}

/// What the real system said: an answer, or that it broke before anything was stored.
pub(crate) enum Told {
    Answer(Answer),
    Broken,
}

/// Breaks one statement as a lost connection does.
#[derive(Debug, Default)]
struct Fuse {
    /// How many statements are left until then, plus one; 0 for never.
    left: AtomicUsize,
}

impl Gate for Fuse {
    fn pass<'a>(&'a self, _: &'static str, _: &'static str) -> Passed<'a> {
        let before = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        let broken = || sqlx::Error::Io(std::io::Error::other("the test cut the connection"));
        Box::pin(std::future::ready(if before == Ok(1) { Err(broken()) } else { Ok(()) }))
    }
}

impl Real {
    pub(crate) async fn start() -> Result<Self> {
        let test_database = TestDatabase::create().await?;
        let database = system::connect(&test_database.url, Metrics::disabled()).await?;
        let (pool, fuse) = (database.pool().clone(), Arc::new(Fuse::default()));
        let database = database.gated(Arc::<Fuse>::clone(&fuse));
        let url = test_database.url.clone();
        Ok(Self::with(Some(test_database), url, pool, database, fuse))
    }

    /// Another process on the same database: with connections of this name, and this gate before its statements.
    pub(crate) fn other(&self, name: &str, gate: Arc<dyn Gate>) -> Result<Self> {
        let options = Options { application_name: name.to_owned(), ..system::options(&self.url) };
        let database = Database::deferred(&options, Metrics::disabled())?.gated(gate);
        Ok(Self::with(None, self.url.clone(), self.pool.clone(), database, Arc::default()))
    }

    fn with(
        test_database: Option<TestDatabase>,
        url: String,
        pool: PgPool,
        database: Database,
        fuse: Arc<Fuse>,
    ) -> Self {
        let settings =
            Settings { stalled_after: Duration::ZERO, max_stalls: i32::MAX, ..system::orchestration_settings() };
        let orchestration = Orchestration::new(database.clone(), Bell::local(), Tracing::disabled(), settings);
        let (worker, queue) = (WorkerId::generate(), QueueName::of_namespace(NAMESPACE));
        Self { test_database, url, pool, database, orchestration, fuse, worker, queue, templates: 0 }
    }

    pub(crate) async fn close(self) -> Result<()> {
        self.pool.close().await;
        match self.test_database {
            Some(database) => database.drop().await,
            None => Ok(()),
        }
    }

    /// Ends the connections of another process.
    pub(crate) async fn disconnect(&self) {
        self.database.pool().close().await;
    }

    /// Connections that no gate holds.
    pub(crate) const fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Forgets the story before, and registers the templates of the next.
    pub(crate) async fn begin(&mut self, templates: &[String]) -> Result<()> {
        if self.templates > 0 {
            let clean = match self.templates.is_multiple_of(OFTEN) {
                true => format!("truncate {}", TABLES.join(", ")),
                false => TABLES.map(|table| format!("delete from {table}")).join(";"),
            };
            self.run(&clean).await?;
        }
        self.templates += 1;
        for source in templates {
            let request = ApplyTemplate { source: source.clone(), file: None };
            templates::apply(&self.orchestration, &request).await.context("apply a template")?;
        }
        Ok(())
    }

    /// A number for the names of the next story's templates.
    pub(crate) const fn story(&self) -> usize {
        self.templates
    }

    /// The next statement of this number breaks; none with nothing.
    pub(crate) fn arm(&self, statement: Option<usize>) {
        self.fuse.left.store(statement.map_or(0, |n| n + 1), Ordering::Relaxed);
    }

    /// Waits until what the fuse broke, or was refused, is rolled back. Its connection is closed behind its back, and until
    /// PostgreSQL notices, it holds the messages and tasks it took: a turn that comes meanwhile skips them, as it should, and finds
    /// nothing.
    pub(crate) async fn rolled_back(&self) -> Result<()> {
        system::eventually("the transaction that did not commit is rolled back", async || {
            let open = "select exists (select from pg_stat_activity
                                        where datname = current_database() and state like 'idle in transaction%')";
            let open: bool = sqlx::query_scalar(open).fetch_one(&self.pool).await?;
            Ok(!open)
        })
        .await
    }

    pub(crate) async fn lines(&self) -> Result<Vec<String>> {
        let mut lines: Vec<String> = sqlx::query_scalar(FROM_DATABASE).fetch_all(&self.pool).await?;
        lines.sort();
        Ok(lines)
    }

    pub(crate) async fn submit(&self, submit: &Submit, template: &str, task: usize) -> Result<Told> {
        let input = if submit.bad { json!({ "bad": 1 }) } else { json!({}) };
        let key = submit.key.map(|key| format!("k{key}"));
        let version = submit.older.then(|| OLDER.to_owned());
        let id = if submit.by_sql {
            sqlx::query_scalar(
                "select tasker.submit($1, $2, $3, idempotency_key => $4, priority => $5, initiator => $6,
                    run_at => case when $7 then now() + interval '1 hour' end, version => $8)",
            )
            .bind(NAMESPACE)
            .bind(template)
            .bind(input)
            .bind(key)
            .bind(i32::from(submit.priority))
            .bind(format!("t{task}"))
            .bind(submit.delayed)
            .bind(version)
            .fetch_one(&self.pool)
            .await?
        } else {
            let run_at = match submit.delayed {
                true => Some(sqlx::query_scalar("select now() + interval '1 hour'").fetch_one(&self.pool).await?),
                false => None,
            };
            let task = SubmitTask {
                namespace: NAMESPACE.to_owned(),
                name: template.to_owned(),
                version,
                input,
                idempotency_key: key,
                priority: submit.priority,
                initiator: Some(format!("t{task}")),
                run_at,
                ..SubmitTask::default()
            };
            match submit::submit(&self.orchestration, vec![task]).await.map(|mut answers| answers.remove(0)) {
                Ok(Ok(submitted)) => submitted.task_id,
                Ok(Err(Error::InputInvalid { .. })) => return Ok(Told::Answer(Err("refused"))),
                Ok(Err(error)) | Err(error) => return broken(error),
            }
        };
        let label = sqlx::query_scalar("select initiator from tasker.tasks where id = $1").bind(id);
        Ok(Told::Answer(Ok(label.fetch_one(&self.pool).await?)))
    }

    /// What a claim will read, in its order.
    pub(crate) async fn visible(&self, limit: usize) -> Result<Vec<Visible>> {
        let rows: Vec<(i64, i32, Option<String>)> = sqlx::query_as(
            "select q.msg_id, q.read_ct, t.initiator || '.' || s.name
               from pgmq.q_worker_model q left join tasker.steps s on s.id::text = q.message->>'step_id'
               left join tasker.tasks t on t.id = s.task_id
              where q.vt <= clock_timestamp() order by q.vt limit $1",
        )
        .bind(i64::try_from(limit)?)
        .fetch_all(&self.pool)
        .await?;
        let about = |label: Option<String>| label.map_or(Some(About::Nothing), |label| step_of(&label));
        rows.into_iter()
            .map(|(id, read, label)| Some(Visible { id, about: about(label)?, read }))
            .collect::<Option<_>>()
            .context("every task has a label")
    }

    pub(crate) async fn claim(&self, limit: usize) -> Result<Told> {
        match self.claim_runs(limit).await {
            Ok(runs) => {
                let mut steps: Vec<_> = runs.iter().map(|r| format!("t{}.s{}@{}", r.task, r.step, r.attempt)).collect();
                steps.sort();
                Ok(Told::Answer(Ok(steps.join(" "))))
            }
            Err(error) => error.downcast::<storage::Error>().map_or_else(Err, |error| broken(error.into())),
        }
    }

    /// Claims, and tells what was claimed.
    pub(crate) async fn claim_runs(&self, limit: usize) -> Result<Vec<Run>> {
        let mut session = self.database.session("claim").await?;
        let claim = leases::claim(&mut session, &self.queue, i64::try_from(limit)?, self.worker, LEASE).await?;
        let mut runs = Vec::new();
        for step in claim.steps {
            let label: String = sqlx::query_scalar("select initiator from tasker.tasks where id = $1")
                .bind(step.task_id)
                .fetch_one(&self.pool)
                .await?;
            let Some(About::Step { task, step: number }) = step_of(&format!("{label}.{}", step.step_name)) else {
                bail!("a step of another test was claimed: {label}.{}", step.step_name);
            };
            runs.push(Run { task, step: number, attempt: step.attempt, message: step.msg_id });
        }
        runs.sort_by_key(|run| (run.task, run.step));
        Ok(runs)
    }

    pub(crate) async fn report(&self, run: Run, outcome: Outcome) -> Result<Told> {
        self.report_all(&[run], outcome).await
    }

    /// One report on several runs, with the same outcome.
    pub(crate) async fn report_all(&self, runs: &[Run], outcome: Outcome) -> Result<Told> {
        let failure = |kind| Some(Failure::new(kind, "the story says so"));
        let (outcome, result, error) = match outcome {
            Outcome::Success => (ResultType::Success, Some(json!({ "by": "story" })), None),
            Outcome::Retry => (ResultType::Error, None, failure(FailureKind::HandlerError)),
            Outcome::RetryLater => {
                let mut failure = Failure::new(FailureKind::HandlerError, "not now");
                failure.retry_after_ms = Some(3_600_000);
                (ResultType::Error, None, Some(failure))
            }
            Outcome::NotTried => {
                let mut failure = Failure::new(FailureKind::HandlerError, "what it needs is away");
                (failure.not_tried, failure.retry_after_ms) = (true, Some(3_600_000));
                (ResultType::Error, None, Some(failure))
            }
            Outcome::Timeout => (ResultType::Timeout, None, failure(FailureKind::Timeout)),
            Outcome::Permanent => (ResultType::Error, None, failure(FailureKind::Permanent)),
            Outcome::Poison => (ResultType::Error, None, failure(FailureKind::Poison)),
        };
        let mut reports = Vec::new();
        for run in runs {
            let step_id = self.step(run.task, run.step).await?;
            let (result, error) = (result.clone(), error.clone());
            reports.push(Report { msg_id: run.message, step_id, attempt: run.attempt, outcome, result, error });
        }
        let mut session = self.database.session("report").await?;
        let stored = reports::store(&mut session, &self.queue, &reports, self.worker).await;
        told(stored.map(|stored| if stored.is_empty() { "late" } else { "accepted" }))
    }

    pub(crate) async fn extend(&self, run: Run) -> Result<Told> {
        let held = self.held(run).await?;
        let mut session = self.database.session("heartbeat").await?;
        let ours = leases::extend(&mut session, &self.queue, &[held], LEASE).await;
        told(ours.map(|ours| if ours.is_empty() { "lost" } else { "ours" }))
    }

    pub(crate) async fn release(&self, run: Run) -> Result<Told> {
        let held = self.held(run).await?;
        let mut session = self.database.session("release").await?;
        let ours = leases::release(&mut session, &self.queue, &[held], self.worker, "the story says so").await;
        told(ours.map(|ours| if ours.is_empty() { "lost" } else { "ours" }))
    }

    async fn held(&self, run: Run) -> Result<Held> {
        let step_id = self.step(run.task, run.step).await?;
        Ok(Held { msg_id: run.message, step_id, attempt: run.attempt, progress: None })
    }

    pub(crate) async fn turn(&self, turn: Turn) -> Result<Told> {
        let of = match turn {
            Turn::Process => Loop::Process,
            Turn::Initialize => Loop::Initialize,
            Turn::Timers => Loop::Timers,
            Turn::ExpiredLeases => Loop::ExpiredLeases,
            Turn::Repair => Loop::Repair,
        };
        told(service::turn(&self.orchestration, of).await.map(|()| ""))
    }

    pub(crate) async fn operate(&self, task: usize, action: TaskAction) -> Result<Told> {
        let (o, task, plain) = (&self.orchestration, self.task(task).await?, Action::default());
        let done = match action {
            TaskAction::Cancel => operate::cancel(o, task, &plain).await,
            TaskAction::Pause => operate::pause(o, task, &plain).await,
            TaskAction::Resume => operate::resume(o, task, &plain).await,
            TaskAction::Retry => operate::retry(o, task, &plain).await,
            TaskAction::Resolve => operate::resolve(o, task, &plain).await,
        };
        done.map_or_else(broken, operated)
    }

    pub(crate) async fn operate_step(&self, task: usize, step: usize, action: StepAction) -> Result<Told> {
        let (o, task, plain, step) =
            (&self.orchestration, self.task(task).await?, Action::default(), format!("s{step}"));
        let done = match action {
            StepAction::Retry => operate::retry_step(o, task, &step, &plain).await,
            StepAction::Cancel => operate::cancel_step(o, task, &step, &plain).await,
            StepAction::Park => operate::park_step(o, task, &step, &plain).await.map(|acted| acted.state),
            StepAction::Resolve => {
                let resolution = ResolveStep { result: json!({}), reason: None, by: None };
                operate::resolve_step(o, task, &step, &resolution).await
            }
        };
        done.map_or_else(broken, operated)
    }

    /// A message's number in its queue: the first in the order of reading of those that look like this.
    pub(crate) async fn message(&self, queue: Queue, about: About, read: i32, visible: bool) -> Result<i64> {
        let table = format!("pgmq.q_{}", queue.name());
        let (key, value, attempt) = match about {
            About::Step { task, step } => ("step_id", self.step(task, step).await?.to_string(), None),
            About::Outcome { task, step, attempt } => {
                ("step_id", self.step(task, step).await?.to_string(), Some(attempt.to_string()))
            }
            About::Task(task) => ("task_id", self.task(task).await?.to_string(), None),
            About::Nothing => ("garbage", "true".to_owned(), None),
        };
        let sql = format!(
            "select msg_id from {table} where message->>$1 = $2 and ($3::text is null or message->>'attempt' = $3)
                and read_ct = $4 and (vt <= clock_timestamp()) = $5 order by vt, msg_id limit 1"
        );
        let found = sqlx::query_scalar(&sql).bind(key).bind(value).bind(attempt).bind(read).bind(visible);
        found.fetch_one(&self.pool).await.context("the message is there")
    }

    pub(crate) async fn expire(&self, message: i64) -> Result<()> {
        self.run(&format!("update pgmq.q_worker_model set vt = clock_timestamp() where msg_id = {message}")).await
    }

    pub(crate) async fn duplicate(&self, queue: Queue, message: i64) -> Result<()> {
        let queue = queue.name();
        let sql = format!("select pgmq.send('{queue}', message, headers) from pgmq.q_{queue} where msg_id = {message}");
        self.run(&sql).await
    }

    pub(crate) async fn lose(&self, queue: Queue, message: i64) -> Result<()> {
        self.run(&format!("delete from pgmq.q_{} where msg_id = {message}", queue.name())).await
    }

    pub(crate) async fn garbage(&self, queue: Queue) -> Result<()> {
        self.run(&format!("select pgmq.send('{}', '{{\"garbage\": true}}'::jsonb)", queue.name())).await
    }

    pub(crate) async fn lose_timer(&self, task: usize, of: Of) -> Result<()> {
        let (kind, subject) = self.timer(task, of).await?;
        self.run(&format!("delete from tasker.timers where kind = '{kind}' and subject = '{subject}'")).await
    }

    pub(crate) async fn due(&self, task: usize, of: Of) -> Result<()> {
        let (kind, subject) = self.timer(task, of).await?;
        let past = "clock_timestamp() - interval '1 second'";
        self.run(&format!(
            "update tasker.timers set due_at = {past} where kind = '{kind}' and subject = '{subject}';
             update tasker.tasks set run_at = {past} where id = '{subject}' and '{kind}' = 'start';
             update tasker.steps set retry_at = {past} where id = '{subject}' and '{kind}' = 'retry'"
        ))
        .await
    }

    async fn timer(&self, task: usize, of: Of) -> Result<(&'static str, String)> {
        Ok(match of {
            Of::Start => ("start", self.task(task).await?.to_string()),
            Of::Deadline => ("deadline", self.task(task).await?.to_string()),
            Of::Retry(step) => ("retry", self.step(task, step).await?.to_string()),
        })
    }

    async fn task(&self, task: usize) -> Result<TaskId> {
        let found = sqlx::query_scalar("select id from tasker.tasks where initiator = $1").bind(format!("t{task}"));
        found.fetch_one(&self.pool).await.context("the task is there")
    }

    async fn step(&self, task: usize, step: usize) -> Result<StepId> {
        let found = sqlx::query_scalar(
            "select s.id from tasker.steps s join tasker.tasks t on t.id = s.task_id where t.initiator = $1 and s.name = $2",
        );
        let found = found.bind(format!("t{task}")).bind(format!("s{step}"));
        found.fetch_one(&self.pool).await.context("the step is there")
    }

    /// Submits two tasks with these keys in one request.
    pub(crate) async fn submit_both(&self, keys: [usize; 2], template: &str, task: usize) -> Result<Told> {
        let asked = keys.map(|key| SubmitTask {
            namespace: NAMESPACE.to_owned(),
            name: template.to_owned(),
            input: json!({}),
            idempotency_key: Some(format!("k{key}")),
            initiator: Some(format!("t{}", 10 * task + key)),
            ..SubmitTask::default()
        });
        for answer in submit::submit(&self.orchestration, asked.to_vec()).await? {
            answer?;
        }
        Ok(Told::Answer(Ok(String::new())))
    }

    /// Locks the row of a step and lets it go: two statements, with whatever others do in between.
    pub(crate) async fn hold_step(&self, task: usize, step: usize) -> Result<Told> {
        let step = self.step(task, step).await?;
        let mut session = self.database.begin("hold").await?;
        let locked = sqlx::query("select from tasker.steps where id = $1 for update").bind(step);
        session.execute("lock_step", locked).await?;
        session.commit().await?;
        Ok(Told::Answer(Ok(String::new())))
    }

    /// Every lease runs out.
    pub(crate) async fn expire_all(&self) -> Result<()> {
        self.run("update pgmq.q_worker_model set vt = clock_timestamp() where vt > clock_timestamp()").await
    }

    /// Everything that waits for a time is due, unless its task is paused.
    pub(crate) async fn due_all(&self) -> Result<()> {
        self.run(
            "update tasker.tasks set run_at = clock_timestamp() where run_at > clock_timestamp();
             update tasker.steps set retry_at = clock_timestamp() where retry_at > clock_timestamp();
             update tasker.timers set due_at = clock_timestamp() where due_at > clock_timestamp() and due_at < 'infinity'",
        )
        .await
    }

    /// A hand empties a queue.
    pub(crate) async fn lose_all(&self, queue: Queue) -> Result<()> {
        self.run(&format!("delete from pgmq.q_{}", queue.name())).await
    }

    /// Paused tasks go on.
    pub(crate) async fn resume_all(&self) -> Result<()> {
        let paused: Vec<TaskId> =
            sqlx::query_scalar("select id from tasker.tasks where state = 'paused'").fetch_all(&self.pool).await?;
        for task in paused {
            operate::resume(&self.orchestration, task, &Action::default()).await?;
        }
        Ok(())
    }

    /// How many tasks have not ended.
    pub(crate) async fn open(&self) -> Result<i64> {
        let open = sqlx::query_scalar("select count(*) from tasker.tasks where finished_at is null");
        Ok(open.fetch_one(&self.pool).await?)
    }

    /// The tasks that nothing would wake, as the repair sweep finds them.
    pub(crate) async fn standing_still(&self) -> Result<Vec<TaskId>> {
        let mut session = self.database.begin("look").await?;
        repair::prepare(&mut session).await?;
        let mut still = repair::standing_still(&mut session, Duration::ZERO, 100).await?;
        still.extend(repair::without_message(&mut session, NAMESPACE, Duration::ZERO, 100).await?);
        session.rollback().await?;
        Ok(still)
    }

    /// How many steps wait on the queue while no message of theirs can be read.
    pub(crate) async fn hidden(&self) -> Result<i64> {
        let hidden = "select count(*) from tasker.steps s where s.state = 'enqueued' and not exists (
            select from pgmq.q_worker_model q where q.message->>'step_id' = s.id::text and q.vt <= clock_timestamp())";
        Ok(sqlx::query_scalar(hidden).fetch_one(&self.pool).await?)
    }

    /// Runs statements of the test's own.
    pub(crate) async fn run(&self, sql: &str) -> Result<()> {
        sqlx::raw_sql(sql).execute(&self.pool).await?;
        Ok(())
    }
}

fn told(answer: Result<&str, storage::Error>) -> Result<Told> {
    answer.map_or_else(|error| broken(error.into()), |answer| Ok(Told::Answer(Ok(answer.to_owned()))))
}

#[expect(clippy::unnecessary_wraps, reason = "the other arm of map_or_else fails")]
fn operated(state: TaskState) -> Result<Told> {
    Ok(Told::Answer(Ok(state.to_string())))
}

/// An error of the test's own making, a refusal, or a failure.
fn broken(error: Error) -> Result<Told> {
    match error {
        Error::Illegal(_) => Ok(Told::Answer(Err("illegal"))),
        Error::StepNotFound { .. } | Error::TaskNotFound(_) => Ok(Told::Answer(Err("not found"))),
        Error::Storage(storage::Error::Statement { source: sqlx::Error::Io(_), .. }) => Ok(Told::Broken),
        error => Err(error.into()),
    }
}

fn step_of(label: &str) -> Option<About> {
    let (task, step) = label.split_once('.')?;
    Some(About::Step { task: task.strip_prefix('t')?.parse().ok()?, step: step.strip_prefix('s')?.parse().ok()? })
}
