//! Carries out faults, and writes down when each began and when it was over.

use super::{
    checker::letters::GARBAGE,
    ledger::Ledger,
    machines::{Kind, Machines, Service},
    plan::{Fault, Plan, Planned},
};
use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sqlx::{Executor as _, PgConnection};
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};
use tasker_shared::id::TaskId;
use tokio::{task::JoinSet, time::Instant};

/// A fault that happened.
#[derive(Debug, Clone)]
pub struct Happened {
    /// What.
    pub fault: Fault,
    /// To whom: the name of a process, or PostgreSQL.
    pub whom: String,
    /// When it began.
    pub began: SystemTime,
    /// When it was over.
    pub over: SystemTime,
}

/// Carries out the plan's faults; answers when all are over.
pub async fn run(
    machines: Arc<Machines>,
    plan: Arc<Plan>,
    ledger: Arc<Ledger>,
    disk: Option<PathBuf>,
    began: Instant,
) -> Vec<Happened> {
    let happened = Arc::new(Mutex::new(Vec::new()));
    let mut faults = JoinSet::new();
    for planned in plan.faults.clone() {
        let (machines, happened, disk) = (Arc::clone(&machines), Arc::clone(&happened), disk.clone());
        let ledger = Arc::clone(&ledger);
        faults.spawn(async move {
            tokio::time::sleep_until(began + planned.at).await;
            match happen(&machines, &planned, &ledger, disk.as_deref()).await {
                Ok(fault) => happened.lock().unwrap_or_else(PoisonError::into_inner).push(fault),
                // such as a query of this fault that another fault cuts off
                Err(error) => tracing::info!(fault = planned.fault.name(), "did not happen: {error:#}"),
            }
        });
    }
    while faults.join_next().await.is_some() {}
    let mut all = std::mem::take(&mut *happened.lock().unwrap_or_else(PoisonError::into_inner));
    all.sort_by_key(|fault| fault.began);
    all
}

