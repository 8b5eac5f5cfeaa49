//! Least-privilege roles of the database.

use super::{Database, Error};

/// The roles, as SQL that can be run again.
pub const SQL: &str = include_str!("roles.sql");

/// The roles that [`SQL`] makes.
pub const NAMES: [&str; 4] = ["tasker_orchestration", "tasker_worker", "tasker_submit", "tasker_readonly"];

/// Makes the roles, or brings what they may up to date, in one transaction.
///
/// # Errors
/// [`Error::Statement`] when the connected user may not.
pub async fn apply(database: &Database) -> Result<(), Error> {
    let mut session = database.begin("apply_roles").await?;
    let applied = sqlx::raw_sql(SQL).execute(session.connection()).await;
    applied.map_err(|source| Error::Statement { doing: "apply_roles", source })?;
    session.commit().await.map(drop)
}
