//! `tasker task submit`: one task or many, followed or not.

use super::{json, watch};
use crate::{
    args::SubmitArgs,
    error::{Error, Result},
    exit::Exit,
    shell::Shell,
    view,
};
use serde_json::{Value, json};
use std::path::Path;
use tasker_client::Client;
use tasker_shared::{
    api::{SubmitAnswer, SubmitAnswers, SubmitTask, Submitted},
    id::TaskId,
};

/// How many tasks go into one request at most.
const BATCH: usize = 500;
/// How many bytes of tasks go into one request, unless a single one has more.
const BATCH_BYTES: usize = 1 << 20;

pub(super) async fn run(args: SubmitArgs, shell: &mut Shell) -> Result {
    match &args.file {
        Some(file) => many(file, &args, shell).await,
        None => one(&args, shell).await,
    }
}

async fn one(args: &SubmitArgs, shell: &mut Shell) -> Result {
    let client = shell.client()?;
    let submitted = client.submit(&request(args, shell)?).await?;
    if args.wait {
        return follow(&client, &submitted, args, shell).await;
    }
    shell.print(&submitted, |look| {
        format!("{}\nfollow it: tasker task watch {}", view::submitted(&submitted, look), submitted.task_id)
    })?;
    Ok(Exit::Ok)
}

async fn follow(client: &Client, submitted: &Submitted, args: &SubmitArgs, shell: &mut Shell) -> Result {
    if shell.terminal {
        shell.remark(&view::submitted(submitted, &shell.look()))?;
    }
    watch::one(client, submitted.task_id, args.timeout, shell).await.map_err(|error| match error.detail {
        Some(_) => error,
        None => error.advise(format!("task {} was submitted and goes on", submitted.task_id)),
    })
}

fn request(args: &SubmitArgs, shell: &mut Shell) -> Result<SubmitTask> {
    let template = args.template.clone().ok_or_else(|| Error::usage("give a template, NAMESPACE/NAME, or --file"))?;
    let input = match &args.input {
        Some(text) => json(text, "--input", shell)?,
        None => Value::Object(serde_json::Map::new()),
    };
    Ok(SubmitTask {
        namespace: template.namespace.into(),
        name: template.name.into(),
        version: template.version,
        input,
        idempotency_key: args.key.clone(),
        priority: args.priority.unwrap_or_default(),
        tags: args.tags.clone(),
        run_at: args.run_at.as_ref().map(|moment| moment.from(shell.clock.now())),
        correlation_id: args.correlation_id,
        parent_correlation_id: args.parent_correlation_id,
        traceparent: args.traceparent.clone(),
        initiator: args.initiator.clone(),
        source_system: args.source_system.clone(),
        reason: args.reason.clone(),
    })
}

async fn many(file: &Path, args: &SubmitArgs, shell: &mut Shell) -> Result {
    let tasks = lines(file, &shell.read(file)?)?;
    let client = shell.client()?;
    let answers = submit_all(&client, tasks).await?;
    let refused = answers.tasks.iter().filter(|answer| matches!(answer, SubmitAnswer::Refused(_))).count();
    if args.wait && refused < answers.tasks.len() {
        let ended = watch::many(&client, &accepted(&answers), args.timeout, shell).await?;
        report_refused(&answers, shell)?;
        return Ok(if ended == Exit::Ok && refused > 0 { Exit::Failed } else { ended });
    }
    shell.print(&answers, |look| {
        let lines = answers.tasks.iter().enumerate().map(|(index, answer)| match answer {
            SubmitAnswer::Accepted(task) => view::submitted(task, look),
            SubmitAnswer::Refused(problem) => refusal(index, problem),
        });
        lines.collect::<Vec<_>>().join("\n")
    })?;
    Ok(if refused == 0 { Exit::Ok } else { Exit::Failed })
}

async fn submit_all(client: &Client, tasks: Vec<SubmitTask>) -> Result<SubmitAnswers> {
    let mut answers = Vec::with_capacity(tasks.len());
    for batch in batches(tasks) {
        let batch = client.submit_many(batch).await.map_err(|error| {
            let error = Error::from(error);
            match answers.len() {
                0 => error,
                done => {
                    error.advise(format!("the first {done} lines of the file were answered; submit the others again"))
                }
            }
        })?;
        answers.extend(batch);
    }
    Ok(SubmitAnswers { tasks: answers })
}

