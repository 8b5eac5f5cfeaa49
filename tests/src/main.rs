//! `tasker-tests`: what takes too long for `cargo test`.

use clap::{Parser, Subcommand};
use std::process::ExitCode;
use tasker_tests::{booker, chaos, interleave, model, soak};

/// Long tests of the whole system; build the programs first: `cargo build --release --workspace`
#[derive(Debug, Parser)]
#[command(name = "tasker-tests", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Break things from a seed, and check that every promise was kept
    Chaos(chaos::Settings),
    /// Run many steps with retention on, and judge whether latency, sizes and memory stay flat
    Soak(soak::Settings),
    /// Tell random stories, and compare the system with an oracle after each operation
    Model(model::Options),
    /// Try the orders in which transactions can meet, one after the other
    Interleave(interleave::Options),
    /// The worker that `chaos` starts
    #[command(hide = true)]
    Worker,
    /// The worker of the tests of exactly-once writes
    #[command(hide = true)]
    Booker,
}

fn main() -> anyhow::Result<ExitCode> {
    let command = match Args::parse().command {
        // they bring a runtime of their own, as every service does
        Command::Worker => return Ok(chaos::worker::run()),
        Command::Booker => return Ok(booker::run()),
        command => command,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(command))
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Chaos(settings) => return chaos::command(&settings).await,
        Command::Soak(settings) => return soak::command(&settings).await,
        Command::Model(options) => {
            let report = model::run(&options).await?;
            println!("{report}");
            report.uncovered().iter().for_each(|transition| println!("never taken: {transition}"));
        }
        Command::Interleave(options) => println!("{}", interleave::run(&options).await?),
        Command::Worker | Command::Booker => {}
    }
    Ok(ExitCode::SUCCESS)
}
