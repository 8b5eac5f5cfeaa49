//! From the header `authorization` to the one who asks.

use super::{keys::Keys, tokens::Tokens};
use crate::{
    access::{ApiKey, Principal},
    api::Problem,
    config::Auth,
    runtime::web::problem,
    storage::Database,
};
use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use std::{fmt, sync::Arc};

/// Tells a client how to prove who it is.
const CHALLENGE: &str = "Bearer realm=\"tasker\"";

/// Why authentication cannot be set up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The issuer's key cannot be read.
    #[error("failed to read the key in {file} (auth.jwt.public_key): {reason}")]
    KeyFile {
        /// The file.
        file: String,
        /// Why.
        reason: String,
    },
    /// No client to fetch the issuer's keys.
    #[error("failed to prepare the fetch of auth.jwt.jwks_url: {0}")]
    Client(String),
}

/// Why a caller is not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// It did not say who it is.
    Missing,
    /// What it says is not accepted.
    Invalid(String),
    /// It cannot be checked now.
    Unavailable(String),
}

/// Knows who asks; cheap to clone.
#[derive(Clone)]
pub struct Authenticator {
    inner: Option<Arc<Inner>>,
    any_host: bool,
}

struct Inner {
    keys: Keys,
    tokens: Option<Tokens>,
}

impl Authenticator {
    /// As configured.
    ///
    /// # Errors
    /// [`Error`] names the setting.
    pub fn new(settings: &Auth, database: &Database) -> Result<Self, Error> {
        if !settings.enabled {
            return Ok(Self { inner: None, any_host: settings.allow_unauthenticated_public_address });
        }
        let keys = Keys::new(database.clone(), settings.key_cache);
        let inner = Inner { keys, tokens: Tokens::new(&settings.jwt)? };
        Ok(Self { inner: Some(Arc::new(inner)), any_host: true })
    }

    /// One that takes everybody for anyone.
    pub fn off() -> Self {
        Self { inner: None, any_host: false }
    }

    /// Whether callers must prove who they are.
    pub fn is_on(&self) -> bool {
        self.inner.is_some()
    }

    /// Whether it does not matter by which name the service is called: callers prove who they are, or something else keeps
    /// strangers away.
    pub(super) fn answers_to_any_host(&self) -> bool {
        self.any_host
    }

    /// The one who sends these headers.
    ///
    /// # Errors
    /// [`Denied`], when authentication is on.
    pub async fn authenticate(&self, headers: &HeaderMap) -> Result<Principal, Denied> {
        let Some(inner) = &self.inner else { return Ok(Principal::anyone()) };
        let credential = bearer(headers)?;
        match &inner.tokens {
            _ if ApiKey::is_meant(credential) => inner.keys.check(credential).await,
            Some(tokens) => tokens.check(credential).await,
            None => Err(Denied::invalid("the credential is no API key, and tokens are not accepted here")),
        }
    }
}

fn bearer(headers: &HeaderMap) -> Result<&str, Denied> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), more) = (values.next(), values.next()) else { return Err(Denied::Missing) };
    if more.is_some() {
        return Err(Denied::invalid("the header `authorization` is there twice"));
    }
    let text = value.to_str().unwrap_or_default();
    match text.split_once(' ') {
        Some((scheme, credential)) if scheme.eq_ignore_ascii_case("bearer") && !credential.trim().is_empty() => {
            Ok(credential.trim())
        }
        _ => Err(Denied::invalid("the header `authorization` must be `Bearer` and an API key or a token")),
    }
}

impl Denied {
    pub(super) fn invalid(reason: impl Into<String>) -> Self {
        Self::Invalid(reason.into())
    }

    /// As an answer.
    pub(super) fn problem(&self) -> Problem {
        match self {
            Self::Missing => Problem {
                detail: Some(
                    "send `Authorization: Bearer` with an API key or a token; with the command: --token or TASKER_TOKEN"
                        .to_owned(),
                ),
                ..problem(StatusCode::UNAUTHORIZED, "unauthenticated", "this needs an API key or a token")
            },
            Self::Invalid(reason) => problem(StatusCode::UNAUTHORIZED, "unauthenticated", reason.clone()),
            Self::Unavailable(reason) => problem(
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                format!("it cannot be checked who you are: {reason}"),
            ),
        }
    }
}

impl IntoResponse for Denied {
    fn into_response(self) -> Response {
        let mut response = self.problem().into_response();
        let challenge = match &self {
            Self::Missing => Some(HeaderValue::from_static(CHALLENGE)),
            Self::Invalid(reason) => {
                // the reason is ASCII but for names of keys, and has no quotes but these
                let reason: String =
                    reason.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').filter(|c| *c != '"').collect();
                let text =
                    format!("{CHALLENGE}, error=\"invalid_token\", error_description=\"{}\"", reason.replace('\\', ""));
                HeaderValue::from_str(&text).ok()
            }
            Self::Unavailable(_) => None,
        };
        response.headers_mut().extend(challenge.map(|challenge| (header::WWW_AUTHENTICATE, challenge)));
        response
    }
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_on() { "Authenticator(on)" } else { "Authenticator(off)" })
    }
}

#[cfg(test)]
mod tests {
    use super::{Denied, bearer};
    use axum::{
        http::{HeaderMap, HeaderValue, header::AUTHORIZATION},
        response::IntoResponse as _,
    };

    fn headers(values: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn the_credential_is_what_follows_the_one_bearer() {
        assert_eq!(bearer(&headers(&["Bearer abc"])), Ok("abc"));
        assert_eq!(bearer(&headers(&["bearer  abc "])), Ok("abc"));
        assert_eq!(bearer(&headers(&[])), Err(Denied::Missing));
        for wrong in [&["Basic abc"] as &[_], &["Bearer"], &["Bearer "], &["abc"], &["Bearer a", "Bearer a"]] {
            assert!(matches!(bearer(&headers(wrong)), Err(Denied::Invalid(_))), "{wrong:?}");
        }
    }

    #[test]
    fn a_refusal_tells_how_to_ask_and_cannot_break_the_header() {
        let told = |denied: Denied| {
            let response = denied.into_response();
            let challenge = response.headers().get("www-authenticate").map(|v| v.to_str().unwrap().to_owned());
            (response.status().as_u16(), challenge)
        };
        assert_eq!(told(Denied::Missing), (401, Some("Bearer realm=\"tasker\"".to_owned())));
        let (status, challenge) = told(Denied::invalid("the key `a\"\r\nx: \\é` is revoked"));
        let expected =
            "Bearer realm=\"tasker\", error=\"invalid_token\", error_description=\"the key `ax: ` is revoked\"";
        assert_eq!((status, challenge.as_deref()), (401, Some(expected)));
        assert_eq!(told(Denied::Unavailable("x".into())), (503, None));
    }
}
