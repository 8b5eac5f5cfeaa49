//! The command `tasker-tests chaos`: which scenarios and seeds, for how long.

use super::{
    Options, run,
    scenario::{SCENARIOS, Scenario, named},
};
use anyhow::{Context, Result};
use std::{path::PathBuf, process::ExitCode, time::Duration};

/// What to run.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// The first seed; printed with every run.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How many seeds, one after the other.
    #[arg(long, default_value_t = 1)]
    pub seeds: u64,
    /// One scenario; all of them when not given. `list` lists them.
    #[arg(long)]
    pub scenario: Option<String>,
    /// The time of all runs together, without their ends.
    #[arg(long, default_value_t = 10.0, conflicts_with = "seconds")]
    pub minutes: f64,
    /// The time of each run, without its end.
    #[arg(long)]
    pub seconds: Option<u64>,
    /// How many tasks each run submits; by the scenario when not given.
    #[arg(long)]
    pub tasks: Option<usize>,
    /// How many orchestrations, and how many workers.
    #[arg(long, default_value_t = 2)]
    pub services: usize,
    /// Keep the files of every run, with what its services said; otherwise of those that broke a promise.
    #[arg(long)]
    pub keep: bool,
    /// Where to write the reports as JSON.
    #[arg(long)]
    pub out: Option<PathBuf>,
}

/// Runs scenarios and seeds, prints their reports and a sum; the exit code says whether every promise was kept.
///
/// # Errors
/// The suite itself fails.
pub async fn command(arguments: &Settings) -> Result<ExitCode> {
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
            let report =
                run(&Options { seed, scenario: *scenario, lasts, tasks, services, keep: arguments.keep }).await?;
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
