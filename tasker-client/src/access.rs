//! API keys and the audit.

use crate::{Client, Error};
use tasker_shared::api::{AuditFilter, AuditPage, CreateKey, CreatedKey, KeyList, KeySummary};

impl Client {
    /// Makes an API key; the answer is the only place where it stands whole.
    ///
    /// # Errors
    /// [`Error::Refused`]: status 403 for more than the caller has, 409 for a name that was given before.
    pub async fn create_key(&self, key: &CreateKey) -> Result<CreatedKey, Error> {
        self.post(&["v1", "keys"], key).send().await
    }

    /// The API keys that the caller could have made.
    ///
    /// # Errors
    /// As the connection fails.
    pub async fn keys(&self) -> Result<KeyList, Error> {
        self.get(&["v1", "keys"]).send().await
    }

    /// Ends an API key.
    ///
    /// # Errors
    /// [`Error::Refused`]: status 404 when there is none with this prefix.
    pub async fn revoke_key(&self, prefix: &str) -> Result<KeySummary, Error> {
        self.post(&["v1", "keys", prefix, "revoke"], &serde_json::Value::Null).send().await
    }

    /// A page of what operators did, the newest first.
    ///
    /// # Errors
    /// As the connection fails.
    pub async fn audit(&self, filter: &AuditFilter) -> Result<AuditPage, Error> {
        self.get(&["v1", "audit"]).query(filter).send().await
    }
}
