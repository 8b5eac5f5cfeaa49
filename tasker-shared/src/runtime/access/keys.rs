//! API keys: asked of the database, and remembered for a moment.

use super::authenticator::Denied;
use crate::{
    access::{ApiKey, Grant, Namespaces, Principal},
    storage::{Database, api_keys},
};
use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
    time::{Duration, Instant},
};
use subtle::ConstantTimeEq as _;

/// Checks API keys. Only keys that were accepted are remembered, so strangers cannot fill the memory.
pub(super) struct Keys {
    database: Database,
    remember: Duration,
    accepted: RwLock<HashMap<String, Accepted>>,
}

struct Accepted {
    hash: [u8; 32],
    principal: Principal,
    until: Instant,
}

impl Keys {
    pub(super) fn new(database: Database, remember: Duration) -> Self {
        Self { database, remember, accepted: RwLock::default() }
    }

    /// The holder of a key that is in force.
    pub(super) async fn check(&self, text: &str) -> Result<Principal, Denied> {
        let key = ApiKey::read(text).map_err(|malformed| Denied::invalid(malformed.to_string()))?;
        if let Some(principal) = self.remembered(&key) {
            return Ok(principal);
        }
        let unavailable = |error: crate::storage::Error| {
            tracing::warn!("failed to check an API key: {error}");
            Denied::Unavailable("the database does not serve at the moment".to_owned())
        };
        let mut session = self.database.session("authenticate").await.map_err(unavailable)?;
        let found = api_keys::authenticate(&mut session, &key).await.map_err(unavailable)?;
        let Some(found) = found else { return Err(Denied::invalid("the API key is not known")) };
        if let Some(refused) = found.refused {
            return Err(Denied::invalid(format!("the API key `{}` is {refused}", found.name)));
        }
        // a word of a later version grants nothing here
        let grants: Vec<Grant> = found.permissions.iter().filter_map(|word| word.parse().ok()).collect();
        let principal =
            Principal::of_key(&found.name, grants, Namespaces::from_list(found.namespaces)).until(found.expires_at);
        self.keep(&key, &principal, found.seconds_left);
        Ok(principal)
    }

    fn remembered(&self, key: &ApiKey) -> Option<Principal> {
        let accepted = self.accepted.read().unwrap_or_else(PoisonError::into_inner);
        let accepted = accepted.get(key.prefix()).filter(|accepted| accepted.until > Instant::now())?;
        bool::from(accepted.hash.ct_eq(&key.hash())).then(|| accepted.principal.clone())
    }

    fn keep(&self, key: &ApiKey, principal: &Principal, seconds_left: Option<f64>) {
        let left = seconds_left.map(|left| Duration::try_from_secs_f64(left.max(0.0)).unwrap_or(Duration::MAX));
        let until = Instant::now() + self.remember.min(left.unwrap_or(Duration::MAX));
        let accepted = Accepted { hash: key.hash(), principal: principal.clone(), until };
        let mut all = self.accepted.write().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, accepted| accepted.until > Instant::now());
        all.insert(key.prefix().to_owned(), accepted);
    }
}
