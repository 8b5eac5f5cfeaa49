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
/// operator intervention, a write on a replica (a failover is under way), and a transaction that lost against another.
const TRANSIENT: &[&str] = &["08", "53", "57", "25006", "40001", "40P01", "55P03"];

/// Those of them that tell of the server and not of the statement: connection exceptions, insufficient resources, the
/// server stops or starts, a replica, and failures of the machine. A statement that the server cancelled for its
/// length is not among them: the server answered.
const OUTAGE: &[&str] = &["08", "53", "57P", "25006", "58"];

/// Those after which connections that were made before are not to be trusted.
const CUT: &[&str] = &["08", "57P"];

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

    /// Whether PostgreSQL has no room for the value that was asked for.
    pub fn is_too_large(&self) -> bool {
        matches!(self, Self::Statement { source, .. } if has_code(source, &["54000"]))
    }

    /// Whether a row that another one needs was removed, or is needed, since this transaction looked at it.
    pub fn breaks_reference(&self) -> bool {
        matches!(self, Self::Statement { source, .. } if has_code(source, &["23503"]))
    }

    /// Whether PostgreSQL cannot be used: no connection, no answer, or it says so itself. What a caller did wrong, a race
    /// that was lost and a statement that took too long are no outage.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Connect { .. } => true,
            Self::Statement { source, .. } => {
                matches!(source, sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed)
                    || is_cut(source)
                    || has_code(source, OUTAGE)
            }
            Self::Schema(_) | Self::Inconsistent { .. } => false,
        }
    }

    /// Whether the server is not there, or stops or starts; a wrong password and a missing database stay as they are.
    pub fn is_away(&self) -> bool {
        match self {
            Self::Connect { source, .. } => is_cut(source) || has_code(source, OUTAGE),
            other => other.is_outage(),
        }
    }

    /// Whether the same work may succeed when it is tried again.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. } => true,
            Self::Statement { source, .. } => match source {
                sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => true,
                source => is_cut(source) || has_code(source, TRANSIENT),
            },
            Self::Schema(_) | Self::Inconsistent { .. } => false,
        }
    }
}

/// Whether the connection is gone, or of no use any more.
pub(super) fn is_cut(source: &sqlx::Error) -> bool {
    let broken = matches!(
        source,
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed
    );
    broken || has_code(source, CUT)
}

fn has_code(source: &sqlx::Error, classes: &[&str]) -> bool {
    let code = source.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| classes.iter().any(|class| code.starts_with(class)))
}

#[cfg(test)]
mod tests {
    use super::Error;

    #[test]
    fn a_server_that_goes_while_a_service_starts_is_away_and_a_url_that_is_none_is_not() {
        let connect = |source| Error::Connect { target: "here".to_owned(), source };
        let statement = |source| Error::Statement { doing: "look_for_schema", source };
        let refused = || sqlx::Error::Io(std::io::ErrorKind::ConnectionRefused.into());
        assert!(connect(refused()).is_away() && statement(refused()).is_away());
        assert!(statement(sqlx::Error::PoolTimedOut).is_away(), "the pool tries in silence, and does not say why");
        assert!(!connect(sqlx::Error::Configuration("no such host".into())).is_away());
        assert!(!statement(sqlx::Error::RowNotFound).is_away() && !Error::Schema(String::new()).is_away());
    }
}
