//! What can go wrong at the database.

/// The database failed, refused, or answered something that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A statement failed.
    #[error("failed to {doing}: {source}")]
    Statement {
        /// The statement's name, readable in the sentence.
        doing: &'static str,
        /// What PostgreSQL or the connection said.
        #[source]
        source: sqlx::Error,
    },
    /// No connection in time.
    #[error("failed to connect to PostgreSQL at {target}: {source}; check that it runs and that DATABASE_URL is right")]
    Connect {
        /// Host, port and database; never the password.
        target: String,
        /// What the connection said.
        #[source]
        source: sqlx::Error,
    },
    /// The schema is not the one this program was built for.
    #[error("{0}")]
    Schema(String),
    /// A stored row cannot be understood.
    #[error("inconsistent row in {table}.{column} of {row}: {reason}")]
    Inconsistent {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// The row's id.
        row: String,
        /// What is wrong.
        reason: String,
    },
}
