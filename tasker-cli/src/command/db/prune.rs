//! `tasker db prune`: what the retention sweep does, by hand.

use super::trace;
use crate::{
    args::{ConfigArgs, PruneArgs},
    command::config,
    error::Result,
    exit::Exit,
    shell::Shell,
};
use serde_json::json;
use std::time::Duration;
use tasker_shared::{
    id::RequestId,
    storage::{
        Database, Error,
        retention::{self, Ended, Rule},
    },
};

pub(super) async fn run(args: PruneArgs, shell: &mut Shell) -> Result {
    let settings = config::load(&ConfigArgs::default(), shell)?.retention;
    let database = super::connect(args.database.clone(), shell).await?;
    let archive = args.archive || settings.archive;
    let (mut tasks, mut steps, run) = (0, 0, RequestId::generate());
    for rule in rules(&database, &args, settings.identity_after).await? {
        let (found, of_them) = if args.dry_run {
            retention::count(&mut database.session("count_old").await?, rule).await?
        } else {
            remove(&database, rule, archive, settings.batch_size, run).await?
        };
        (tasks, steps) = (tasks + found, steps + of_them);
    }
    let answer = json!({
        "database": database.target(), "dry_run": args.dry_run, "archived": archive && !args.dry_run,
        "tasks": tasks, "steps": steps,
    });
    shell.print(&answer, |_| {
        let what = if args.dry_run { "would be removed" } else { "removed" };
        format!("{tasks} tasks with {steps} steps {what}")
    })?;
    Ok(Exit::Ok)
}

/// What was asked for, and what templates say of the same tasks: their word holds for theirs.
async fn rules(database: &Database, args: &PruneArgs, identity: Option<Duration>) -> Result<Vec<Rule>, Error> {
    let asked = [(Ended::Complete, Some(args.older_than)), (Ended::Otherwise, args.failed_older_than)];
    let asked: Vec<_> = asked.into_iter().filter_map(|(ended, age)| Some((ended, age?, false))).collect();
    let said = retention::of_templates(&mut database.session("look").await?).await?;
    let said = said.into_iter().filter(|(of, _)| asked.iter().any(|(ended, ..)| ended == of));
    let all: Vec<_> = said.map(|(ended, age)| (ended, age, true)).chain(asked.iter().copied()).collect();
    Ok(all.into_iter().flat_map(|(ended, age, of_template)| Rule::keeping(ended, age, of_template, identity)).collect())
}

/// Each batch is written down with its removal: a command that is stopped halfway has removed something all the same.
async fn remove(database: &Database, rule: Rule, archive: bool, batch: i64, run: RequestId) -> Result<(i64, i64)> {
    let (mut tasks, mut steps, mut place) = (0, 0, None);
    loop {
        let mut session = database.begin("prune").await?;
        let found = retention::find(&mut session, rule, place, batch).await?;
        if archive {
            retention::archive(&mut session, &found.tasks).await?;
        }
        retention::delete(&mut session, &found.tasks).await?;
        let count = i64::try_from(found.tasks.len()).unwrap_or(i64::MAX);
        if count > 0 {
            let how = if archive { "archived and removed" } else { "removed" };
            let target = format!("{count} tasks with {} steps {how}", found.steps);
            trace::write(&mut session, run, "db.prune", target).await?;
        }
        session.commit().await?;
        tasks += count;
        steps += found.steps;
        place = found.place;
        if !found.more {
            return Ok((tasks, steps));
        }
    }
}
