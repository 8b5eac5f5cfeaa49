//! Tokens (JWT) of the configured issuer.

use super::{
    authenticator::{Denied, Error},
    published::{Missing, Published},
    signature::{self, ALGORITHMS},
};
use crate::{
    access::{Grant, Namespaces, Principal},
    config::Jwt,
};
use chrono::DateTime;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header, errors::ErrorKind};
use serde_json::{Map, Value};
use std::fs;

/// The longest subject, in bytes.
const LONGEST_SUBJECT: usize = 200;

/// Checks tokens.
pub(super) struct Tokens {
    settings: Jwt,
    keys: Keys,
}

enum Keys {
    Fixed(Algorithm, DecodingKey),
    Published(Published),
}

impl Tokens {
    /// As configured; `None` when tokens are not accepted.
    pub(super) fn new(settings: &Jwt) -> Result<Option<Self>, Error> {
        let keys = match (&settings.public_key, &settings.jwks_url) {
            (Some(file), _) => {
                let name = file.display().to_string();
                let pem = fs::read(file)
                    .map_err(|source| Error::KeyFile { file: name.clone(), reason: source.to_string() })?;
                let (algorithm, key) = read_key(&pem).ok_or_else(|| Error::KeyFile {
                    file: name,
                    reason: "it has no RSA or P-256 public key in PEM".to_owned(),
                })?;
                Keys::Fixed(algorithm, key)
            }
            (None, Some(url)) => {
                let published = Published::new(url.clone(), settings.jwks_refresh, settings.jwks_min_interval);
                Keys::Published(published.map_err(|error| Error::Client(error.to_string()))?)
            }
            (None, None) => return Ok(None),
        };
        signature::install();
        Ok(Some(Self { settings: settings.clone(), keys }))
    }

    /// The subject of a token that is in order.
    pub(super) async fn check(&self, token: &str) -> Result<Principal, Denied> {
        let header = decode_header(token).map_err(|_| Denied::invalid("the token is neither an API key nor a JWT"))?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(Denied::invalid("the token must be signed with RS256 or ES256"));
        }
        if header.crit.is_some() {
            return Err(Denied::invalid("the token asks for extensions that are not understood"));
        }
        let keys = match &self.keys {
            Keys::Fixed(algorithm, key) if *algorithm == header.alg => vec![key.clone()],
            Keys::Fixed(..) => return Err(Denied::invalid("the token is signed with another kind of key")),
            Keys::Published(published) => {
                published.keys(header.kid.as_deref(), header.alg).await.map_err(|missing| match missing {
                    Missing::Unknown => Denied::invalid(format!("the token is not valid: {missing}")),
                    Missing::Unavailable => Denied::Unavailable(missing.to_string()),
                })?
            }
        };
        let mut refused = Denied::invalid("the token's signature is wrong");
        for key in keys {
            match decode::<Map<String, Value>>(token, &key, &self.validation(header.alg)) {
                Ok(decoded) => return self.principal(&decoded.claims),
                // another key of the same name may have signed it
                Err(error) => refused = Denied::invalid(reason(error.kind())),
            }
        }
        Err(refused)
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.leeway = self.settings.leeway.as_secs();
        validation.validate_nbf = true;
        validation.set_issuer(&[&self.settings.issuer]);
        validation.set_audience(&[&self.settings.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation
    }

    fn principal(&self, claims: &Map<String, Value>) -> Result<Principal, Denied> {
        let subject = claims.get("sub").and_then(Value::as_str).unwrap_or_default();
        if claims.get("nbf").is_some_and(|nbf| !nbf.is_number()) {
            return Err(Denied::invalid("the token is not valid: `nbf` is no time"));
        }
        let legible = (1..=LONGEST_SUBJECT).contains(&subject.len()) && !subject.chars().any(char::is_control);
        if !legible {
            return Err(Denied::invalid(format!("the token's subject must have 1 to {LONGEST_SUBJECT} legible bytes")));
        }
        // an issuer also serves others: words that are not known here grant nothing here
        let words = words(claims, &self.settings.permissions_claim);
        let grants: Vec<Grant> = words.iter().filter_map(|word| word.parse().ok()).collect();
        let namespaces = Namespaces::from_list(self::words(claims, &self.settings.namespaces_claim));
        // a fraction of a second is cut off
        let ends = claims.get("exp").and_then(Value::as_f64).and_then(|exp| DateTime::from_timestamp(exp as i64, 0));
        Ok(Principal::of_token(subject, grants, namespaces).until(ends))
    }
}

fn read_key(pem: &[u8]) -> Option<(Algorithm, DecodingKey)> {
    let rsa = || DecodingKey::from_rsa_pem(pem).ok().map(|key| (Algorithm::RS256, key));
    let p256 = || DecodingKey::from_ec_pem(pem).ok().map(|key| (Algorithm::ES256, key));
    rsa().or_else(p256)
}

/// The texts of a claim: a list, or words in one text. The claim's name counts as a whole first, then as a path.
fn words(claims: &Map<String, Value>, name: &str) -> Vec<String> {
    let nested = || {
        let mut parts = name.split('.');
        let first = claims.get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.get(part))
    };
    match claims.get(name).or_else(nested) {
        Some(Value::String(text)) => text.split_whitespace().map(str::to_owned).collect(),
        Some(Value::Array(items)) => items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect(),
        _ => Vec::new(),
    }
}

fn reason(kind: &ErrorKind) -> String {
    match kind {
        ErrorKind::ExpiredSignature => "the token has expired".to_owned(),
        ErrorKind::ImmatureSignature => "the token is not valid yet".to_owned(),
        ErrorKind::InvalidIssuer => "the token is of another issuer".to_owned(),
        ErrorKind::InvalidAudience => "the token is for another audience".to_owned(),
        ErrorKind::MissingRequiredClaim(claim) => format!("the token lacks the claim `{claim}`"),
        ErrorKind::InvalidSignature => "the token's signature is wrong".to_owned(),
        _ => "the token is not valid".to_owned(),
    }
}

#[cfg(test)]
mod tests;
