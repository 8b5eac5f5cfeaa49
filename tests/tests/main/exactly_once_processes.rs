//! What a handler writes in its report takes effect once, while its worker's process is killed in the middle of reports, stands
//! still in them, or never hears that they were committed.

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use serde_json::json;
use sqlx::{Connection as _, PgConnection};
use std::time::Duration;
use tasker_orchestration::submit;
use tasker_postgres::testkit::Shared;
use tasker_shared::api::SubmitTask;
use tasker_tests::{
    System, booker,
    chaos::{dice::Dice, proxy::Proxy},
    process::{Process, command},
    system::eventually,
    templates::NAMESPACE,
};

/// How many workers are killed.
const KILLS: usize = 40;

/// How many acknowledgements are lost.
const LOST: u64 = 20;

async fn start() -> Result<System> {
    let system = System::start().await?;
    system.execute(booker::TABLE).await?;
    // every attempt that fails is followed by another
    system
        .apply(&format!(
            "name: book\nnamespace_name: {NAMESPACE}\nversion: 1.0.0\nsteps:\n  - name: only\n    handler: {{callable: {}}}\n    \
             retry: {{max_attempts: 1000, backoff: none}}\n",
            booker::CALLABLE
        ))
        .await?;
    Ok(system)
}

fn worker(url: &str, settings: &[(&str, &str)]) -> Result<Process> {
    let mut command = command("tasker-tests")?;
    command.arg("booker").env("DATABASE_URL", url).envs([
        ("TASKER_ENV", "test"),
        ("RUST_LOG", "info"),
        ("TASKER__WORKER__HTTP_ADDRESS", "127.0.0.1:0"),
        ("TASKER__WORKER__LEASE_MS", "1500"),
        ("TASKER__WORKER__HEARTBEAT_INTERVAL_MS", "300"),
        ("TASKER__WORKER__MAX_CONCURRENT_STEPS", "8"),
        // whoever kills workers all the time must not be taken for a poisonous step
        ("TASKER__WORKER__MAX_DELIVERIES", "1000"),
    ]);
    Process::start("booker", {
        command.envs(settings.iter().copied());
        command
    })
}

async fn book(system: &System, hold_ms: usize, times: usize) -> Result<()> {
    let task = SubmitTask {
        namespace: NAMESPACE.to_owned(),
        name: "book".to_owned(),
        input: json!({ "hold_ms": hold_ms }),
        ..SubmitTask::default()
    };
    for answer in submit::submit(&system.orchestration, vec![task; times]).await? {
        answer?;
    }
    Ok(())
}

/// How many entries are written and not committed.
async fn held(system: &System) -> Result<i64> {
    let sql = format!(
        "select count(*) from pg_stat_activity where datname = current_database() and state = 'active'
            and query like '{}%' and pid <> pg_backend_pid()",
        booker::HOLDS
    );
    system.count(&sql).await
}

/// Keeps entries that are written from being committed, while it lives.
struct Hold(PgConnection);

impl Hold {
    async fn take(system: &System) -> Result<Self> {
        let mut connection = PgConnection::connect(&system.test_database.url).await?;
        sqlx::query("select pg_advisory_lock($1)").bind(booker::LOCK).execute(&mut connection).await?;
        Ok(Self(connection))
    }

    /// Returns when an entry is written and waits.
    async fn until_held(&self, system: &System) -> Result<()> {
        eventually("an entry is written and not committed", async || Ok(held(system).await? > 0)).await
    }

    async fn release(mut self) -> Result<()> {
        sqlx::query("select pg_advisory_unlock($1)").bind(booker::LOCK).execute(&mut self.0).await?;
        Ok(self.0.close().await?)
    }
}

