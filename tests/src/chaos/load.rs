//! Callers and operators: they submit what the plan says, try again with the same key until they are answered, and act.

use super::{
    dice::Dice,
    ledger::{Action, Ledger},
    machines::{Kind, Machines, connect},
    plan::{Operation, Plan, Submission, Way},
    worker::HANDLER,
};
use anyhow::{Context, Result, bail};
use sqlx::{Connection as _, types::Uuid};
use std::{sync::Arc, time::Duration};
use tasker_client::{Client, Error};
use tasker_shared::{
    api::{self, ApplyTemplate, DeadLetterFilter, ResolveStep, SetLimit, SubmitTask, WhichLimit},
    id::{DeadLetterId, TaskId},
};
use tokio::{sync::Semaphore, task::JoinSet, time::Instant};

/// The pause after the first try of a submission that failed, in milliseconds. It doubles with each, up to the longest: hundreds
/// of callers that ask again all the time would keep down what tries to get up.
const PAUSE_MS: (usize, usize) = (200, 3200);

/// How many connections the callers by SQL have at once, as the pool of an application has.
const SQL_CONNECTIONS: usize = 16;

/// The table of the caller, whose rows are written in the transaction that submits.
pub const ORDERS: &str =
    "create schema chaos; create table chaos.orders (number bigint primary key, task_id uuid not null)";

/// Registers the workflows.
///
/// # Errors
/// They are refused.
pub async fn register(machines: &Machines, plan: &Plan, effects: &str, outside: &str) -> Result<()> {
    let client = machines.of(Kind::Orchestration).find_map(|o| o.client()).context("an orchestration answers")?;
    for graph in &plan.graphs {
        let source = graph.template(effects, outside);
        client.apply(&ApplyTemplate { source, file: None }).await?;
    }
    let mut connection = machines.connect().await?;
    sqlx::raw_sql(ORDERS).execute(&mut connection).await?;
    Ok(())
}

/// Runs the whole load. Everything is tried until `deadline`, and then left as it is.
pub async fn run(machines: Arc<Machines>, plan: Arc<Plan>, ledger: Arc<Ledger>, began: Instant, deadline: Instant) {
    let mut callers = JoinSet::new();
    let pool = Arc::new(Semaphore::new(SQL_CONNECTIONS));
    for number in 0..plan.submissions.len() {
        let (machines, plan, ledger) = (Arc::clone(&machines), Arc::clone(&plan), Arc::clone(&ledger));
        let caller = Caller { machines, plan, ledger, pool: Arc::clone(&pool), number, deadline };
        callers.spawn(async move {
            let Some(submission) = caller.plan.submissions.get(number).cloned() else { return };
            tokio::time::sleep_until(began + submission.at).await;
            caller.submit(&submission).await;
            for (place, (pause, operation)) in submission.operations.iter().enumerate() {
                tokio::time::sleep(*pause).await;
                caller.operate(place, *operation, &submission).await;
            }
        });
    }
    while callers.join_next().await.is_some() {}
}

struct Caller {
    machines: Arc<Machines>,
    plan: Arc<Plan>,
    ledger: Arc<Ledger>,
    pool: Arc<Semaphore>,
    number: usize,
    deadline: Instant,
}

impl Caller {
    async fn submit(&self, submission: &Submission) {
        let mut dice = Dice::new(self.plan.seed, &format!("caller {}", self.number));
        let mut pause = PAUSE_MS.0;
        while Instant::now() < self.deadline {
            self.ledger.tried(self.number, submission.graph, submission.priority);
            let done = match submission.way {
                Way::Http => self.by_http(submission, &mut dice).await,
                Way::HttpTwice => {
                    let mut other = Dice::new(self.plan.seed, "the other");
                    let both = tokio::join!(self.by_http(submission, &mut dice), self.by_http(submission, &mut other));
                    both.0.and(both.1)
                }
                Way::Sql | Way::SqlRolledBack => self.by_sql(submission).await,
            };
            if done.is_ok() {
                return;
            }
            tokio::time::sleep(dice.pause(pause / 2, pause)).await;
            pause = (pause * 2).min(PAUSE_MS.1);
        }
    }

    fn client(&self, dice: &mut Dice) -> Result<Client> {
        let all: Vec<Client> = self.machines.of(Kind::Orchestration).filter_map(|o| o.client()).collect();
        if all.is_empty() {
            bail!("no orchestration answers");
        }
        Ok(dice.pick(&all).clone())
    }

