//! `tasker task …`.

use super::{act, submit, watch};
use crate::{
    args::{ListArgs, TaskCommand},
    error::Result,
    exit::Exit,
    shell::Shell,
    view,
};
use serde_json::json;
use tasker_shared::{api::TaskFilter, id::TaskId};

pub(super) async fn run(command: TaskCommand, shell: &mut Shell) -> Result {
    match command {
        TaskCommand::Submit(args) => submit::run(*args, shell).await,
        TaskCommand::List(args) => list(args, shell).await,
        TaskCommand::Show { task, history } => show(task, history, shell).await,
        TaskCommand::Watch(args) => watch::one(&shell.client()?, args.task, args.timeout, shell).await,
        TaskCommand::Explain { task } => explain(task, shell).await,
        TaskCommand::Cancel(args) => act::task(act::Verb::Cancel, args, shell).await,
        TaskCommand::Pause(args) => act::task(act::Verb::Pause, args, shell).await,
        TaskCommand::Resume(args) => act::task(act::Verb::Resume, args, shell).await,
        TaskCommand::Retry(args) => act::task(act::Verb::Retry, args, shell).await,
        TaskCommand::Resolve(args) => act::task(act::Verb::Resolve, args, shell).await,
    }
}

async fn list(args: ListArgs, shell: &mut Shell) -> Result {
    let ListArgs { state, namespace, name, tag, correlation_id, limit, before } = args;
    let filter = TaskFilter { state, namespace, name, tag, correlation_id, limit, before };
    let page = shell.client()?.tasks(&filter).await?;
    shell.print(&page, |look| view::list(&page, look))?;
    Ok(Exit::Ok)
}

async fn show(task: TaskId, history: bool, shell: &mut Shell) -> Result {
    let client = shell.client()?;
    let task = client.task(task).await?;
    if !history {
        shell.print(&task, |look| view::overview(&task, look))?;
        return Ok(Exit::Ok);
    }
    let past = client.history(task.summary.task_id).await?;
    let mut whole = json!(task);
    whole["history"] = json!(past.transitions);
    shell.print(&whole, |look| format!("{}\n\n{}", view::overview(&task, look), view::history(&past, look)))?;
    Ok(Exit::Ok)
}

async fn explain(task: TaskId, shell: &mut Shell) -> Result {
    let explanation = shell.client()?.explain(task).await?;
    shell.print(&explanation, |look| view::explanation(&explanation, look))?;
    Ok(Exit::Ok)
}
