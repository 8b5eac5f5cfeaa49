//! One run, from the plan to the verdict.

use super::{
    archive,
    checker::{self, Promise, Violations, facts::Facts},
    clock::Clocks,
    disk::SlowDisk,
    effects::Effects,
    faults,
    ledger::Ledger,
    load,
    machines::{Machines, Setup},
    outside,
    plan::Plan,
    report::Report,
    scenario::{Counts, Needs, Scenario},
};
use anyhow::{Context, Result};
use sqlx::PgConnection;
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

/// How long the whole system may complete nothing before what is open counts as lost.
const PATIENCE: Duration = Duration::from_secs(60);

/// The same under overload, where much has to be done before the last is accepted.
const OVERLOADED: Duration = Duration::from_secs(300);

/// How many tasks are submitted at once to measure what the machines can do.
const CROWD: usize = 600;

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The seed.
    pub seed: u64,
    /// The scenario.
    pub scenario: Scenario,
    /// How long tasks are submitted and faults happen.
    pub lasts: Duration,
    /// How many tasks; by the scenario when not given.
    pub tasks: Option<usize>,
    /// How many of each service.
    pub services: usize,
    /// Whether the files of the run are kept in any case.
    pub keep: bool,
}

/// Runs a scenario and judges it.
///
/// # Errors
/// The machines cannot be started, or the suite itself fails. What the system does wrong is in the report.
pub async fn run(options: &Options) -> Result<Report> {
    let Options { seed, scenario, lasts, .. } = *options;
    let mut capacity = None;
    let mut rate = scenario.tasks_per_second;
    if let (None, Some(times)) = (options.tasks, scenario.overload) {
        let plan = Arc::new(Plan::throw(seed, scenario, Duration::from_secs(1), CROWD));
        let report = carried_out(options, CROWD, &plan).await?;
        if !report.is_well() {
            return Ok(report);
        }
        capacity = Some(report.tasks_per_second);
        rate = report.tasks_per_second * times;
    }
    let tasks = options.tasks.unwrap_or((rate * lasts.as_secs_f64()) as usize);
    let plan = Arc::new(Plan::throw(seed, scenario, lasts, tasks));
    println!("{plan}");
    let mut report = carried_out(options, tasks, &plan).await?;
    report.capacity = capacity;
    Ok(report)
}

async fn carried_out(options: &Options, tasks: usize, plan: &Arc<Plan>) -> Result<Report> {
    let Options { seed, scenario, .. } = *options;
    let directory = tempfile::Builder::new().prefix("tasker-chaos-").tempdir()?;
    open_to_all(directory.path())?;
    let stage = match Prepared::new(directory.path(), scenario) {
        Ok(stage) => stage,
        Err(why) => return Ok(Report::skipped(scenario.name, seed, format!("{why:#}"))),
    };
    let report = judged(options, tasks, plan, &stage).await;
    drop(stage);
    if options.keep || report.as_ref().is_ok_and(|report| !report.is_well()) {
        println!("what the run left is kept in {}", directory.keep().display());
    }
    report
}

async fn judged(options: &Options, tasks: usize, plan: &Arc<Plan>, stage: &Prepared) -> Result<Report> {
    let (scenario, services) = (options.scenario, options.services);
    let machines = Machines::start(stage.setup(services, scenario)).await?;
    let effects = stage.effects.display().to_string();
    let outside = outside::serve(&stage.effects).await?;
    load::register(&machines, plan, &effects, &outside).await?;
    let ledger = Arc::new(Ledger::default());
    let began = Instant::now();
    let deadline = began + plan.lasts + if scenario.overload.is_some() { OVERLOADED } else { PATIENCE };
    let loading =
        tokio::spawn(load::run(Arc::clone(&machines), Arc::clone(plan), Arc::clone(&ledger), began, deadline));
    let disk = stage.small_disk.as_ref().map(|disk| disk.0.clone());
    let happened = faults::run(Arc::clone(&machines), Arc::clone(plan), Arc::clone(&ledger), disk, began).await;
    machines.services.iter().for_each(|service| service.proxy.heal());
    loading.await?;
    let open = settle(&machines).await?;
    let took = began.elapsed();
    let mut found = Violations::default();
    let counted = if open == 0 { Some(counted(&machines).await?) } else { None };
    machines.drain().await;
    let mut connection = machines.connect().await?;
    let archived = match scenario.keeps {
        Some(kept) => archive::bring_back(&mut connection, kept, &mut found).await?,
        None => 0,
    };
    if let Some(counted) = counted {
        compare(&counted, &mut connection, scenario.counts, &mut found).await?;
    }
    let facts = Facts::read(&mut connection).await?;
    checker::sql::check(&mut connection, &mut found).await?;
    drop(connection);
    let ledger = ledger.entries();
    found.0.extend(checker::judge(&facts, &ledger, &plan.graphs, &Effects::read(&stage.effects)?));
    for noted in machines.noted() {
        found.unless(false, Promise::Services, || noted);
    }
    machines.stop_postgres().await?;
    let replay = format!(
        "tasker-tests chaos --seed {} --scenario {} --seconds {} --tasks {tasks} --services {services}",
        plan.seed,
        scenario.name,
        plan.lasts.as_secs()
    );
    Ok(Report { archived, ..Report::of(plan, replay, took, &facts, &ledger, &happened, &found.0) })
}

