//! What can go wrong at the database.

/// The database failed, refused, or answered something that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A statement failed.
    #[error("failed to {}: {source}", doing.replace('_', " "))]
    Statement {
        /// The statement's name, such as `claim_steps`.
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

/// SQLSTATE classes and codes after which the same work may succeed: connection exceptions, insufficient resources,
/// operator intervention, and a transaction that lost against another.
const TRANSIENT: &[&str] = &["08", "53", "57", "40001", "40P01", "55P03"];

impl Error {
    /// Whether the transaction lost against another one: run again, it may succeed at once.
    pub fn is_lost_race(&self) -> bool {
        match self {
            Self::Statement { source: sqlx::Error::Database(e), .. } => {
                e.code().is_some_and(|code| matches!(code.as_ref(), "40001" | "40P01"))
            }
            _ => false,
        }
    }

    /// Whether the same work may succeed when it is tried again.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. } => true,
            Self::Statement { source, .. } => match source {
                sqlx::Error::Database(e) => {
                    e.code().is_some_and(|code| TRANSIENT.iter().any(|class| code.starts_with(class)))
                }
                sqlx::Error::Io(_)
                | sqlx::Error::Tls(_)
                | sqlx::Error::Protocol(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::WorkerCrashed => true,
                _ => false,
            },
            Self::Schema(_) | Self::Inconsistent { .. } => false,
        }
    }
}
