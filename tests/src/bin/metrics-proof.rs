//! Proves the metrics with a real Prometheus, for as many tasks as are asked for.
//!
//! ```sh
//! cargo run --release --bin metrics-proof -- --prometheus http://127.0.0.1:9090
//! ```
//!
//! The Prometheus must receive OTLP (`--web.enable-otlp-receiver`). The exit code is 1 when a check fails.

use anyhow::Result;
use clap::Parser;
use std::{process::ExitCode, time::Duration};
use tasker_tests::proof::{Onwards, Proof};

#[derive(Debug, Parser)]
#[command(about = "Runs many tasks and proves what Prometheus then says of them")]
struct Args {
    /// A Prometheus that receives OTLP.
    #[arg(long, value_name = "URL")]
    prometheus: String,
    /// Where the samples go on: a collector, or that Prometheus itself.
    #[arg(long, value_name = "URL")]
    otlp: Option<String>,
    /// How many tasks run.
    #[arg(long, default_value_t = 20_000)]
    tasks: usize,
    /// How many tasks are submitted in a second; as many as can be without it.
    #[arg(long)]
    rate: Option<f64>,
    /// How many steps each task has, one after the other.
    #[arg(long, default_value_t = 4)]
    steps: usize,
    /// The time between two exports.
    #[arg(long, value_name = "MS", default_value_t = 60_000)]
    interval_ms: u64,
    /// How many of the newest tasks have series of their own.
    #[arg(long, default_value_t = 1_000)]
    ids: usize,
    /// The most resident memory of each service.
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    memory_mib: u64,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let otlp = args.otlp.unwrap_or_else(|| format!("{}/api/v1/otlp", args.prometheus));
    let proof = Proof {
        prometheus: args.prometheus,
        onwards: Onwards::Otlp(otlp),
        tasks: args.tasks,
        rate: args.rate,
        steps: args.steps,
        interval: Duration::from_millis(args.interval_ms),
        ids: args.ids,
        memory_mib: args.memory_mib,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let findings = runtime.block_on(proof.prove())?;
    Ok(if findings.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
