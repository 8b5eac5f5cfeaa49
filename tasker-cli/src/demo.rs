//! `tasker demo`: four workflows on this machine, shown while they run, with their results.

use crate::{
    args::DemoArgs,
    command::outcome,
    error::{Error, Result},
    examples,
    exit::Exit,
    local::{Local, Settings, output_directory},
    shell::Shell,
    view::{self, Live, Verdict},
};
use serde_json::{Value, json};
use std::{path::Path, time::Duration};
use tasker_shared::{
    api::{SubmitAnswer, TaskDetail},
    id::TaskId,
    runtime::Signals,
};

/// The longest that the workflows may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Starts the system, runs the examples and stops it again.
///
/// # Errors
/// What cannot be started, with what to do about it.
pub async fn run(args: DemoArgs, shell: &mut Shell) -> Result {
    let shutdown = Signals::listen()?;
    let settings = Settings::new(args.data_dir, args.database_url)
        .with("TASKER__ORCHESTRATION__HTTP_ADDRESS", "127.0.0.1:0")
        .with("TASKER__WORKER__HTTP_ADDRESS", "127.0.0.1:0");
    let directory = output_directory(&settings.data_dir, args.output)?;
    shell.remark("starting PostgreSQL, orchestration and a worker")?;
    let local = Local::start(settings, shutdown).await?;
    let outcome = show(&local, &directory, shell).await;
    let stopped = local.stop().await;
    let exit = outcome?;
    stopped?;
    Ok(exit)
}

async fn show(local: &Local, directory: &Path, shell: &mut Shell) -> Result {
    examples::register(&local.orchestration).await?;
    let (tasks, report) = examples::tasks(directory)?;
    let client = shell.client_of(local.url())?;
    let answers = client.submit_many(tasks).await?;
    let ids = answers.into_iter().map(accepted).collect::<Result<Vec<TaskId>>>()?;
    let mut live = (!shell.global.json).then(|| Live::new(shell.look(), shell.terminal));
    let follow = view::follow(&client, &ids, Some(PATIENCE), live.as_mut(), &mut *shell.out).await?;
    if follow.verdict == Verdict::Interrupted {
        return Ok(Exit::Interrupted);
    }
    let written = std::fs::read_to_string(&report).ok();
    shell.print(&json!({ "tasks": follow.tasks, "report": report, "report_text": written }), |_| {
        text(&follow.tasks, &report, written.as_deref())
    })?;
    Ok(outcome(&follow.tasks))
}

fn accepted(answer: SubmitAnswer) -> Result<TaskId> {
    match answer {
        SubmitAnswer::Accepted(submitted) => Ok(submitted.task_id),
        SubmitAnswer::Refused(problem) => Err(Error::new(Exit::Failed, &problem.kind, problem.title)),
    }
}

fn text(tasks: &[TaskDetail], path: &Path, report: Option<&str>) -> String {
    let mut text = String::from("\nResults\n");
    for task in tasks {
        let last = task.steps.last();
        let result = last.and_then(|step| step.result.as_ref()).map_or_else(|| "none".to_owned(), short);
        text.push_str(&format!("  {}/{}: {result}\n", task.summary.namespace, task.summary.name));
    }
    if let Some(report) = report {
        text.push_str(&format!("\n{report}\n\nThe report is in {}\n", path.display()));
    }
    text.push_str(
        "\nWhere to look next\n  \
         tasker dev                 the same system, which stays\n  \
         examples/templates/        the four workflows\n  \
         tasker task list           after `tasker dev`: these tasks and all others\n  \
         tasker --help              everything else\n",
    );
    text
}

/// A result on one line, its long parts left out.
fn short(result: &Value) -> String {
    match result {
        Value::Object(fields) => {
            let shown = fields.iter().map(|(key, value)| match value {
                Value::Object(_) | Value::Array(_) => format!("{key}: …"),
                value => format!("{key}: {value}"),
            });
            shown.collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}
