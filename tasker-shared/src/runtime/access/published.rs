//! The keys that an issuer publishes (JWKS): kept, and fetched again when they are old or a token names one that is new.

use super::signature::ALGORITHMS;
use crate::url::without_secrets;
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse},
};
use reqwest::redirect;
use serde::Deserialize;
use serde_json::Value;
use std::{
    sync::{PoisonError, RwLock},
    time::{Duration, Instant},
};
use tokio::sync::Mutex;

/// The longest fetch.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many keys are tried for one token at most.
const MOST_TRIED: usize = 8;

/// The largest document, in bytes.
const LARGEST: usize = 1 << 20;

/// Why a key cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Missing {
    /// The issuer publishes no such key.
    #[error("its key is not among those that the issuer publishes")]
    Unknown,
    /// The issuer cannot be asked, and nothing is known from before.
    #[error("the issuer's keys cannot be fetched")]
    Unavailable,
}

/// The keys of one issuer.
pub(super) struct Published {
    url: String,
    client: reqwest::Client,
    refresh: Duration,
    min_interval: Duration,
    known: RwLock<Known>,
    /// Held while fetching, with the time of the last attempt.
    fetching: Mutex<Option<Instant>>,
}

/// A key that can check signatures.
struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

#[derive(Default)]
struct Known {
    keys: Vec<Key>,
    fetched: Option<Instant>,
}

impl Published {
    pub(super) fn new(url: String, refresh: Duration, min_interval: Duration) -> Result<Self, reqwest::Error> {
        // a provider that is installed already is as good
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().timeout(PATIENCE).redirect(redirect::Policy::none()).build()?;
        Ok(Self { url, client, refresh, min_interval, known: RwLock::default(), fetching: Mutex::default() })
    }

    /// The keys of this id and algorithm; without an id, all of the algorithm.
    pub(super) async fn keys(&self, id: Option<&str>, algorithm: Algorithm) -> Result<Vec<DecodingKey>, Missing> {
        let found = self.find(id, algorithm);
        match (found, self.is_old()) {
            (Some(keys), false) => Ok(keys),
            (Some(keys), true) => {
                // one request fetches; the others go on with what is known
                if let Ok(mut attempted) = self.fetching.try_lock() {
                    self.fetch(&mut attempted).await;
                    return self.find(id, algorithm).ok_or(Missing::Unknown);
                }
                Ok(keys)
            }
            (None, _) => {
                let mut attempted = self.fetching.lock().await;
                if let Some(keys) = self.find(id, algorithm) {
                    return Ok(keys);
                }
                self.fetch(&mut attempted).await;
                let missing = if self.has_any() { Missing::Unknown } else { Missing::Unavailable };
                self.find(id, algorithm).ok_or(missing)
            }
        }
    }

    fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<Vec<DecodingKey>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let meant = |key: &&Key| key.algorithm == algorithm && (id.is_none() || key.id.as_deref() == id);
        let found: Vec<_> = known.keys.iter().filter(meant).map(|key| key.key.clone()).take(MOST_TRIED).collect();
        Some(found).filter(|found| !found.is_empty())
    }

    fn is_old(&self) -> bool {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.fetched.is_none_or(|fetched| fetched.elapsed() >= self.refresh)
    }

    fn has_any(&self) -> bool {
        self.known.read().unwrap_or_else(PoisonError::into_inner).fetched.is_some()
    }

    /// Fetches the document, unless that was tried a moment ago. What is known stays when it fails.
    async fn fetch(&self, attempted: &mut Option<Instant>) {
        if attempted.is_some_and(|at| at.elapsed() < self.min_interval) {
            return;
        }
        *attempted = Some(Instant::now());
        match self.download().await.and_then(|document| read(&document)) {
            Ok(keys) => {
                tracing::info!(url = without_secrets(&self.url), keys = keys.len(), "fetched the issuer's keys");
                let fetched = Some(Instant::now());
                *self.known.write().unwrap_or_else(PoisonError::into_inner) = Known { keys, fetched };
            }
            Err(reason) => {
                tracing::warn!(url = without_secrets(&self.url), "failed to fetch the issuer's keys: {reason}")
            }
        }
    }

    async fn download(&self) -> Result<Vec<u8>, String> {
        let told = |error: reqwest::Error| error.without_url().to_string();
        let mut answer = self.client.get(&self.url).send().await.map_err(told)?;
        if !answer.status().is_success() {
            return Err(format!("the answer is {}", answer.status()));
        }
        let mut body = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(told)? {
            body.extend_from_slice(&part);
            if body.len() > LARGEST {
                return Err(format!("the document has more than {LARGEST} bytes"));
            }
        }
        Ok(body)
    }
}

/// The ids of the keys in a document (JWKS) that can check the signatures of tokens; a key without an id has the empty one.
///
/// # Errors
/// Why the document is none.
pub fn usable_keys(document: &[u8]) -> Result<Vec<String>, String> {
    Ok(read(document)?.into_iter().map(|key| key.id.unwrap_or_default()).collect())
}

/// A document whose keys are looked at one by one.
#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

/// The keys that can check the signatures of tokens; others are of no use here, and what is no key is left out.
fn read(document: &[u8]) -> Result<Vec<Key>, String> {
    let set: Set = serde_json::from_slice(document).map_err(|error| format!("the document is no key set: {error}"))?;
    let usable = set.keys.into_iter().enumerate().filter_map(|(at, key)| {
        let id = key.get("kid").map(Value::to_string).unwrap_or_default();
        usable(key).unwrap_or_else(|reason| {
            tracing::warn!(at, id, "left out a key of the issuer that cannot be read: {reason}");
            None
        })
    });
    Ok(usable.collect())
}

/// A key, unless it is for something else.
fn usable(key: Value) -> Result<Option<Key>, String> {
    // another kind of key may have a form that is not known here
    if !key.get("kty").is_none_or(|kind| kind == "RSA" || kind == "EC") {
        return Ok(None);
    }
    let jwk: Jwk = serde_json::from_value(key).map_err(|error| error.to_string())?;
    let Some(algorithm) = algorithm(&jwk) else { return Ok(None) };
    let key = DecodingKey::from_jwk(&jwk).map_err(|error| error.to_string())?;
    Ok(Some(Key { id: jwk.common.key_id, algorithm, key }))
}

/// The algorithm whose signatures the key checks, if that is its purpose.
fn algorithm(jwk: &Jwk) -> Option<Algorithm> {
    let common = &jwk.common;
    let signs = common.public_key_use.as_ref().is_none_or(|purpose| *purpose == PublicKeyUse::Signature);
    let (algorithm, expected) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        _ => return None,
    };
    debug_assert!(ALGORITHMS.contains(&algorithm));
    (signs && common.key_algorithm.as_ref().is_none_or(|named| *named == expected)).then_some(algorithm)
}
