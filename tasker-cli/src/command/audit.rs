//! `tasker audit …`.

use crate::{
    args::{AuditArgs, AuditCommand},
    error::Result,
    exit::Exit,
    shell::Shell,
    view,
};
use tasker_shared::api::AuditFilter;

pub(super) async fn run(command: AuditCommand, shell: &mut Shell) -> Result {
    let AuditCommand::List(args) = command;
    let AuditArgs { principal, action, outcome, since, limit, before } = args;
    let since = since.map(|age| shell.clock.now() - age);
    let filter = AuditFilter { principal, action, outcome, since, limit, before };
    let page = shell.client()?.audit(&filter).await?;
    shell.print(&page, |look| view::audit(&page, look))?;
    Ok(Exit::Ok)
}
