//! API keys: `tsk_PREFIX_SECRET`. The prefix finds the key; the whole of it, hashed, proves it.

use rand::{RngExt as _, distr::Alphanumeric};
use sha2::{Digest, Sha256};
use std::fmt;

const MARK: &str = "tsk_";
/// Characters of the prefix.
const PREFIX: usize = 12;
/// Characters of the secret: 43 of 62 different ones are 256 bits.
const SECRET: usize = 43;

/// A key, whole. Shown to a person once, at its creation; never stored and never logged.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

/// The text is no API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an API key looks like {MARK}PREFIX_SECRET")]
pub struct Malformed;

impl ApiKey {
    /// A new one from the machine's random numbers.
    pub fn generate() -> Self {
        let mut random = rand::rng();
        let mut text = |length| (0..length).map(|_| char::from(random.sample(Alphanumeric))).collect::<String>();
        Self(format!("{MARK}{}_{}", text(PREFIX).to_ascii_lowercase(), text(SECRET)))
    }

    /// Reads a key as a caller sends it.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn read(text: &str) -> Result<Self, Malformed> {
        let (prefix, secret) = text.strip_prefix(MARK).and_then(|rest| rest.split_once('_')).ok_or(Malformed)?;
        let made_of = |text: &str, length| text.len() == length && text.bytes().all(|b| b.is_ascii_alphanumeric());
        if made_of(prefix, PREFIX) && made_of(secret, SECRET) { Ok(Self(text.to_owned())) } else { Err(Malformed) }
    }

    /// Whether a text wants to be a key.
    pub fn is_meant(text: &str) -> bool {
        text.starts_with(MARK)
    }

    /// The part that may be stored and shown.
    pub fn prefix(&self) -> &str {
        self.0.get(MARK.len()..MARK.len() + PREFIX).unwrap_or_default()
    }

    /// What is stored instead of the key. One round of SHA-256 is enough for 256 random bits; see docs/decisions.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(&self.0).into()
    }

    /// The key itself, to hand it out.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{MARK}{}_***", self.prefix())
    }
}

#[cfg(test)]
mod tests {
    use super::ApiKey;

    #[test]
    fn keys_differ_and_are_read_as_they_were_made() {
        let (a, b) = (ApiKey::generate(), ApiKey::generate());
        assert!(a != b && a.prefix() != b.prefix() && a.hash() != b.hash());
        assert_eq!(ApiKey::read(a.expose()), Ok(a.clone()));
        assert_eq!((a.prefix().len(), a.expose().len()), (12, 60));
    }

    #[test]
    fn what_is_shown_for_debugging_has_no_secret() {
        let key = ApiKey::generate();
        let secret = key.expose().rsplit('_').next().unwrap();
        assert!(!format!("{key:?}").contains(secret));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let key = ApiKey::generate();
        let long = format!("{}x", key.expose());
        let short = &key.expose()[..59];
        let other = key.expose().replace("tsk_", "tsx_");
        for text in ["", "tsk_", "tsk__", "tsk_a_b", long.as_str(), short, other.as_str(), "tsk_é_é"] {
            assert!(ApiKey::read(text).is_err(), "{text}");
        }
    }
}
