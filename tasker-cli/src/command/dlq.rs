//! `tasker dlq …` and `tasker limit …`.

use super::act as steps;
use crate::{
    args::{DlqActionArgs, DlqCommand, DlqListArgs, LimitCommand},
    error::Result,
    exit::Exit,
    shell::Shell,
    view,
};
use tasker_shared::api::{Action, DeadLetterFilter, LimitList, SetLimit, WhichLimit};

pub(super) async fn run(command: DlqCommand, shell: &mut Shell) -> Result {
    match command {
        DlqCommand::List(args) => list(args, shell).await,
        DlqCommand::Show { dead_letter } => {
            let letter = shell.client()?.dead_letter(dead_letter).await?;
            shell.print(&letter, |look| view::dead_letter(&letter, look))?;
            Ok(Exit::Ok)
        }
        DlqCommand::Redrive(args) => act(Verb::Redrive, args, shell).await,
        DlqCommand::Resolve(args) => act(Verb::Resolve, args, shell).await,
        DlqCommand::Discard(args) => act(Verb::Discard, args, shell).await,
        DlqCommand::Park(args) => steps::park_step(args, shell).await,
    }
}

async fn list(args: DlqListArgs, shell: &mut Shell) -> Result {
    let DlqListArgs { reason, namespace, task, open, resolved, limit, before } = args;
    let open = (open || resolved).then_some(open);
    let filter = DeadLetterFilter { reason, namespace, open, task_id: task, limit, before };
    let page = shell.client()?.dead_letters(&filter).await?;
    shell.print(&page, |look| view::dead_letters(&page, look))?;
    Ok(Exit::Ok)
}

/// What to do about a dead letter.
#[derive(Debug, Clone, Copy)]
enum Verb {
    Redrive,
    Resolve,
    Discard,
}

async fn act(verb: Verb, args: DlqActionArgs, shell: &mut Shell) -> Result {
    let client = shell.client()?;
    let action = Action { reason: args.note, by: args.by.or_else(|| shell.user()) };
    let letter = match verb {
        Verb::Redrive => client.redrive(args.dead_letter, &action).await,
        Verb::Resolve => client.resolve_dead_letter(args.dead_letter, &action).await,
        Verb::Discard => client.discard(args.dead_letter, &action).await,
    }?;
    shell.print(&letter, |_| {
        let done = letter.resolution.map_or("open", |resolution| resolution.as_str());
        format!("dead letter {} is {done}", letter.dead_letter_id)
    })?;
    Ok(Exit::Ok)
}

pub(super) async fn limit(command: LimitCommand, shell: &mut Shell) -> Result {
    let client = shell.client()?;
    let list = match command {
        LimitCommand::List => client.limits().await?,
        LimitCommand::Set { namespace, max, handler, reason, by } => {
            let limit = SetLimit { max, handler, reason, by: by.or_else(|| shell.user()) };
            LimitList { limits: vec![client.set_limit(&namespace, &limit).await?] }
        }
        LimitCommand::Remove { namespace, handler, by } => {
            let action = Action { reason: None, by: by.or_else(|| shell.user()) };
            client.remove_limit(&namespace, &WhichLimit { handler }, &action).await?
        }
    };
    shell.print(&list, |look| view::limits(&list, look))?;
    Ok(Exit::Ok)
}