/// Waits until every task has ended and every queue is empty, as long as something moves; how many tasks are open then.
async fn settle(machines: &Machines) -> Result<i64> {
    let mut last = (Instant::now(), -1);
    let mut refused = 0;
    loop {
        let looked = async {
            load::resume_all(machines).await?;
            look(&mut machines.connect().await?).await
        };
        match looked.await {
            Ok((0, 0, _)) => return Ok(0),
            Ok((open, _, moves)) => {
                if moves != last.1 {
                    last = (Instant::now(), moves);
                }
                if last.0.elapsed() > PATIENCE {
                    return Ok(open);
                }
            }
            Err(error) => {
                refused += 1;
                anyhow::ensure!(refused < 300, "the system does not come back: {error:#}");
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Open tasks, messages and permits, and moves so far.
async fn look(connection: &mut PgConnection) -> Result<(i64, i64, i64)> {
    let (open, moves): (i64, i64) = sqlx::query_as(
        "select (select count(*) from tasker.tasks where finished_at is null), (select last_value from tasker.transition_id)",
    )
    .fetch_one(&mut *connection)
    .await?;
    let queues: Vec<(String,)> =
        sqlx::query_as("select queue_name from pgmq.list_queues()").fetch_all(&mut *connection).await?;
    // what holds or waits for a permit is not over
    let mut messages: i64 =
        sqlx::query_scalar("select (select count(*) from tasker.permits) + (select count(*) from tasker.permit_waits)")
            .fetch_one(&mut *connection)
            .await?;
    for (queue,) in queues {
        let sql = format!("select count(*) from pgmq.q_{queue}");
        let there: i64 = sqlx::query_scalar(&sql).fetch_one(&mut *connection).await?;
        messages += there;
    }
    Ok((open, messages, moves))
}

/// What the services counted, over all of them.
async fn counted(machines: &Machines) -> Result<HashMap<String, f64>> {
    let mut sums: HashMap<String, f64> = HashMap::new();
    let http = reqwest::Client::new();
    for service in &machines.services {
        let url = service.url().with_context(|| format!("{} answers", service.name))?;
        let text = http.get(format!("{url}/metrics")).send().await?.text().await?;
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let name = series.split('{').next().unwrap_or_default();
            let name = if series.contains("to=\"reported\"") { format!("{name} reported") } else { name.to_owned() };
            *sums.entry(name).or_default() += value.parse().unwrap_or(0.0);
        }
    }
    Ok(sums)
}

/// Compares what the services counted with the database.
async fn compare(
    sums: &HashMap<String, f64>,
    connection: &mut PgConnection,
    how: Counts,
    found: &mut Violations,
) -> Result<()> {
    for (series, sql) in [
        ("tasker_tasks_completions_total", "select count(*) from tasker.task_transitions where to_state = 'complete'"),
        ("tasker_tasks_requests_total", "select count(*) from tasker.tasks"),
        ("tasker_steps_claimed_total", "select count(*) from tasker.step_transitions where to_state = 'in_progress'"),
        (
            "tasker_steps_transitions_total reported",
            "select count(*) from tasker.step_transitions where to_state = 'reported'",
        ),
    ] {
        let stored: i64 = sqlx::query_scalar(sql).fetch_one(&mut *connection).await?;
        let (stored, counted) = (stored as f64, sums.get(series).copied().unwrap_or(0.0));
        let agrees = if how == Counts::Exact { counted == stored } else { counted <= stored };
        found.unless(agrees, Promise::Counts, || {
            format!("{series} is {counted} over all services, and {stored} are stored")
        });
    }
    Ok(())
}

/// What a scenario needs of this machine.
struct Prepared {
    data: PathBuf,
    effects: PathBuf,
    logs: PathBuf,
    small_disk: Option<SmallDisk>,
    slow_disk: Option<SlowDisk>,
    clocks: Option<Clocks>,
}

impl Prepared {
    fn new(directory: &Path, scenario: Scenario) -> Result<Self> {
        let effects = directory.join("effects");
        let logs = directory.join("logs");
        std::fs::create_dir(&effects)?;
        std::fs::create_dir(&logs)?;
        let data = directory.join("postgres");
        let mut prepared = Self { data, effects, logs, small_disk: None, slow_disk: None, clocks: None };
        match scenario.needs {
            Needs::SmallDisk => {
                let disk = SmallDisk::mount(&directory.join("disk"))?;
                prepared.data = disk.0.join("postgres");
                prepared.small_disk = Some(disk);
            }
            Needs::Clocks => prepared.clocks = Some(Clocks::build(directory)?),
            Needs::SlowDisk => prepared.slow_disk = Some(SlowDisk::build(directory)?),
            Needs::Nothing | Needs::FewConnections => {}
        }
        Ok(prepared)
    }

    fn setup(&self, services: usize, scenario: Scenario) -> Setup {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let few = services * 2 * 6 + 12;
        let postgres = match scenario.needs {
            Needs::FewConnections => vec![("max_connections".to_owned(), few.to_string())],
            Needs::SmallDisk => {
                vec![pair("shared_buffers", "16MB"), pair("max_wal_size", "48MB"), pair("min_wal_size", "32MB")]
            }
            _ => Vec::new(),
        };
        Setup {
            orchestrations: services,
            workers: services,
            postgres,
            settings: scenario.keeps.map(archive::settings).unwrap_or_default(),
            data: self.data.clone(),
            effects: self.effects.clone(),
            logs: self.logs.clone(),
            clocks: self.clocks.clone(),
            disk: self.slow_disk.clone(),
        }
    }
}

/// A small file system in memory.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Result<Self> {
        std::fs::create_dir(at)?;
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=256m,mode=755", "tmpfs"]).arg(at).output()?;
        anyhow::ensure!(
            mount.status.success(),
            "a small file system cannot be mounted (needs root): {}",
            String::from_utf8_lossy(&mount.stderr).trim()
        );
        Ok(Self(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// PostgreSQL may run as another account than ours.
fn open_to_all(directory: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755))?)
}
