//! `tasker-tests`: what takes too long for `cargo test`.

use clap::{Parser, Subcommand};
use std::process::ExitCode;
use tasker_tests::{interleave, model, soak};

/// Long tests of the whole system; build the programs first: `cargo build --release --workspace`
#[derive(Debug, Parser)]
#[command(name = "tasker-tests", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run many steps with retention on, and judge whether latency, sizes and memory stay flat
    Soak(soak::Settings),
    /// Tell random stories, and compare the system with an oracle after each operation
    Model(model::Options),
    /// Try the orders in which transactions can meet, one after the other
    Interleave(interleave::Options),
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    match Args::parse().command {
        Command::Soak(settings) => soak::command(&settings).await,
        Command::Model(options) => {
            let report = model::run(&options).await?;
            println!("{report}");
            report.uncovered().iter().for_each(|transition| println!("never taken: {transition}"));
            Ok(ExitCode::SUCCESS)
        }
        Command::Interleave(options) => {
            println!("{}", interleave::run(&options).await?);
            Ok(ExitCode::SUCCESS)
        }
    }
}
