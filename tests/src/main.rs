//! Long tests by command: what the ordinary tests run for a short time, for as long as one likes.

use clap::{Parser, Subcommand};
use std::process::ExitCode;
use tasker_tests::{interleave, model};

/// Long tests of Tasker, each repeated by its seed.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Random stories, compared with an oracle after each operation.
    Model(model::Options),
    /// The orders in which transactions can meet, one after the other.
    Interleave(interleave::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Model(options) => model::run(&options).await.map(|report| {
            println!("{report}");
            report.uncovered().iter().for_each(|transition| println!("never taken: {transition}"));
        }),
        Command::Interleave(options) => interleave::run(&options).await.map(|report| println!("{report}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
