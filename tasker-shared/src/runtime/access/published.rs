//! The keys that an issuer publishes (JWKS): kept, and fetched again when they are old or a token names one that is new.

use super::signature::ALGORITHMS;
use crate::url::without_secrets;
use jsonwebtoken::{
    DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse},
};
use reqwest::redirect;
use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
    time::{Duration, Instant},
};
use tokio::sync::Mutex;

/// The longest fetch.
const PATIENCE: Duration = Duration::from_secs(5);

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

#[derive(Default)]
struct Known {
    keys: HashMap<String, DecodingKey>,
    fetched: Option<Instant>,
}

impl Published {
    pub(super) fn new(url: String, refresh: Duration, min_interval: Duration) -> Result<Self, reqwest::Error> {
        // a provider that is installed already is as good
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().timeout(PATIENCE).redirect(redirect::Policy::none()).build()?;
        Ok(Self { url, client, refresh, min_interval, known: RwLock::default(), fetching: Mutex::default() })
    }

    /// The key of this id; without one, the only key that there is.
    pub(super) async fn key(&self, id: Option<&str>) -> Result<DecodingKey, Missing> {
        let found = self.find(id);
        match (found, self.is_old()) {
            (Some(key), false) => Ok(key),
            (Some(key), true) => {
                // one request fetches; the others go on with what is known
                if let Ok(mut attempted) = self.fetching.try_lock() {
                    self.fetch(&mut attempted).await;
                    return self.find(id).ok_or(Missing::Unknown);
                }
                Ok(key)
            }
            (None, _) => {
                let mut attempted = self.fetching.lock().await;
                if let Some(key) = self.find(id) {
                    return Ok(key);
                }
                self.fetch(&mut attempted).await;
                let missing = if self.has_any() { Missing::Unknown } else { Missing::Unavailable };
                self.find(id).ok_or(missing)
            }
        }
    }

    fn find(&self, id: Option<&str>) -> Option<DecodingKey> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        match id {
            Some(id) => known.keys.get(id).cloned(),
            None if known.keys.len() == 1 => known.keys.values().next().cloned(),
            None => None,
        }
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
    Ok(read(document)?.into_keys().collect())
}

/// The keys that can check the signatures of tokens; others are of no use here.
fn read(document: &[u8]) -> Result<HashMap<String, DecodingKey>, String> {
    let set: JwkSet =
        serde_json::from_slice(document).map_err(|error| format!("the document is no key set: {error}"))?;
    let usable = set.keys.iter().filter(|jwk| checks_signatures(jwk)).filter_map(|jwk| {
        let key = DecodingKey::from_jwk(jwk).ok()?;
        Some((jwk.common.key_id.clone().unwrap_or_default(), key))
    });
    Ok(usable.collect())
}

fn checks_signatures(jwk: &Jwk) -> bool {
    let common = &jwk.common;
    let signs = common.public_key_use.as_ref().is_none_or(|purpose| *purpose == PublicKeyUse::Signature);
    let expected = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => KeyAlgorithm::RS256,
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => KeyAlgorithm::ES256,
        _ => return false,
    };
    debug_assert!(ALGORITHMS.len() == 2);
    signs && common.key_algorithm.as_ref().is_none_or(|algorithm| *algorithm == expected)
}
