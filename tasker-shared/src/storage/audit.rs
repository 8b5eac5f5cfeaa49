//! Table `audit_log`: what operators did and tried to do. Rows are added, never changed.

use super::{Error, Session};
use crate::{
    api::{AuditEntry, AuditFilter, AuditOutcome},
    id::RequestId,
};
use chrono::{DateTime, Utc};
use sqlx::QueryBuilder;

/// One thing that somebody did or tried to do.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Who.
    pub principal: String,
    /// From where.
    pub address: Option<String>,
    /// What, such as `task.cancel`.
    pub action: &'static str,
    /// On what.
    pub target: String,
    /// What became of it.
    pub outcome: AuditOutcome,
    /// The HTTP status of the answer.
    pub status: Option<u16>,
    /// Why it was refused or failed.
    pub reason: Option<String>,
    /// Names the request.
    pub request_id: RequestId,
}

/// Adds one row.
///
/// # Errors
/// [`Error::Statement`].
pub async fn insert(session: &mut Session, entry: &Entry) -> Result<(), Error> {
    let query = sqlx::query(
        "-- insert_audit
         insert into tasker.audit_log (principal, address, action, target, outcome, status, reason, request_id)
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(&entry.principal)
    .bind(&entry.address)
    .bind(entry.action)
    .bind(&entry.target)
    .bind(entry.outcome)
    .bind(entry.status.map(u16::cast_signed))
    .bind(&entry.reason)
    .bind(entry.request_id);
    session.execute("insert_audit", query).await.map(drop)
}

/// Who is connected to the database, and from where: the address of what is done on the database itself.
///
/// # Errors
/// [`Error::Statement`].
pub async fn database_user(session: &mut Session) -> Result<String, Error> {
    let query = sqlx::query_as(
        "-- tell_database_user
         select concat_ws(' from ', 'database user ' || session_user, host(inet_client_addr()))",
    );
    let row: Option<(String,)> = session.fetch_optional("tell_database_user", query).await?;
    Ok(row.map_or_else(String::new, |(told,)| told))
}

#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    at: DateTime<Utc>,
    principal: String,
    address: Option<String>,
    action: String,
    target: String,
    outcome: AuditOutcome,
    status: Option<i16>,
    reason: Option<String>,
    request_id: RequestId,
}

/// Rows that fit `filter`, the newest first, at most `limit`.
///
/// # Errors
/// [`Error::Statement`].
pub async fn list(session: &mut Session, filter: &AuditFilter, limit: i64) -> Result<Vec<AuditEntry>, Error> {
    let mut sql = QueryBuilder::new(
        "-- list_audit
         select id, at, principal, address, action, target, outcome, status, reason, request_id
           from tasker.audit_log where true",
    );
    if let Some(principal) = &filter.principal {
        sql.push(" and principal = ").push_bind(principal);
    }
    if let Some(action) = &filter.action {
        sql.push(" and action = ").push_bind(action);
    }
    if let Some(outcome) = filter.outcome {
        sql.push(" and outcome = ").push_bind(outcome);
    }
    if let Some(since) = filter.since {
        sql.push(" and at >= ").push_bind(since);
    }
    if let Some(before) = filter.before {
        sql.push(" and id < ").push_bind(before);
    }
    sql.push(" order by id desc limit ").push_bind(limit);
    let rows: Vec<Row> = session.fetch("list_audit", sql.build_query_as()).await?;
    Ok(rows.into_iter().map(AuditEntry::from).collect())
}

impl From<Row> for AuditEntry {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            at: row.at,
            principal: row.principal,
            address: row.address,
            action: row.action,
            target: row.target,
            outcome: row.outcome,
            status: row.status.map(i16::cast_unsigned),
            reason: row.reason,
            request_id: row.request_id,
        }
    }
}