/// Every step has one entry: that of the attempt whose report was accepted.
async fn judge(system: System, what: &str) -> Result<()> {
    let open = "select count(*) from tasker.tasks where finished_at is null";
    eventually("all tasks have ended", async || Ok(system.count(open).await? == 0)).await?;
    let steps = system.count("select count(*) from tasker.steps where state = 'complete'").await?;
    let entries = system.count("select count(*) from public.entries").await?;
    let attempts = system.count("select sum(attempt)::bigint from tasker.steps").await?;
    let reports = system.count("select count(*) from tasker.step_transitions where to_state = 'complete'").await?;
    let others = system
        .count(
            "select count(*) from public.entries e full join tasker.steps s on s.id = e.step_id and s.attempt = e.attempt
              where s.id is null or e.step_id is null or s.state <> 'complete' or (s.result->>'attempt')::integer <> e.attempt",
        )
        .await?;
    println!("{what}: {steps} steps in {attempts} attempts, {entries} entries, {others} of another attempt or none");
    assert_eq!((entries, reports, others), (steps, steps, 0));
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_killed_in_the_middle_of_reports_has_written_what_it_reported_and_nothing_else() -> Result<()>
{
    let (system, mut dice) = (start().await?, Dice::new(7, "kills"));
    let url = system.test_database.url.clone();
    let mut workers = [worker(&url, &[])?, worker(&url, &[])?];
    let mut within = 0;
    for kill in 0..KILLS {
        let (hold, pause) = (Hold::take(&system).await?, dice.between(0, 20));
        book(&system, pause, 12).await?;
        hold.until_held(&system).await?;
        let killed = &mut workers[kill % 2];
        if kill % 3 == 0 {
            // in the write
            within += 1;
            killed.kill9().await?;
            hold.release().await?;
        } else {
            // around the commit, or anywhere
            hold.release().await?;
            let around = Duration::from_millis(pause as u64) + dice.pause(0, 3);
            tokio::time::sleep(if kill % 3 == 1 { around } else { dice.pause(0, 60) }).await;
            within += usize::from(held(&system).await? > 0);
            killed.kill9().await?;
        }
        *killed = worker(&url, &[])?;
    }
    judge(system, &format!("{KILLS} kills, {within} of them while an entry was not committed")).await?;
    for mut worker in workers {
        worker.kill9().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_never_hears_of_its_commit_reports_in_vain_and_has_written_once() -> Result<()> {
    let system = start().await?;
    let shared = tokio::task::spawn_blocking(Shared::get).await??;
    let direct = shared.tcp_url(&system.test_database.name);
    let port = direct.rsplit_once(':').and_then(|(_, rest)| rest.split('/').next()).context("a port")?.to_owned();
    let proxy = Proxy::start(port.parse()?).await?;
    let url = direct.replace(&format!(":{port}/"), &format!(":{}/", proxy.port()));
    // nothing else is answered while an entry waits for its commit
    let quiet = [
        ("TASKER__WORKER__MAX_CONCURRENT_STEPS", "1"),
        ("TASKER__WORKER__HEARTBEAT_INTERVAL_MS", "9000"),
        ("TASKER__WORKER__LEASE_MS", "20000"),
    ];
    let mut worker = worker(&url, &quiet)?;
    for lost in 0..LOST {
        let hold = Hold::take(&system).await?;
        book(&system, 0, 1).await?;
        hold.until_held(&system).await?;
        proxy.lose_answers(1);
        hold.release().await?;
        eventually("an answer is lost", async || Ok(proxy.lost() > lost)).await?;
        let open = "select count(*) from tasker.tasks where finished_at is null";
        eventually("the task has ended", async || Ok(system.count(open).await? == 0)).await?;
    }
    let refused = || worker.text().matches("a report was refused").count() as u64;
    eventually("the late reports are refused", async || Ok(refused() >= LOST / 2)).await?;
    let refused = refused();
    worker.drain().await?;
    judge(system, &format!("{LOST} lost acknowledgements, {refused} late reports refused")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_stands_still_in_its_report_until_its_lease_lapses_writes_nothing() -> Result<()> {
    let system = start().await?;
    let url = system.test_database.url.clone();
    let mut zombie = worker(&url, &[("TASKER__WORKER__MAX_CONCURRENT_STEPS", "1")])?;
    let hold = Hold::take(&system).await?;
    book(&system, 300, 1).await?;
    hold.until_held(&system).await?;
    zombie.signal(Signal::SIGSTOP)?;
    let stat = format!("/proc/{}/stat", zombie.pid()?);
    eventually("it stands still", async || Ok(std::fs::read_to_string(&stat)?.contains(") T "))).await?;
    hold.release().await?;
    let mut other = worker(&url, &[])?;
    let open = "select count(*) from tasker.tasks where finished_at is null";
    eventually("another worker has done it", async || Ok(system.count(open).await? == 0)).await?;
    assert_eq!(system.count("select attempt::bigint from tasker.steps").await?, 2);
    zombie.signal(Signal::SIGCONT)?;
    zombie.wrote("a report was refused").await?;
    zombie.drain().await?;
    other.drain().await?;
    judge(system, "a worker that stood still").await
}
