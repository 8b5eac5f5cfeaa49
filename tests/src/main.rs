//! `tasker-tests`: what takes too long for `cargo test`.

use clap::{Parser, Subcommand};
use std::process::ExitCode;
use tasker_tests::soak;

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
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    match Args::parse().command {
        Command::Soak(settings) => soak::command(&settings).await,
    }
}
