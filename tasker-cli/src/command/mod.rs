//! What the commands do: ask the service, and print what it answers.

mod act;
mod completions;
mod config;
mod db;
mod dlq;
mod health;
mod metrics;
mod step;
mod submit;
mod task;
mod template;
mod template_file;
#[cfg(test)]
mod tests;
mod watch;
mod worker;

pub use template::register_files;
pub use watch::outcome;

use crate::{args::Command, error::Result, shell::Shell};
use serde_json::Value;
use std::path::Path;

/// Runs one command.
///
/// # Errors
/// Whatever keeps it from doing what was asked, with its exit code.
pub async fn run(command: Command, shell: &mut Shell) -> Result {
    match command {
        Command::Dev(args) => crate::dev::run(args, shell).await,
        Command::Demo(args) => crate::demo::run(args, shell).await,
        Command::Bench(args) => crate::bench::run(args, shell).await,
        Command::Task(command) => task::run(command, shell).await,
        Command::Step(command) => step::run(command, shell).await,
        Command::Dlq(command) => dlq::run(command, shell).await,
        Command::Limit(command) => dlq::limit(command, shell).await,
        Command::Template(command) => template::run(command, shell).await,
        Command::Worker(command) => worker::run(command, shell).await,
        Command::Db(command) => db::run(command, shell).await,
        Command::Config(command) => config::run(command, shell),
        Command::Metrics(command) => metrics::run(command, shell).await,
        Command::Health => health::run(shell).await,
        Command::Completions { shell: kind } => completions::run(kind, shell),
    }
}

/// JSON from the command line: written there, `@FILE`, or `-` for the standard input.
fn json(text: &str, option: &str, shell: &mut Shell) -> Result<Value> {
    use crate::error::Error;
    let (source, text) = match text.strip_prefix('@') {
        Some(file) => (file, shell.read(Path::new(file))?),
        None if text == "-" => ("standard input", shell.read(Path::new("-"))?),
        None => (option, text.to_owned()),
    };
    serde_json::from_str(&text).map_err(|error| {
        Error::usage(format!("{source} is not JSON: {error}"))
            .advise(format!("{option} takes JSON like '{{\"id\": 1}}', @FILE, or - for the standard input"))
    })
}