    async fn by_http(&self, submission: &Submission, dice: &mut Dice) -> Result<()> {
        let client = self.client(dice)?;
        let graph = self.plan.graphs.get(submission.graph).context("a workflow")?;
        // the time on this machine, and so PostgreSQL's
        let run_at = submission.delayed.map(|delay| (std::time::SystemTime::now() + delay).into());
        let task = SubmitTask {
            namespace: graph.namespace.to_owned(),
            name: graph.name.clone(),
            input: serde_json::json!({ "number": self.number }),
            idempotency_key: Some(self.key()),
            run_at,
            priority: submission.priority,
            ..SubmitTask::default()
        };
        match client.submit(&task).await {
            Ok(submitted) => {
                self.ledger.acknowledged(self.number, submitted.task_id);
                Ok(())
            }
            Err(Error::Refused(problem)) if ![429, 500, 503].contains(&problem.status) => {
                self.ledger.refused(self.number, format!("{problem:?}"));
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn by_sql(&self, submission: &Submission) -> Result<()> {
        let graph = self.plan.graphs.get(submission.graph).context("a workflow")?;
        // through the network of a worker, so that acknowledgements get lost here too
        let workers: Vec<_> = self.machines.of(Kind::Worker).collect();
        let network = workers.get(self.number % workers.len().max(1)).context("a worker")?;
        let url = self.machines.url.rsplit_once(':').map(|(rest, tail)| {
            let database = tail.split_once('/').map_or("", |(_, database)| database);
            format!("{rest}:{}/{database}", network.proxy.port())
        });
        let _place = self.pool.acquire().await?;
        let work = async {
            let mut connection = connect(&url.context("a port in the URL")?).await?;
            let mut transaction = connection.begin().await?;
            let (task,): (Uuid,) = sqlx::query_as(
                "select tasker.submit($1, $2, $3, idempotency_key => $4, \
                 run_at => clock_timestamp() + make_interval(secs => $5), priority => $6)",
            )
            .bind(graph.namespace)
            .bind(&graph.name)
            .bind(serde_json::json!({ "number": self.number }))
            .bind(self.key())
            .bind(submission.delayed.map(|delay| delay.as_secs_f64()))
            .bind(i32::from(submission.priority))
            .fetch_one(&mut *transaction)
            .await?;
            sqlx::query("insert into chaos.orders values ($1, $2) on conflict do nothing")
                .bind(i64::try_from(self.number)?)
                .bind(task)
                .execute(&mut *transaction)
                .await?;
            if submission.way == Way::SqlRolledBack {
                self.ledger.rolled_back(self.number);
                transaction.rollback().await?;
            } else {
                transaction.commit().await?;
                self.ledger.acknowledged(self.number, TaskId(task));
            }
            Ok(())
        };
        tokio::time::timeout(Duration::from_secs(10), work).await?
    }

    fn key(&self) -> String {
        format!("number {}", self.number)
    }

    async fn operate(&self, place: usize, operation: Operation, submission: &Submission) {
        let Some(task) = self.ledger.task(self.number) else { return };
        let operator = format!("{}-{place}", self.number);
        let mut dice = Dice::new(self.plan.seed, &operator);
        let Ok(client) = self.client(&mut dice) else { return };
        let action = api::Action { reason: Some("the plan says so".to_owned()), by: Some(operator.clone()) };
        let name = |step: usize| format!("s{step}");
        let (verb, done) = match operation {
            Operation::Limit(_) | Operation::Unlimit => return self.limit(&client, operation, submission).await,
            Operation::Redrive(step) => {
                let Some(letter) = open_letter(&client, task, &name(step)).await else { return };
                ("redrive", client.redrive(letter, &action).await.map(drop))
            }
            Operation::Cancel => ("cancel", client.cancel(task, &action).await.map(drop)),
            Operation::Pause => ("pause", client.pause(task, &action).await.map(drop)),
            Operation::Resume => ("resume", client.resume(task, &action).await.map(drop)),
            Operation::Retry => ("retry", client.retry(task, &action).await.map(drop)),
            Operation::Resolve => ("resolve", client.resolve(task, &action).await.map(drop)),
            Operation::ParkStep(step) => ("park_step", client.park_step(task, &name(step), &action).await.map(drop)),
            Operation::CancelStep(step) => {
                ("cancel_step", client.cancel_step(task, &name(step), &action).await.map(drop))
            }
            Operation::ResolveStep(step) => {
                let resolution = ResolveStep {
                    result: serde_json::json!({ "attempt": 0 }),
                    reason: action.reason.clone(),
                    by: action.by.clone(),
                };
                ("resolve_step", client.resolve_step(task, &name(step), &resolution).await.map(drop))
            }
        };
        let refused = matches!(&done, Err(Error::Refused(problem)) if problem.status < 500);
        let step = match operation {
            Operation::ParkStep(step)
            | Operation::CancelStep(step)
            | Operation::ResolveStep(step)
            | Operation::Redrive(step) => Some(step),
            _ => None,
        };
        if !refused {
            self.ledger.acted(operator, Action { task, step, verb, acknowledged: done.is_ok() });
        }
    }

    /// Whether it arrives does not matter: whatever the limit, everything comes to its end.
    async fn limit(&self, client: &Client, operation: Operation, submission: &Submission) {
        let Some(graph) = self.plan.graphs.get(submission.graph) else { return };
        let handler = Some(HANDLER.to_owned());
        let _ = match operation {
            Operation::Limit(max) => {
                let limit = SetLimit { max, handler, reason: None, by: Some("the plan".to_owned()) };
                client.set_limit(graph.namespace, &limit).await.map(drop)
            }
            _ => {
                let action = api::Action { reason: None, by: Some("the plan".to_owned()) };
                client.remove_limit(graph.namespace, &WhichLimit { handler }, &action).await.map(drop)
            }
        };
    }
}

/// The open dead letter of a step, if there is one.
async fn open_letter(client: &Client, task: TaskId, step: &str) -> Option<DeadLetterId> {
    let filter = DeadLetterFilter { open: Some(true), task_id: Some(task), ..DeadLetterFilter::default() };
    let page = client.dead_letters(&filter).await.ok()?;
    page.dead_letters
        .into_iter()
        .find(|letter| letter.step.as_deref() == Some(step))
        .map(|letter| letter.dead_letter_id)
}

/// Lets paused tasks go on; how many there were.
///
/// # Errors
/// The database is away.
pub async fn resume_all(machines: &Machines) -> Result<usize> {
    let mut connection = machines.connect().await?;
    let paused: Vec<(Uuid,)> =
        sqlx::query_as("select id from tasker.tasks where state = 'paused'").fetch_all(&mut connection).await?;
    let client = machines.of(Kind::Orchestration).find_map(|o| o.client()).context("an orchestration answers")?;
    for (task,) in &paused {
        let action = api::Action { reason: None, by: Some("the end of the run".to_owned()) };
        // one that has ended meanwhile needs no help
        let _ = client.resume(TaskId(*task), &action).await;
    }
    Ok(paused.len())
}
