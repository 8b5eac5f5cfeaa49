//! `tasker task watch`, and the waiting of `submit`.

use crate::{
    error::{Error, Result},
    exit::Exit,
    shell::Shell,
    view::{self, Follow, Live, Verdict},
};
use serde_json::json;
use std::time::Duration;
use tasker_client::Client;
use tasker_shared::{api::TaskDetail, id::TaskId, task::TaskState};

/// Follows one task; programs get it as it ended.
pub(super) async fn one(client: &Client, task: TaskId, timeout: Option<Duration>, shell: &mut Shell) -> Result {
    let follow = follow(client, &[task], timeout, shell).await?;
    if let (true, Some(task)) = (shell.global.json, follow.tasks.first()) {
        shell.print(task, |_| String::new())?;
    }
    end(&follow, shell)
}

/// Follows many tasks; programs get `{"tasks": […]}`.
pub(super) async fn many(client: &Client, ids: &[TaskId], timeout: Option<Duration>, shell: &mut Shell) -> Result {
    let follow = follow(client, ids, timeout, shell).await?;
    if shell.global.json {
        shell.print(&json!({ "tasks": follow.tasks }), |_| String::new())?;
    }
    end(&follow, shell)
}

async fn follow(client: &Client, ids: &[TaskId], timeout: Option<Duration>, shell: &mut Shell) -> Result<Follow> {
    let mut live = (!shell.global.json).then(|| Live::new(shell.look(), shell.terminal));
    view::follow(client, ids, timeout, live.as_mut(), &mut *shell.out).await
}

fn end(follow: &Follow, shell: &mut Shell) -> Result {
    let ids: Vec<_> = follow.tasks.iter().filter(|t| !t.summary.state.is_final()).map(|t| t.summary.task_id).collect();
    let goes_on = || match ids.as_slice() {
        [id] => {
            format!("the task goes on: follow it with `tasker task watch {id}`, stop it with `tasker task cancel {id}`")
        }
        ids => format!("{} tasks go on: see them with `tasker task list`", ids.len()),
    };
    match follow.verdict {
        Verdict::Ended => {
            for task in follow.tasks.iter().filter(|task| task.summary.state != TaskState::Complete) {
                shell.remark(&format!("see what happened: tasker task show {}", task.summary.task_id))?;
            }
            Ok(outcome(&follow.tasks))
        }
        Verdict::Timeout => Err(Error::new(Exit::Timeout, "timeout", "the time to wait is over").advise(goes_on())),
        Verdict::Interrupted => {
            shell.remark(&format!("\nstopped waiting; {}", goes_on()))?;
            Ok(Exit::Interrupted)
        }
    }
}

/// The exit code that tells how tasks ended: 0 when every one is complete or was resolved by hand.
pub fn outcome(tasks: &[TaskDetail]) -> Exit {
    let good = |task: &TaskDetail| matches!(task.summary.state, TaskState::Complete | TaskState::ResolvedManually);
    if tasks.iter().all(good) { Exit::Ok } else { Exit::Failed }
}
