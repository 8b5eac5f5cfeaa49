//! `tasker db …`.

mod archive;
mod prune;
pub(super) mod trace;

use crate::{
    args::{ConfigArgs, DbArgs, DbCommand, RolesArgs},
    error::{Error, Result},
    exit::Exit,
    shell::Shell,
    view,
};
use serde_json::json;
use std::time::Duration;
use tasker_shared::{
    id::RequestId,
    metrics::Metrics,
    storage::{
        self, Database, Options, roles,
        schema::{self, Status},
    },
};

/// How long to wait for the server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one statement of a migration may take: an index on a large table.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(3600);
/// One holds the lock that lets one program migrate at a time; the others look and migrate.
const CONNECTIONS: u32 = 3;

pub(super) async fn run(command: DbCommand, shell: &mut Shell) -> Result {
    match command {
        DbCommand::Migrate(args) => migrate(args, shell).await,
        DbCommand::Status(args) => status(args, shell).await,
        DbCommand::Roles(args) => roles(args, shell).await,
        DbCommand::Prune(args) => prune::run(args, shell).await,
        DbCommand::Archive(command) => archive::run(command, shell).await,
    }
}

async fn migrate(args: DbArgs, shell: &mut Shell) -> Result {
    let database = connect(args, shell).await?;
    let before = schema::status(database.pool()).await?;
    let after = schema::migrate(database.pool()).await?;
    let applied: Vec<_> = after.applied.iter().filter(|version| !before.applied.contains(version)).collect();
    if let (Some(first), Some(last)) = (applied.first(), applied.last()) {
        let target = if first == last { format!("migration {first}") } else { format!("migrations {first} to {last}") };
        record(&database, "db.migrate", target).await?;
    }
    shell.print(&json!({"database": database.target(), "applied": applied, "status": after}), |look| {
        let what = match applied.len() {
            0 => "nothing to do".to_owned(),
            1 => "applied 1 migration".to_owned(),
            count => format!("applied {count} migrations"),
        };
        format!("{what}\n\n{}", view::schema(&after, database.target(), look))
    })?;
    Ok(Exit::Ok)
}

async fn status(args: DbArgs, shell: &mut Shell) -> Result {
    let database = connect(args, shell).await?;
    let status: Status = schema::status(database.pool()).await?;
    let (current, usable) = (status.is_current(), status.is_usable());
    shell.print(
        &json!({"database": database.target(), "current": current, "usable": usable, "status": status}),
        |look| view::schema(&status, database.target(), look),
    )?;
    Ok(if usable { Exit::Ok } else { Exit::Failed })
}

async fn roles(args: RolesArgs, shell: &mut Shell) -> Result {
    if !args.apply {
        shell.print(&json!({"sql": roles::SQL}), |_| roles::SQL.to_owned())?;
        return Ok(Exit::Ok);
    }
    let database = connect(args.database, shell).await?;
    schema::check(database.pool()).await?;
    roles::apply(&database).await?;
    record(&database, "db.roles", roles::NAMES.join(", ")).await?;
    shell.print(&json!({"database": database.target(), "roles": roles::NAMES}), |_| {
        format!("{} are up to date in {}; grant them to users of your own", roles::NAMES.join(", "), database.target())
    })?;
    Ok(Exit::Ok)
}

async fn record(database: &Database, action: &'static str, target: String) -> Result<()> {
    trace::write(&mut database.session("audit").await?, RequestId::generate(), action, target).await
}

pub(super) async fn connect(args: DbArgs, shell: &Shell) -> Result<Database> {
    let options = Options {
        url: url(args, shell)?,
        max_connections: CONNECTIONS,
        connect_timeout: CONNECT_TIMEOUT,
        acquire_timeout: CONNECT_TIMEOUT,
        statement_timeout: STATEMENT_TIMEOUT,
        application_name: "tasker db".to_owned(),
        own_names_only: true,
    };
    Ok(Database::connect(&options, Metrics::disabled()).await?)
}

fn url(args: DbArgs, shell: &Shell) -> Result<String> {
    let given = match args.database_url.map(|url| url.0).filter(|url| !url.is_empty()) {
        Some(url) => Some(url),
        None => crate::command::config::load(&ConfigArgs::default(), shell)?.database.url,
    };
    given.ok_or_else(|| {
        Error::usage("no database is given")
            .advise("set --database-url or DATABASE_URL, such as postgres://tasker@127.0.0.1/tasker; `tasker dev` needs neither")
    })
}

impl From<storage::Error> for Error {
    fn from(error: storage::Error) -> Self {
        let (exit, kind) = match &error {
            storage::Error::Connect { .. } => (Exit::Unreachable, "database_unreachable"),
            storage::Error::Schema(_) => (Exit::Failed, "schema"),
            storage::Error::Statement { .. } | storage::Error::Inconsistent { .. } => (Exit::Broken, "database"),
        };
        Self::new(exit, kind, error.to_string())
    }
}
