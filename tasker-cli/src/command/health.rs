//! `tasker health`.

use crate::{error::Result, exit::Exit, shell::Shell, view};

pub(super) async fn run(shell: &mut Shell) -> Result {
    let client = shell.client()?;
    let health = client.health().await?;
    shell.print(&health, |look| view::health(&health, client.url(), look))?;
    Ok(if health.status == "healthy" { Exit::Ok } else { Exit::Failed })
}
