//! API keys: made, listed and revoked, by the HTTP API and by the command line alike.

use crate::{Error, submit::check_time};
use chrono::{DateTime, Utc};
use tasker_shared::{
    access::{ApiKey, Grant, Namespaces, Unknown},
    api::{AuditEntry, AuditFilter, AuditPage, CreateKey, CreatedKey, KeyList, KeySummary},
    name::Name,
    storage::{
        Database, Session,
        api_keys::{self, New},
        audit, tasks,
    },
};

/// The longest name of a key, in characters.
const LONGEST_NAME: usize = 100;

/// How many entries a page of the audit has when nothing is said.
const PAGE: u32 = 50;

/// The largest page.
const LARGEST_PAGE: u32 = 1000;

/// A request for a key, checked.
#[derive(Debug)]
pub struct Asked {
    /// What it may do.
    pub grants: Vec<Grant>,
    /// Where it may.
    pub namespaces: Namespaces,
    request: CreateKey,
}

impl Asked {
    /// When it is to end.
    pub fn expires_at(&self) -> Option<DateTime<Utc>> {
        self.request.expires_at
    }
}

/// Checks what a new key is asked to be.
///
/// # Errors
/// [`Error::Invalid`] names the field.
pub fn check(request: CreateKey) -> Result<Asked, Error> {
    let invalid = |field, reason: String| Error::Invalid { field, reason };
    let legible = !request.name.trim().is_empty() && !request.name.chars().any(char::is_control);
    if !legible || request.name.chars().count() > LONGEST_NAME {
        return Err(invalid("name", format!("must have 1 to {LONGEST_NAME} legible characters")));
    }
    if request.permissions.is_empty() {
        return Err(invalid("permissions", "must have at least one, such as `tasks:read`".to_owned()));
    }
    let grants: Result<Vec<Grant>, Unknown> = request.permissions.iter().map(|word| word.parse()).collect();
    let grants = grants.map_err(|unknown| invalid("permissions", unknown.to_string()))?;
    if request.namespaces.is_empty() {
        return Err(invalid("namespaces", "must have at least one, or `*` for every one".to_owned()));
    }
    let wrong = request.namespaces.iter().filter(|name| *name != "*").find_map(|name| Name::new(name).err());
    if let Some(wrong) = wrong {
        return Err(invalid("namespaces", wrong.to_string()));
    }
    let namespaces = Namespaces::from_list(request.namespaces.iter().cloned());
    Ok(Asked { grants, namespaces, request })
}

/// Makes a key. The answer is the only place where it stands whole.
///
/// # Errors
/// [`Error::KeyNameTaken`], [`Error::Invalid`] for an end that is past, [`Error::Storage`].
pub async fn create(session: &mut Session, asked: &Asked, by: &str) -> Result<CreatedKey, Error> {
    let CreateKey { name, permissions, namespaces, expires_at } = &asked.request;
    if let Some(end) = expires_at
        && *end <= tasks::now(session).await?
    {
        return Err(Error::Invalid { field: "expires_at", reason: format!("{end} is past") });
    }
    let key = ApiKey::generate();
    let new = New { name, permissions, namespaces, expires_at: *expires_at, created_by: by };
    let row = api_keys::insert(session, &key, &new).await?.ok_or_else(|| Error::KeyNameTaken(name.clone()))?;
    Ok(CreatedKey { key: key.expose().to_owned(), summary: row.into() })
}

/// Every key.
///
/// # Errors
/// [`Error::Storage`].
pub async fn list(session: &mut Session) -> Result<KeyList, Error> {
    Ok(KeyList { keys: api_keys::list(session).await?.into_iter().map(KeySummary::from).collect() })
}

/// One key.
///
/// # Errors
/// [`Error::KeyNotFound`], [`Error::Storage`].
pub async fn find(session: &mut Session, prefix: &str) -> Result<KeySummary, Error> {
    let found = if prefix.contains('\0') { None } else { api_keys::find(session, prefix).await? };
    found.map(KeySummary::from).ok_or_else(|| Error::KeyNotFound(prefix.to_owned()))
}

/// Ends a key. Services that remember it may accept it for `auth.key_cache_ms` more.
///
/// # Errors
/// As [`find`].
pub async fn revoke(session: &mut Session, prefix: &str) -> Result<KeySummary, Error> {
    let revoked = api_keys::revoke(session, prefix).await?;
    revoked.map(KeySummary::from).ok_or_else(|| Error::KeyNotFound(prefix.to_owned()))
}

/// A page of what operators did, the newest first.
///
/// # Errors
/// [`Error::Invalid`] for a limit out of range, [`Error::Storage`].
pub async fn audited(database: &Database, filter: &AuditFilter) -> Result<AuditPage, Error> {
    let limit = filter.limit.unwrap_or(PAGE);
    if !(1..=LARGEST_PAGE).contains(&limit) {
        return Err(Error::Invalid { field: "limit", reason: format!("{limit} is not between 1 and {LARGEST_PAGE}") });
    }
    if let Some(since) = filter.since {
        check_time("since", since)?;
    }
    let mut session = database.session("list_audit").await?;
    let mut entries: Vec<AuditEntry> = audit::list(&mut session, filter, i64::from(limit) + 1).await?;
    let more = entries.len() > limit as usize;
    entries.truncate(limit as usize);
    let next = entries.last().filter(|_| more).map(|entry| entry.id);
    Ok(AuditPage { entries, next })
}

#[cfg(test)]
mod tests {
    use super::check;
    use tasker_shared::api::CreateKey;

    fn asked(name: &str, permissions: &[&str], namespaces: &[&str]) -> CreateKey {
        let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        CreateKey {
            name: name.into(),
            permissions: owned(permissions),
            namespaces: owned(namespaces),
            expires_at: None,
        }
    }

    #[test]
    fn what_cannot_be_a_key_is_refused_with_its_field() {
        for (request, field, told) in [
            (asked("", &["*"], &["*"]), "name", "1 to 100"),
            (asked(" ", &["*"], &["*"]), "name", "1 to 100"),
            (asked("a\nb", &["*"], &["*"]), "name", "legible"),
            (asked(&"x".repeat(101), &["*"], &["*"]), "name", "1 to 100"),
            (asked("ci", &[], &["*"]), "permissions", "at least one"),
            (asked("ci", &["task:read"], &["*"]), "permissions", "did you mean `tasks:read`"),
            (asked("ci", &["*"], &[]), "namespaces", "at least one"),
            (asked("ci", &["*"], &["shop", ""]), "namespaces", ""),
        ] {
            let refused = check(request).unwrap_err().to_string();
            assert!(refused.starts_with(&format!("`{field}`: ")) && refused.contains(told), "{refused}");
        }
        assert!(check(asked("ci", &["tasks:*", "dlq:read"], &["shop", "*"])).is_ok());
    }
}
