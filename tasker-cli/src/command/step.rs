//! `tasker step …`.

use super::act;
use crate::{
    args::StepCommand,
    error::{Error, Result},
    exit::Exit,
    shell::Shell,
    view,
};
use serde_json::json;
use tasker_shared::{
    api::{History, TaskDetail},
    id::TaskId,
};

pub(super) async fn run(command: StepCommand, shell: &mut Shell) -> Result {
    match command {
        StepCommand::Show { task, step } => show(task, &step, shell).await,
        StepCommand::Retry(args) => act::retry_step(args, shell).await,
        StepCommand::Cancel(args) => act::cancel_step(args, shell).await,
        StepCommand::Resolve(args) => act::resolve_step(args, shell).await,
    }
}

async fn show(task: TaskId, name: &str, shell: &mut Shell) -> Result {
    let client = shell.client()?;
    let task = client.task(task).await?;
    let step = task.steps.iter().find(|step| step.name == name).ok_or_else(|| unknown(&task, name))?;
    let past = client.history(task.summary.task_id).await?;
    let own = past.transitions.into_iter().filter(|transition| transition.step.as_deref() == Some(name)).collect();
    let past = History { transitions: own };
    let mut whole = json!(step);
    whole["task_id"] = json!(task.summary.task_id);
    whole["history"] = json!(past.transitions);
    shell.print(&whole, |look| view::step(&task, step, &past, look))?;
    Ok(Exit::Ok)
}

fn unknown(task: &TaskDetail, name: &str) -> Error {
    let names: Vec<_> = task.steps.iter().map(|step| step.name.as_str()).collect();
    Error::new(Exit::NotFound, "step_not_found", format!("task {} has no step `{name}`", task.summary.task_id))
        .advise(format!("its steps are {}", names.join(", ")))
}