fn batches(tasks: Vec<SubmitTask>) -> Vec<Vec<SubmitTask>> {
    let (mut batches, mut batch, mut bytes) = (Vec::new(), Vec::new(), 0);
    for task in tasks {
        let size = task.input.to_string().len();
        if batch.len() == BATCH || (bytes + size > BATCH_BYTES && !batch.is_empty()) {
            batches.push(std::mem::take(&mut batch));
            bytes = 0;
        }
        bytes += size;
        batch.push(task);
    }
    batches.push(batch);
    batches
}

fn accepted(answers: &SubmitAnswers) -> Vec<TaskId> {
    let ids = answers.tasks.iter().filter_map(|answer| match answer {
        SubmitAnswer::Accepted(task) => Some(task.task_id),
        SubmitAnswer::Refused(_) => None,
    });
    // The same key twice is the same task: it is followed once.
    let mut ids: Vec<_> = ids.collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn report_refused(answers: &SubmitAnswers, shell: &mut Shell) -> Result<()> {
    answers.tasks.iter().enumerate().try_for_each(|(index, answer)| match answer {
        SubmitAnswer::Refused(problem) => shell.remark(&refusal(index, problem)),
        SubmitAnswer::Accepted(_) => Ok(()),
    })
}

fn refusal(index: usize, problem: &tasker_shared::api::Problem) -> String {
    format!("task {} refused: {}", index + 1, Error::from(problem.clone()))
}

/// One task in each line; empty lines are passed over.
fn lines(file: &Path, text: &str) -> Result<Vec<SubmitTask>> {
    let written = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let (mut tasks, mut wrong) = (Vec::new(), Vec::new());
    for (number, line) in written {
        match serde_json::from_str::<SubmitTask>(line) {
            Ok(task) => tasks.push(task),
            Err(error) => wrong.push(format!("{}:{}:{}: {error}", file.display(), number + 1, error.column())),
        }
    }
    let example = json!({"namespace": "shop", "name": "order", "input": {"id": 1}});
    match (tasks.is_empty(), wrong.is_empty()) {
        (_, false) => Err(Error::usage("some lines are not tasks; nothing was submitted")
            .list(wrong)
            .advise(format!("each line is like {example}"))),
        (true, true) => {
            Err(Error::usage(format!("{} has no tasks", file.display())).advise(format!("each line is like {example}")))
        }
        (false, true) => Ok(tasks),
    }
}

#[cfg(test)]
mod tests {
    use super::{BATCH, BATCH_BYTES, batches, lines};
    use crate::exit::Exit;
    use std::path::Path;
    use tasker_shared::api::SubmitTask;

    #[test]
    fn each_line_of_a_file_is_a_task() {
        let text = "{\"namespace\":\"a\",\"name\":\"b\"}\n\n{\"namespace\":\"a\",\"name\":\"c\",\"priority\":5}\n";
        let tasks = lines(Path::new("tasks.jsonl"), text).unwrap();
        assert_eq!(tasks.iter().map(|t| (t.name.as_str(), t.priority)).collect::<Vec<_>>(), [("b", 0), ("c", 5)]);
    }

    #[test]
    fn every_wrong_line_is_named_and_nothing_is_submitted() {
        let text = "{\"namespace\":\"a\",\"name\":\"b\"}\n{\"namespace\":\"a\",\"name\":\"b\",\"prio\":1}\nnonsense\n";
        let error = lines(Path::new("tasks.jsonl"), text).unwrap_err();
        assert_eq!(error.exit(), Exit::Usage);
        assert_eq!(error.errors.len(), 2);
        assert!(error.errors[0].starts_with("tasks.jsonl:2:") && error.errors[0].contains("prio"), "{error}");
        assert!(error.errors[1].starts_with("tasks.jsonl:3:"), "{error}");
    }

    #[test]
    fn a_request_is_limited_in_tasks_and_in_bytes() {
        let sizes = |tasks: Vec<SubmitTask>| batches(tasks).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(vec![SubmitTask::default(); 2 * BATCH + 1]), [BATCH, BATCH, 1]);
        let large = SubmitTask { input: "x".repeat(BATCH_BYTES / 2).into(), ..SubmitTask::default() };
        assert_eq!(sizes(vec![large; 3]), [1, 1, 1]);
    }

    #[test]
    fn an_empty_file_is_refused_with_an_example() {
        let error = lines(Path::new("tasks.jsonl"), "\n").unwrap_err();
        assert!(error.to_string().contains("\"name\":\"order\""), "{error}");
    }
}
