//! Table `api_keys`.

use super::{Error, Session};
use crate::{access::ApiKey, api::KeySummary};
use chrono::{DateTime, Utc};

/// What a key may, for one who has the whole of it.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Authenticated {
    /// Whose it is.
    pub name: String,
    /// What it may do.
    pub permissions: Vec<String>,
    /// Where it may.
    pub namespaces: Vec<String>,
    /// The time until it ends by itself; `None` is never.
    pub seconds_left: Option<f64>,
    /// When that is.
    pub expires_at: Option<DateTime<Utc>>,
    /// Why it is not accepted: `revoked` or `expired`.
    pub refused: Option<String>,
}

/// Finds a key by its prefix and the hash of the whole, and remembers that it was used.
///
/// # Errors
/// [`Error::Statement`].
pub async fn authenticate(session: &mut Session, key: &ApiKey) -> Result<Option<Authenticated>, Error> {
    let query = sqlx::query_as(
        "-- authenticate_key
         select *, clock_timestamp() + seconds_left * interval '1 second' as expires_at
         from tasker.authenticate_key($1, $2)",
    );
    session.fetch_optional("authenticate_key", query.bind(key.prefix()).bind(key.hash().to_vec())).await
}

/// A key as it may be shown.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Row {
    /// The part of the key that may be shown.
    pub prefix: String,
    /// Whose it is.
    pub name: String,
    /// What it may do.
    pub permissions: Vec<String>,
    /// Where it may.
    pub namespaces: Vec<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// Who made it.
    pub created_by: String,
    /// When it ends by itself.
    pub expires_at: Option<DateTime<Utc>>,
    /// When somebody ended it.
    pub revoked_at: Option<DateTime<Utc>>,
    /// When it was used last, to the minute.
    pub last_used_at: Option<DateTime<Utc>>,
    /// Whether it is accepted now.
    pub active: bool,
}

impl From<Row> for KeySummary {
    fn from(row: Row) -> Self {
        Self {
            prefix: row.prefix,
            name: row.name,
            permissions: row.permissions,
            namespaces: row.namespaces,
            active: row.active,
            created_at: row.created_at,
            created_by: row.created_by,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
            last_used_at: row.last_used_at,
        }
    }
}

const SHOWN: &str =
    "prefix, name, permissions, namespaces, created_at, created_by, expires_at, revoked_at, last_used_at,
    revoked_at is null and coalesce(expires_at > clock_timestamp(), true) as active";

/// A key to be made.
#[derive(Debug, Clone)]
pub struct New<'a> {
    /// Whose it is.
    pub name: &'a str,
    /// What it may do.
    pub permissions: &'a [String],
    /// Where it may.
    pub namespaces: &'a [String],
    /// When it ends by itself.
    pub expires_at: Option<DateTime<Utc>>,
    /// Who makes it.
    pub created_by: &'a str,
}

/// Stores a new key, of which only the hash is kept; `None` when the name is taken.
///
/// # Errors
/// [`Error::Statement`].
pub async fn insert(session: &mut Session, key: &ApiKey, new: &New<'_>) -> Result<Option<Row>, Error> {
    let sql = format!(
        "-- insert_api_key
         insert into tasker.api_keys (prefix, hash, name, permissions, namespaces, expires_at, created_by)
         values ($1, $2, $3, $4, $5, $6, $7) on conflict (name) do nothing
         returning {SHOWN}"
    );
    let query = sqlx::query_as(&sql)
        .bind(key.prefix())
        .bind(key.hash().to_vec())
        .bind(new.name)
        .bind(new.permissions)
        .bind(new.namespaces)
        .bind(new.expires_at)
        .bind(new.created_by);
    session.fetch_optional("insert_api_key", query).await
}

/// Every key, by name.
///
/// # Errors
/// [`Error::Statement`].
pub async fn list(session: &mut Session) -> Result<Vec<Row>, Error> {
    let sql = format!("-- list_api_keys\nselect {SHOWN} from tasker.api_keys order by name");
    session.fetch("list_api_keys", sqlx::query_as(&sql)).await
}

/// One key.
///
/// # Errors
/// [`Error::Statement`].
pub async fn find(session: &mut Session, prefix: &str) -> Result<Option<Row>, Error> {
    let sql = format!("-- find_api_key\nselect {SHOWN} from tasker.api_keys where prefix = $1");
    session.fetch_optional("find_api_key", sqlx::query_as(&sql).bind(prefix)).await
}

/// Ends a key; one that was ended before keeps its time. `None` when there is none.
///
/// # Errors
/// [`Error::Statement`].
pub async fn revoke(session: &mut Session, prefix: &str) -> Result<Option<Row>, Error> {
    let sql = format!(
        "-- revoke_api_key
         update tasker.api_keys set revoked_at = coalesce(revoked_at, clock_timestamp()) where prefix = $1
         returning {SHOWN}"
    );
    session.fetch_optional("revoke_api_key", sqlx::query_as(&sql).bind(prefix)).await
}
