//! `tasker completions`.

use crate::{args::Args, error::Result, exit::Exit, shell::Shell};
use clap::CommandFactory as _;

pub(super) fn run(kind: clap_complete::Shell, shell: &mut Shell) -> Result {
    let mut script = Vec::new();
    clap_complete::generate(kind, &mut Args::command(), "tasker", &mut script);
    shell.out.write_all(&script)?;
    shell.out.flush()?;
    Ok(Exit::Ok)
}
