//! The `tasker` command: parse, run, exit.

use clap::Parser as _;
use std::process::ExitCode;
use tasker_cli::{args::Args, shell::Shell};

fn main() -> ExitCode {
    let args = Args::parse();
    // A provider that is installed already is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut shell = Shell::of_process(args.global.clone());
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(tasker_cli::run(args.command, &mut shell)).into(),
        Err(error) => {
            shell.fail(&tasker_cli::error::Error::from(error));
            tasker_cli::exit::Exit::Broken.into()
        }
    }
}
