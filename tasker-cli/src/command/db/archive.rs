//! `tasker db archive …`: tasks that were removed.

use crate::{
    args::ArchiveCommand,
    error::{Error, Result},
    exit::Exit,
    shell::Shell,
    view::{Cell, Look, Table, task_tone},
};
use serde_json::json;
use tasker_shared::storage::retention::{self, Archived};

pub(super) async fn run(command: ArchiveCommand, shell: &mut Shell) -> Result {
    match command {
        ArchiveCommand::List { database, namespace, limit } => {
            let database = super::connect(database, shell).await?;
            let mut session = database.session("archive").await?;
            let tasks = retention::list(&mut session, namespace.as_deref(), limit).await?;
            shell.print(&json!({ "tasks": tasks }), |look| table(&tasks, look))?;
        }
        ArchiveCommand::Show { database, id } => {
            let database = super::connect(database, shell).await?;
            let rows = retention::show(&mut database.session("archive").await?, id).await?;
            if rows.is_empty() {
                return Err(Error::new(Exit::NotFound, "not_archived", format!("task {id} is not in the archive"))
                    .advise(
                        "`tasker db archive list` shows what is; tasks that were not removed are in `tasker task list`",
                    ));
            }
            shell.print(&json!({ "rows": rows }), |_| {
                rows.iter().map(|row| format!("{:<17} {}", row.source, row.document)).collect::<Vec<_>>().join("\n")
            })?;
        }
    }
    Ok(Exit::Ok)
}

fn table(tasks: &[Archived], look: &Look) -> String {
    if tasks.is_empty() {
        return "no archived tasks; `retention.archive` says whether there will be any".to_owned();
    }
    let mut table = Table::new(look, ["TASK", "TEMPLATE", "STATE", "FINISHED", "ARCHIVED"], &[]);
    for task in tasks {
        table.row([
            task.id.to_string().into(),
            format!("{}/{}@{}", task.namespace, task.name, task.version).into(),
            Cell::toned(task_tone(task.state), task.state.as_str()),
            look.clock.relative(task.finished_at).into(),
            look.clock.relative(task.archived_at).into(),
        ]);
    }
    table.draw()
}
