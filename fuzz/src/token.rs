//! What callers show to prove who they are, and the keys that an issuer publishes.

use super::unconnected::{configured, database};
use axum::{
    http::{HeaderMap, HeaderValue, header::AUTHORIZATION},
    response::IntoResponse as _,
};
use std::cell::RefCell;
use tasker_shared::{
    access::{ApiKey, Kind, Permission},
    config::{Auth, Jwt},
    runtime::access::{Authenticator, usable_keys},
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// The issuer's key.
const PUBLIC: &[u8] = include_bytes!("../../tasker-shared/src/runtime/access/tokens/rsa.pub.pem");

/// The one header that is in order.
const VALID: &[u8] = include_bytes!("../seeds/token/valid");

/// A header `authorization`: nobody comes in whose token the issuer has not signed, and no refusal repeats a secret.
pub fn token(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(key) = ApiKey::read(&text) {
        let secret = key.expose().rsplit('_').next().unwrap_or_default();
        assert_eq!(key.expose(), text);
        assert!(!format!("{key:?}").contains(secret));
    }
    let Ok(value) = HeaderValue::from_bytes(data) else { return };
    DOOR.with_borrow_mut(|door| door.get_or_insert_with(Door::new).knock(value));
}

/// A set of published keys: each that is usable is in it.
pub fn jwks(data: &[u8]) {
    match usable_keys(data) {
        Ok(ids) => {
            // what is skipped unread may be more than a value can hold, such as the number 11e999
            let Ok(document) = serde_json::from_slice::<serde_json::Value>(data) else { return };
            assert!(ids.len() <= document["keys"].as_array().map_or(0, Vec::len));
        }
        Err(reason) => assert!(!reason.is_empty()),
    }
}

thread_local! {
    static DOOR: RefCell<Option<Door>> = const { RefCell::new(None) };
}

struct Door {
    runtime: Runtime,
    authenticator: Authenticator,
    _directory: TempDir,
}

impl Door {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let _entered = runtime.enter();
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("issuer.pem");
        std::fs::write(&file, PUBLIC).expect("a file");
        let auth = configured().auth;
        let (issuer, audience) = ("https://id.example.com/".to_owned(), "tasker".to_owned());
        let jwt = Jwt { public_key: Some(file), jwks_url: None, issuer, audience, ..auth.jwt.clone() };
        let authenticator = Authenticator::new(&Auth { enabled: true, jwt, ..auth }, &database());
        drop(_entered);
        Self { runtime, authenticator: authenticator.expect("the key is one"), _directory: directory }
    }

    fn knock(&self, value: HeaderValue) {
        let shown = value.as_bytes().to_vec();
        match self.runtime.block_on(self.authenticator.authenticate(&HeaderMap::from_iter([(AUTHORIZATION, value)]))) {
            Ok(principal) => {
                let signed = |bytes: &[u8]| String::from_utf8_lossy(bytes).split_whitespace().nth(1).map(str::to_owned);
                assert_eq!(signed(&shown), signed(VALID), "another token is accepted");
                assert_eq!((principal.kind(), principal.name()), (Kind::Token, "jwt:ada"));
                assert!(principal.may(Permission::TasksRead) && !principal.may(Permission::TasksWrite));
            }
            Err(denied) => {
                let told = format!("{denied:?}");
                let secret = String::from_utf8_lossy(&shown).rsplit(['_', '.']).next().map(str::to_owned);
                assert!(secret.is_none_or(|secret| secret.len() < 20 || !told.contains(&secret)), "{told}");
                assert!(matches!(denied.into_response().status().as_u16(), 401 | 503));
            }
        }
    }
}
