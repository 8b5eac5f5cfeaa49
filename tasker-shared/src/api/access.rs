//! API keys and the audit, as they go over the wire.

use crate::id::RequestId;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Asks for an API key. Unknown keys are refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateKey {
    /// Whose it is: 1 to 100 characters, never used before.
    pub name: String,
    /// What it may do: `tasks:read`, `tasks:*`, `*`. Not more than the caller may.
    pub permissions: Vec<String>,
    /// Where it may: namespaces, or `*` for every one. Not more than the caller has.
    pub namespaces: Vec<String>,
    /// When it ends by itself; never when not given. Not later than the key or token of the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
}

/// A new API key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreatedKey {
    /// The key, to be sent as `Authorization: Bearer …`. It is shown this once.
    pub key: String,
    /// What is known of it from now on.
    #[serde(flatten)]
    pub summary: KeySummary,
}

impl std::fmt::Debug for CreatedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreatedKey").field("summary", &self.summary).finish_non_exhaustive()
    }
}

/// An API key without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeySummary {
    /// The part of the key that may be shown.
    pub prefix: String,
    /// Whose it is.
    pub name: String,
    /// What it may do.
    pub permissions: Vec<String>,
    /// Where it may.
    pub namespaces: Vec<String>,
    /// Whether it is accepted now.
    pub active: bool,
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
}

/// API keys that the caller could have made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyList {
    /// By name.
    pub keys: Vec<KeySummary>,
}

crate::text_enum! {
    /// What became of an action.
    AuditOutcome {
        /// It took effect.
        Done = "done",
        /// It was not allowed, not possible, or wrong.
        Refused = "refused",
        /// The service could not do it, or does not know whether it did.
        Failed = "failed",
    }
}

/// Which part of the audit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AuditFilter {
    /// Only this principal, such as `key:ci`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// Only this action, such as `task.cancel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// Only this outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<AuditOutcome>,
    /// Not older than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<DateTime<Utc>>,
    /// At most this many, from 1 to 1000; 50 when not given.
    #[param(minimum = 1, maximum = 1000)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// The `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<i64>,
}

/// One thing that somebody did or tried to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// The order.
    pub id: i64,
    /// When.
    pub at: DateTime<Utc>,
    /// Who: `key:NAME`, `jwt:SUBJECT`, `cli:USER` or `anonymous`.
    pub principal: String,
    /// Where the request came from; of what was done on the database itself, its user there.
    pub address: Option<String>,
    /// What, such as `task.cancel`; `access` for a caller who was turned away.
    pub action: String,
    /// On what: the path of the request, or the thing's name.
    pub target: String,
    /// What became of it.
    pub outcome: AuditOutcome,
    /// The HTTP status of the answer.
    pub status: Option<u16>,
    /// Why it was refused or failed.
    pub reason: Option<String>,
    /// Names the request, as `x-request-id` in its answer.
    pub request_id: RequestId,
}

/// A page of the audit, the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditPage {
    /// The entries.
    pub entries: Vec<AuditEntry>,
    /// Give this as `before` for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<i64>,
}