async fn happen(
    machines: &Machines,
    planned: &Planned,
    ledger: &Ledger,
    disk: Option<&std::path::Path>,
) -> Result<Happened> {
    let Planned { whom, lasts, fault, .. } = *planned;
    let worker = pick(machines, Some(Kind::Worker), whom)?;
    let orchestration = pick(machines, Some(Kind::Orchestration), whom)?;
    let any = pick(machines, None, whom)?;
    let began = SystemTime::now();
    let mut name = "PostgreSQL".to_owned();
    match fault {
        Fault::KillWorker | Fault::KillOrchestration => {
            let service = if fault == Fault::KillWorker { worker } else { orchestration };
            name = service.incarnation();
            service.kill(lasts).await;
        }
        Fault::StopWorker | Fault::StopOrchestration => {
            let service = if fault == Fault::StopWorker { worker } else { orchestration };
            name = service.incarnation();
            service.drain(true).await;
        }
        Fault::FreezeWorker | Fault::Zombie | Fault::FreezeOrchestration => {
            let service = if fault == Fault::FreezeOrchestration { orchestration } else { worker };
            name = service.incarnation();
            // another fault may take the service away meanwhile; this process must not stay frozen
            let frozen = [service.pid().await.context("it does not run")?];
            signal_all(&frozen, Signal::SIGSTOP);
            tokio::time::sleep(lasts).await;
            signal_all(&frozen, Signal::SIGCONT);
        }
        Fault::CrashPostgres | Fault::QuitPostgres | Fault::RestartPostgres => {
            let mut postgres = machines.postgres.lock().await;
            match fault {
                Fault::CrashPostgres => postgres.crash().await?,
                Fault::QuitPostgres => postgres.quit()?,
                _ => {}
            }
            tokio::time::sleep(lasts).await;
            postgres.restart().await?;
        }
        Fault::QuitTwice => {
            let mut postgres = machines.postgres.lock().await;
            for _ in 0..2 {
                postgres.quit()?;
                tokio::time::sleep(lasts).await;
                postgres.restart().await?;
            }
        }
        Fault::KillAll => {
            name = "everything".to_owned();
            let mut postgres = machines.postgres.lock().await;
            let services = futures::future::join_all(machines.services.iter().map(|service| service.kill(lasts)));
            let postgres = async {
                postgres.crash().await?;
                tokio::time::sleep(lasts).await;
                postgres.restart().await
            };
            tokio::join!(services, postgres).1?;
        }
        Fault::KillOrchestrations | Fault::KillWorkers => {
            let kind = if fault == Fault::KillWorkers { Kind::Worker } else { Kind::Orchestration };
            name = format!("every {kind:?}");
            futures::future::join_all(machines.of(kind).map(|service| service.kill(lasts))).await;
        }
        Fault::KillStarting => {
            name = any.incarnation();
            for again in 0..4 {
                any.kill(Duration::ZERO).await;
                let started = any.started();
                while any.started() == started {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                tokio::time::sleep(Duration::from_millis((whom as u64 * 37 + again * 113) % 350)).await;
            }
        }
        Fault::KillStopping => {
            name = any.incarnation();
            any.kill_while_it_stops(Duration::from_millis(whom as u64 % 60), lasts).await;
        }
        Fault::Garbage => garbage(machines, ledger, whom).await?,
        Fault::FreezePostgres => {
            let postgres = machines.postgres.lock().await;
            let all = postgres.processes();
            signal_all(&all, Signal::SIGSTOP);
            tokio::time::sleep(lasts).await;
            signal_all(&all, Signal::SIGCONT);
        }
        Fault::KillBackend => signal_all(&[backend(machines, whom).await?], Signal::SIGKILL),
        Fault::FreezeBackend => {
            let frozen = [backend(machines, whom).await?];
            signal_all(&frozen, Signal::SIGSTOP);
            tokio::time::sleep(lasts).await;
            signal_all(&frozen, Signal::SIGCONT);
        }
        Fault::Terminate => {
            let sql = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                        where application_name like 'tasker-%' and pid % 2 = $1";
            let parity = i32::try_from(whom % 2)?;
            sqlx::query(sql).bind(parity).execute(&mut machines.connect().await?).await?;
        }
        Fault::Cut => any.proxy.cut(),
        Fault::HalfClose => any.proxy.half_close(),
        Fault::Deafen => any.proxy.deafen(),
        Fault::Silence => {
            any.proxy.silence(true);
            tokio::time::sleep(lasts).await;
            any.proxy.silence(false);
        }
        Fault::Refuse => {
            any.proxy.refuse(true);
            tokio::time::sleep(lasts).await;
            any.proxy.refuse(false);
        }
        Fault::Delay => {
            any.proxy.delay(Duration::from_millis(20 + (whom % 200) as u64));
            tokio::time::sleep(lasts).await;
            any.proxy.delay(Duration::ZERO);
        }
        Fault::LoseAnswers => any.proxy.lose_answers(1 + u32::try_from(whom % 3)?),
        Fault::StepClock => {
            let clocks = machines.clocks.as_ref().context("no clocks")?;
            let steps = [-86_400_000, -3_600_000, -5_000, 5_000, 90_000, 86_400_000];
            clocks.set(&any.name, *steps.get(whom % steps.len()).unwrap_or(&0))?;
            tokio::time::sleep(lasts).await;
        }
        Fault::Duplicate | Fault::Reorder => messages(machines, fault, whom).await?,
        Fault::Exhaust => exhaust(machines, lasts).await?,
        Fault::PinSnapshot | Fault::HoldLocks | Fault::LockTables => hold(machines, fault, lasts).await?,
        Fault::Readers => read(machines, lasts).await,
        Fault::SlowDisk => {
            let disk = machines.disk.as_ref().context("no such disk")?;
            let sync = Duration::from_millis(20 + (whom % 180) as u64);
            disk.set(sync, sync / 50)?;
            tokio::time::sleep(lasts).await;
            disk.set(Duration::ZERO, Duration::ZERO)?;
        }
        Fault::FillDisk => fill(machines, disk.context("no disk of its own")?, lasts).await?,
    }
    if matches!(fault, Fault::Cut | Fault::HalfClose | Fault::Deafen | Fault::Silence | Fault::Refuse) {
        name = any.incarnation();
    }
    Ok(Happened { fault, whom: name, began, over: SystemTime::now() })
}

/// Whoever has ended meanwhile needs no signal.
fn signal_all(processes: &[Pid], signal: Signal) {
    for process in processes {
        let _ = kill(*process, signal);
    }
}

fn pick(machines: &Machines, kind: Option<Kind>, whom: usize) -> Result<&Arc<Service>> {
    let all: Vec<_> = machines.services.iter().filter(|service| kind.is_none_or(|kind| kind == service.kind)).collect();
    all.get(whom % all.len().max(1)).copied().context("no such service")
}

/// Sends some messages again, or lets hidden ones be seen.
async fn messages(machines: &Machines, fault: Fault, whom: usize) -> Result<()> {
    let mut connection = machines.connect().await?;
    let queues: Vec<(String,)> =
        sqlx::query_as("select queue_name from pgmq.list_queues()").fetch_all(&mut connection).await?;
    for (queue,) in queues {
        let sql = match fault {
            Fault::Duplicate => format!(
                "insert into pgmq.q_{queue} (vt, message, headers)
                 select clock_timestamp() + random() * interval '2 seconds', message, headers from pgmq.q_{queue}
                  where msg_id % 3 = $1 and not message ? '{GARBAGE}' limit 50"
            ),
            _ => format!(
                "update pgmq.q_{queue} set vt = clock_timestamp() - random() * interval '1 hour'
                  where msg_id in (select msg_id from pgmq.q_{queue} where msg_id % 3 = $1 for update skip locked)"
            ),
        };
        sqlx::query(&sql).bind(i64::try_from(whom % 3)?).execute(&mut connection).await?;
    }
    Ok(())
}

/// Sends messages that nobody understands to every queue. Each says which it is.
async fn garbage(machines: &Machines, ledger: &Ledger, whom: usize) -> Result<()> {
    let mut connection = machines.connect().await?;
    let queues: Vec<(String,)> =
        sqlx::query_as("select queue_name from pgmq.list_queues()").fetch_all(&mut connection).await?;
    for (queue,) in queues {
        let says = format!("{queue} {}", TaskId::generate());
        let message = match whom % 4 {
            0 => serde_json::json!({ GARBAGE: says }),
            1 => serde_json::json!({ GARBAGE: says, "step_id": "none", "task_id": 7, "attempt": "first" }),
            2 => serde_json::json!({ GARBAGE: says, "step_id": null, "task_id": null, "attempt": -1 }),
            _ => serde_json::json!({ GARBAGE: says, "padding": "\u{1f980}".repeat(20_000) }),
        };
        ledger.garbage(&says, false);
        let sql = format!("insert into pgmq.q_{queue} (vt, message) values (clock_timestamp(), $1)");
        sqlx::query(&sql).bind(message).execute(&mut connection).await?;
        ledger.garbage(&says, true);
    }
    Ok(())
}

/// Takes connections until PostgreSQL gives no more, and holds them.
async fn exhaust(machines: &Machines, lasts: Duration) -> Result<()> {
    let until = Instant::now() + lasts;
    let mut held = Vec::new();
    while Instant::now() < until {
        match machines.connect().await {
            Ok(connection) => held.push(connection),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
        if held.len() > 150 {
            tokio::time::sleep_until(until).await;
        }
    }
    Ok(())
}

/// One of the processes that serve the services' connections.
async fn backend(machines: &Machines, whom: usize) -> Result<Pid> {
    let sql = "select pid from pg_stat_activity where application_name like 'tasker-%' order by pid";
    let all: Vec<i32> = sqlx::query_scalar(sql).fetch_all(&mut machines.connect().await?).await?;
    all.get(whom % all.len().max(1)).copied().map(Pid::from_raw).context("somebody is connected")
}

/// Begins a transaction and leaves it alone: with a snapshot, with the locks of some running tasks, or with whole tables.
async fn hold(machines: &Machines, fault: Fault, lasts: Duration) -> Result<()> {
    let mut connection = machines.connect().await?;
    let sql = match fault {
        Fault::HoldLocks => {
            "begin; select id from tasker.tasks where finished_at is null order by id limit 5 for update skip locked"
        }
        // whoever waits for whole tables holds up all who come after it, so it gives up soon
        Fault::LockTables => {
            "begin; set local lock_timeout = '1s'; lock table tasker.tasks, tasker.steps in access exclusive mode"
        }
        _ => "begin isolation level repeatable read; select count(*) from tasker.tasks",
    };
    tell(&mut connection, sql).await?;
    tokio::time::sleep(lasts).await;
    tell(&mut connection, "rollback").await
}

/// Reads whole tables, on two connections.
async fn read(machines: &Machines, lasts: Duration) {
    let one = "select count(*), max(s.at) from tasker.step_transitions s join tasker.tasks t on t.id = s.task_id";
    let two = "select state, count(*) from tasker.steps group by 1 order by 2";
    let both = async { tokio::join!(again(machines, one), again(machines, two)) };
    // a connection that breaks ends its reader
    let _ = tokio::time::timeout(lasts, both).await;
}

async fn again(machines: &Machines, sql: &'static str) -> Result<()> {
    let mut connection = machines.connect().await?;
    loop {
        tell(&mut connection, sql).await?;
    }
}

/// Runs statements without asking what they say.
async fn tell(connection: &mut PgConnection, sql: &'static str) -> Result<()> {
    connection.execute(sql).await?;
    Ok(())
}

/// Fills PostgreSQL's disk, makes room again, and starts what has ended meanwhile.
async fn fill(machines: &Machines, disk: &std::path::Path, lasts: Duration) -> Result<()> {
    let ballast = disk.join("ballast");
    let path = ballast.clone();
    let write = move || -> std::io::Result<()> {
        use std::io::Write as _;
        let mut file = std::fs::File::create(path)?;
        let piece = vec![0; 1 << 20];
        // the disk says when it is full
        while file.write_all(&piece).is_ok() {}
        let small = [0; 4096];
        while file.write_all(&small).is_ok() {}
        Ok(())
    };
    tokio::task::spawn_blocking(write).await??;
    tokio::time::sleep(lasts).await;
    std::fs::remove_file(&ballast)?;
    let mut postgres = machines.postgres.lock().await;
    if machines.connect().await.is_err() {
        postgres.restart().await?;
    }
    Ok(())
}
