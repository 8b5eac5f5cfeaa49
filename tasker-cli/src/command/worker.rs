//! `tasker worker …`.

use crate::{args::WorkerCommand, error::Result, exit::Exit, shell::Shell, view};

pub(super) async fn run(command: WorkerCommand, shell: &mut Shell) -> Result {
    match command {
        WorkerCommand::List => {
            let list = shell.client()?.workers().await?;
            shell.print(&list, |look| view::workers(&list, look))?;
            Ok(Exit::Ok)
        }
    }
}
