//! The `tasker` command: parse, run, exit.

use clap::Parser as _;
use std::{process::ExitCode, time::Duration};
use tasker_cli::{args::Args, shell::Shell};

/// How long tasks and threads that are left at the end may take.
const LEFTOVERS: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let args = Args::parse();
    // A provider that is installed already is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut shell = Shell::of_process(args.global.clone());
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => {
            let exit = runtime.block_on(tasker_cli::run(args.command, &mut shell));
            // a thread that is blocked, by a handler or by reading, must not keep the process
            runtime.shutdown_timeout(LEFTOVERS);
            exit.into()
        }
        Err(error) => {
            shell.fail(&tasker_cli::error::Error::from(error));
            tasker_cli::exit::Exit::Broken.into()
        }
    }
}
