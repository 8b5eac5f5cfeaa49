//! What operators do by hand to tasks and steps.

use crate::{
    args::{ActionArgs, StepActionArgs, StepResolveArgs},
    error::Result,
    exit::Exit,
    shell::Shell,
};
use tasker_shared::api::{Acted, Action, ResolveStep};

/// What to do to a task.
#[derive(Debug, Clone, Copy)]
pub(super) enum Verb {
    /// Stop it.
    Cancel,
    /// Hold it.
    Pause,
    /// Let it go on.
    Resume,
    /// Run what failed again.
    Retry,
    /// Declare it settled.
    Resolve,
}

pub(super) async fn task(verb: Verb, args: ActionArgs, shell: &mut Shell) -> Result {
    let client = shell.client()?;
    let ActionArgs { task, reason, by } = args;
    let action = Action { reason, by: by.or_else(|| shell.user()) };
    let acted = match verb {
        Verb::Cancel => client.cancel(task, &action).await,
        Verb::Pause => client.pause(task, &action).await,
        Verb::Resume => client.resume(task, &action).await,
        Verb::Retry => client.retry(task, &action).await,
        Verb::Resolve => client.resolve(task, &action).await,
    };
    done(&acted?, shell)
}

pub(super) async fn retry_step(args: StepActionArgs, shell: &mut Shell) -> Result {
    let action = Action { reason: args.reason, by: args.by.or_else(|| shell.user()) };
    let acted = shell.client()?.retry_step(args.task, &args.step, &action).await?;
    done(&acted, shell)
}

pub(super) async fn cancel_step(args: StepActionArgs, shell: &mut Shell) -> Result {
    let action = Action { reason: args.reason, by: args.by.or_else(|| shell.user()) };
    let acted = shell.client()?.cancel_step(args.task, &args.step, &action).await?;
    done(&acted, shell)
}

pub(super) async fn park_step(args: StepActionArgs, shell: &mut Shell) -> Result {
    let action = Action { reason: args.reason, by: args.by.or_else(|| shell.user()) };
    let acted = shell.client()?.park_step(args.task, &args.step, &action).await?;
    done(&acted, shell)
}

pub(super) async fn resolve_step(args: StepResolveArgs, shell: &mut Shell) -> Result {
    let result = super::json(&args.result, "--result", shell)?;
    let StepActionArgs { task, step, reason, by } = args.action;
    let resolution = ResolveStep { result, reason, by: by.or_else(|| shell.user()) };
    let acted = shell.client()?.resolve_step(task, &step, &resolution).await?;
    done(&acted, shell)
}

fn done(acted: &Acted, shell: &mut Shell) -> Result {
    shell.print(acted, |look| {
        use crate::view::{task_symbol, task_tone};
        let state = format!("{} {}", task_symbol(acted.state), acted.state);
        format!("task {} is {}", acted.task_id, look.paint.paint(task_tone(acted.state), &state))
    })?;
    Ok(Exit::Ok)
}
