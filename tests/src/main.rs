//! `tasker-tests chaos`: long runs of the chaos suite, by command.

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use std::{path::PathBuf, process::ExitCode, time::Duration};
use tasker_tests::chaos::{
    self, Options,
    scenario::{SCENARIOS, Scenario, named},
};

/// Tests of the whole system that last longer than a test should.
#[derive(Debug, Parser)]
#[command(name = "tasker-tests", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Break things from a seed, and check that every promise was kept.
    Chaos(Chaos),
    /// The worker that `chaos` starts.
    #[command(hide = true)]
    Worker,
}

#[derive(Debug, clap::Args)]
struct Chaos {
    /// The first seed; printed with every run.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds, one after the other.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// One scenario; all of them when not given. `list` lists them.
    #[arg(long)]
    scenario: Option<String>,
    /// The time of all runs together, without their ends.
    #[arg(long, default_value_t = 10.0, conflicts_with = "seconds")]
    minutes: f64,
    /// The time of each run, without its end.
    #[arg(long)]
    seconds: Option<u64>,
    /// How many tasks each run submits; by the scenario when not given.
    #[arg(long)]
    tasks: Option<usize>,
    /// How many orchestrations, and how many workers.
    #[arg(long, default_value_t = 2)]
    services: usize,
    /// Where to write the reports as JSON.
    #[arg(long)]
    out: Option<PathBuf>,
}

fn main() -> Result<ExitCode> {
    match Arguments::parse().command {
        Command::Worker => Ok(chaos::worker::run()),
        Command::Chaos(arguments) => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(run(arguments))
        }
    }
}

async fn run(arguments: Chaos) -> Result<ExitCode> {
    let scenarios: Vec<Scenario> = match arguments.scenario.as_deref() {
        None => SCENARIOS.to_vec(),
        Some("list") => {
            SCENARIOS.iter().for_each(|scenario| println!("{:<24} {}", scenario.name, scenario.about));
            return Ok(ExitCode::SUCCESS);
        }
        Some(name) => vec![named(name).with_context(|| format!("no scenario `{name}`; see --scenario list"))?],
    };
    let runs = scenarios.len() as f64 * arguments.seeds as f64;
    let share = Duration::from_secs_f64((arguments.minutes * 60.0 / runs).max(5.0).floor());
    let lasts = arguments.seconds.map_or(share, Duration::from_secs);
    let mut reports = Vec::new();
    for seed in arguments.seed..arguments.seed + arguments.seeds {
        for scenario in &scenarios {
            let (tasks, services) = (arguments.tasks, arguments.services.max(1));
            let report = chaos::run(&Options { seed, scenario: *scenario, lasts, tasks, services }).await?;
            println!("{report}");
            reports.push(report);
            if let Some(path) = &arguments.out {
                std::fs::write(path, serde_json::to_string_pretty(&reports)?)?;
            }
        }
    }
    let ran: Vec<_> = reports.iter().filter(|report| report.skipped.is_none()).collect();
    let broken: usize = ran.iter().map(|report| report.violations.len()).sum();
    println!(
        "{} runs ({} skipped), {} tasks, {} steps, {} faults, {broken} broken promises",
        ran.len(),
        reports.len() - ran.len(),
        ran.iter().map(|report| report.tasks).sum::<usize>(),
        ran.iter().map(|report| report.steps).sum::<usize>(),
        ran.iter().flat_map(|report| report.faults.values()).sum::<usize>(),
    );
    Ok(if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
