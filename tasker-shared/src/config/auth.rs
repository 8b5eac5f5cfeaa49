//! The section `[auth]` as the program sees it.

use super::sections::{milliseconds, path_unless_empty, unless_empty};
use crate::url::without_secrets;
use serde::{Deserialize, Deserializer};
use std::{fmt, path::PathBuf, time::Duration};

/// Who may use the HTTP of both services.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// Whether callers must prove who they are.
    pub enabled: bool,
    /// Whether an address that other machines reach may be opened while authentication is off.
    pub allow_unauthenticated_public_address: bool,
    /// How long a checked API key is remembered.
    #[serde(rename = "key_cache_ms", deserialize_with = "milliseconds")]
    pub key_cache: Duration,
    /// Tokens of an issuer.
    pub jwt: Jwt,
}

/// Tokens of an issuer.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jwt {
    /// A PEM file with the issuer's public key.
    #[serde(deserialize_with = "path_unless_empty")]
    pub public_key: Option<PathBuf>,
    /// Where the issuer publishes its keys.
    #[serde(deserialize_with = "unless_empty")]
    pub jwks_url: Option<String>,
    /// How old the published keys may become.
    #[serde(rename = "jwks_refresh_ms", deserialize_with = "milliseconds")]
    pub jwks_refresh: Duration,
    /// The shortest time between two fetches.
    #[serde(rename = "jwks_min_interval_ms", deserialize_with = "milliseconds")]
    pub jwks_min_interval: Duration,
    /// What the claim `iss` must be.
    pub issuer: String,
    /// What the claim `aud` must have in it.
    pub audience: String,
    /// How far the clocks of issuer and service may be apart.
    #[serde(rename = "leeway_seconds", deserialize_with = "seconds")]
    pub leeway: Duration,
    /// The claim with the permissions.
    pub permissions_claim: String,
    /// The claim with the namespaces.
    pub namespaces_claim: String,
}

impl fmt::Debug for Jwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwt")
            .field("public_key", &self.public_key)
            .field("jwks_url", &self.jwks_url.as_deref().map(without_secrets))
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

impl Jwt {
    /// Whether tokens are accepted at all.
    pub fn is_configured(&self) -> bool {
        self.public_key.is_some() || self.jwks_url.is_some()
    }
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    u64::deserialize(deserializer).map(Duration::from_secs)
}
