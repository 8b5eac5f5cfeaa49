//! `tasker bench`: throughput and latency on this machine, beside a raw floor that is measured in the same run.

mod cost;
mod floor;
mod load;
mod machine;

use crate::{
    args::BenchArgs,
    error::{Error, Result},
    exit::Exit,
    local::{Local, Settings},
    shell::Shell,
};
use machine::Machine;
use serde::Serialize;
use std::path::{Path, PathBuf};
use tasker_orchestration::{Orchestration, templates};
use tasker_shared::{api::ApplyTemplate, runtime::Signals};

/// What was measured.
#[derive(Debug, Serialize)]
struct Report {
    /// Steps that were completed each second, at saturation.
    steps_per_second: f64,
    /// Tasks that were completed each second, at saturation.
    tasks_per_second: f64,
    /// From submission to the completion event of a task that is alone.
    latency_ms: load::Latency,
    /// Transactions that PostgreSQL committed for each step, at saturation.
    transactions_per_step: f64,
    /// Steps each second with the same messages and row writes and nothing else; absent with `--no-floor`.
    #[serde(skip_serializing_if = "Option::is_none")]
    floor_steps_per_second: Option<f64>,
    /// The part of the floor that Tasker reaches; absent with `--no-floor`.
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<f64>,
    /// Steps of each task.
    steps: u16,
    /// Tasks that were open at once.
    open: usize,
    /// How long the load lasted, in seconds.
    seconds: f64,
    /// Where it was measured.
    machine: Machine,
}

/// Starts the system, puts load on it, and prints what it reached.
///
/// # Errors
/// What cannot be started, with what to do about it.
pub async fn run(args: BenchArgs, shell: &mut Shell) -> Result {
    if let Some(pairs) = args.telemetry {
        return cost::run(&args, pairs, shell).await;
    }
    let shutdown = Signals::listen()?;
    let (directory, fresh) = match &args.data_dir {
        Some(directory) => (directory.clone(), false),
        None => (std::env::temp_dir().join(format!("tasker-bench-{}", std::process::id())), true),
    };
    let settings = Settings::new(Some(directory.clone()), args.database_url.clone())
        .with("TASKER__ORCHESTRATION__HTTP_ADDRESS", "127.0.0.1:0")
        .with("TASKER__WORKER__HTTP_ADDRESS", "127.0.0.1:0");
    let local = Local::start(settings, shutdown).await?;
    let measured = measure(&local, &args, shell).await;
    let stopped = local.stop().await;
    if fresh {
        remove(&directory);
    }
    let report = measured?;
    stopped?;
    shell.print(&report, |_| text(&report))?;
    Ok(Exit::Ok)
}

async fn measure(local: &Local, args: &BenchArgs, shell: &mut Shell) -> Result<Report> {
    register(&local.orchestration, args.steps).await?;
    shell.remark("measuring latency: one task at a time")?;
    let latency = load::latency(&local.orchestration, args.samples).await?;
    shell.remark(&format!("measuring throughput: {} tasks open, for {:?}", args.open, args.duration))?;
    let load = load::saturate(local, args.open, args.duration, args.steps).await?;
    let floor = if args.no_floor {
        None
    } else {
        shell.remark("measuring the floor: the same messages and row writes, without Tasker")?;
        Some(floor::measure(local, args.duration / 2, args.steps).await?)
    };
    Ok(Report {
        steps_per_second: round(load.steps_per_second),
        tasks_per_second: round(load.steps_per_second / f64::from(args.steps)),
        latency_ms: latency,
        transactions_per_step: (load.transactions_per_step * 1000.0).round() / 1000.0,
        floor_steps_per_second: floor.map(round),
        ratio: floor.map(|floor| (load.steps_per_second / floor * 1000.0).round() / 1000.0),
        steps: args.steps,
        open: args.open,
        seconds: load.seconds,
        machine: Machine::look(local).await?,
    })
}

async fn register(orchestration: &Orchestration, steps: u16) -> Result<()> {
    let mut source =
        format!("name: {}\nnamespace_name: {}\nversion: \"{steps}\"\nsteps:\n", load::NAME, load::NAMESPACE);
    for step in 0..steps {
        let after = step.checked_sub(1).map(|before| format!(", dependencies: [step_{before}]")).unwrap_or_default();
        source.push_str(&format!("  - {{name: step_{step}, handler: {{callable: noop}}{after}}}\n"));
    }
    let request = ApplyTemplate { source, file: None };
    let applied = templates::apply(orchestration, &request).await;
    applied.map(drop).map_err(|error| Error::new(Exit::Broken, "template", error.to_string()))
}

fn remove(directory: &Path) {
    if let Err(error) = std::fs::remove_dir_all(directory) {
        eprintln!("failed to remove {}: {error}", PathBuf::from(directory).display());
    }
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn text(report: &Report) -> String {
    let latency = &report.latency_ms;
    let floor = match (report.floor_steps_per_second, report.ratio) {
        (Some(floor), Some(ratio)) => format!(
            "floor            {floor:.0} steps/s with the same messages and row writes alone; Tasker reaches {:.0} % of it\n",
            ratio * 100.0
        ),
        _ => String::new(),
    };
    format!(
        "throughput       {:.0} steps/s, {:.0} tasks/s of {} steps in a line, {} open at once, over {:.1} s\n\
         latency          p50 {:.2} ms, p90 {:.2} ms, p99 {:.2} ms, longest {:.2} ms, from submission to the end of one task alone ({} samples)\n\
         transactions     {:.3} for each step\n{floor}\
         machine          {}\n",
        report.steps_per_second,
        report.tasks_per_second,
        report.steps,
        report.open,
        report.seconds,
        latency.p50,
        latency.p90,
        latency.p99,
        latency.max,
        latency.samples,
        report.transactions_per_step,
        report.machine,
    )
}
