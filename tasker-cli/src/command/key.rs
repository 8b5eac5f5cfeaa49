//! `tasker key …`: on the database itself, so that the first key can be made.

use super::db::{self, trace};
use crate::{
    args::{CreateKeyArgs, DbArgs, KeyCommand, RevokeKeyArgs},
    error::{Error, Result},
    exit::Exit,
    shell::Shell,
    view,
};
use tasker_orchestration::keys;
use tasker_shared::{
    api::{CreateKey, Problem},
    id::RequestId,
    storage::{Session, schema},
};

pub(super) async fn run(command: KeyCommand, shell: &mut Shell) -> Result {
    match command {
        KeyCommand::Create(args) => create(args, shell).await,
        KeyCommand::List(args) => list(args, shell).await,
        KeyCommand::Revoke(args) => revoke(args, shell).await,
    }
}

async fn create(args: CreateKeyArgs, shell: &mut Shell) -> Result {
    let CreateKeyArgs { name, permissions, namespaces, expires, database } = args;
    let expires_at = expires.map(|end| end.from(shell.clock.now()));
    let asked = keys::check(CreateKey { name, permissions, namespaces, expires_at })?;
    let mut session = begin(database, shell).await?;
    let created = keys::create(&mut session, &asked, &Shell::operator()).await?;
    trace::write(&mut session, RequestId::generate(), "key.create", created.summary.name.clone()).await?;
    session.commit().await?;
    shell.print(&created, |_| created.key.clone())?;
    shell.remark(&format!(
        "This is the only time the key is shown. Send it as `Authorization: Bearer …`, or set TASKER_TOKEN.\n\
         `tasker key revoke {}` ends it.",
        created.summary.prefix
    ))?;
    Ok(Exit::Ok)
}

async fn list(args: DbArgs, shell: &mut Shell) -> Result {
    let mut session = begin(args, shell).await?;
    let list = keys::list(&mut session).await?;
    session.commit().await?;
    shell.print(&list, |look| view::keys(&list, look))?;
    Ok(Exit::Ok)
}

async fn revoke(args: RevokeKeyArgs, shell: &mut Shell) -> Result {
    let mut session = begin(args.database, shell).await?;
    let revoked = keys::revoke(&mut session, &args.prefix).await?;
    trace::write(&mut session, RequestId::generate(), "key.revoke", revoked.name.clone()).await?;
    session.commit().await?;
    shell.print(&revoked, |_| {
        format!("the key `{}` has ended; services that remember it refuse it within auth.key_cache_ms", revoked.name)
    })?;
    Ok(Exit::Ok)
}

async fn begin(args: DbArgs, shell: &Shell) -> Result<Session> {
    let database = db::connect(args, shell).await?;
    schema::check(database.pool()).await?;
    Ok(database.begin("keys").await?)
}

impl From<tasker_orchestration::Error> for Error {
    fn from(error: tasker_orchestration::Error) -> Self {
        match error {
            tasker_orchestration::Error::Storage(failure) => failure.into(),
            refused @ tasker_orchestration::Error::Invalid { .. } => Self::usage(refused.to_string()),
            refused => Problem::from(refused).into(),
        }
    }
}
