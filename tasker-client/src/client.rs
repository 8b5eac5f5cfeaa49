//! The connection: builds requests, sends them, and decodes what comes back.

use crate::Error;
use reqwest::{
    Certificate, ClientBuilder, Identity, Method, RequestBuilder, Response, StatusCode, Url,
    header::{AUTHORIZATION, HeaderMap, HeaderValue},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{fmt, time::Duration};
use tasker_shared::url::without_secrets;

/// How long to wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection is kept for the next request: less than the service keeps it.
const IDLE: Duration = Duration::from_secs(60);
/// How long to wait for a whole answer, unless the caller says otherwise.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// What a client proves who it is with, and whom it trusts. Nothing of it is shown for debugging.
#[derive(Clone, Default)]
pub struct Credentials {
    /// An API key or a token (JWT).
    pub token: Option<String>,
    /// Certificates (PEM) of authorities to trust beside the machine's own.
    pub authority: Option<Vec<u8>>,
    /// A client certificate and its private key (PEM), for services that ask for one.
    pub certificate: Option<Vec<u8>>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("token", &self.token.as_ref().map(|_| "***")).finish_non_exhaustive()
    }
}

/// A connection to one orchestration service.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    shown: String,
    timeout: Duration,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("url", &self.shown).field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl Client {
    /// A client of the service at `url`, such as `http://127.0.0.1:8080`. Nothing is sent yet.
    ///
    /// TLS uses the process's rustls provider; where none is installed, *ring* becomes it.
    ///
    /// # Errors
    /// [`Error::Url`] when `url` is not an `http` or `https` address.
    pub fn new(url: &str) -> Result<Self, Error> {
        Self::with_timeout(url, ANSWER_TIMEOUT)
    }

    /// Like [`Client::new`], with the longest time that an answer may take.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn with_timeout(url: &str, timeout: Duration) -> Result<Self, Error> {
        Self::build(url, timeout, &Credentials::default())
    }

    /// Like [`Client::new`], for a service that asks who calls, or that has a certificate of an authority of its own.
    ///
    /// # Errors
    /// As [`Client::new`], and [`Error::Credentials`].
    pub fn with_credentials(url: &str, credentials: &Credentials) -> Result<Self, Error> {
        Self::build(url, ANSWER_TIMEOUT, credentials)
    }

    fn build(url: &str, timeout: Duration, credentials: &Credentials) -> Result<Self, Error> {
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // Another thread may be first; then its provider is as good.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let base = parse(url)?;
        let http = reqwest::Client::builder()
            .user_agent(concat!("tasker-client/", env!("CARGO_PKG_VERSION")))
            .pool_idle_timeout(IDLE)
            .connect_timeout(CONNECT_TIMEOUT);
        let http = proving(http, credentials)?
            .build()
            .map_err(|error| Error::Url { url: without_secrets(url), reason: error.without_url().to_string() })?;
        let shown = without_secrets(base.as_str().trim_end_matches('/'));
        Ok(Self { http, base, shown, timeout })
    }

    /// The address of the service; a password and other secrets in it are not shown.
    pub fn url(&self) -> &str {
        &self.shown
    }

    pub(crate) fn request(&self, method: Method, path: &[&str]) -> Request<'_> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        Request { builder: self.http.request(method, url), client: self, timeout: self.timeout }
    }

    pub(crate) fn get(&self, path: &[&str]) -> Request<'_> {
        self.request(Method::GET, path)
    }

    pub(crate) fn post(&self, path: &[&str], body: &impl Serialize) -> Request<'_> {
        self.send_json(Method::POST, path, body)
    }

    pub(crate) fn send_json(&self, method: Method, path: &[&str], body: &impl Serialize) -> Request<'_> {
        let request = self.request(method, path);
        Request { builder: request.builder.json(body), ..request }
    }
}

/// One request on its way out.
pub(crate) struct Request<'a> {
    builder: RequestBuilder,
    client: &'a Client,
    timeout: Duration,
}

impl Request<'_> {
    pub(crate) fn query(self, query: &impl Serialize) -> Self {
        Self { builder: self.builder.query(query), ..self }
    }

    /// Leaves the service `longer` than usual, for routes that hold the answer back.
    pub(crate) fn patience(self, longer: Duration) -> Self {
        Self { timeout: self.timeout.saturating_add(longer), ..self }
    }

    /// Sends it and decodes the answer of a success.
    pub(crate) async fn send<T: DeserializeOwned>(self) -> Result<T, Error> {
        self.send_accepting(StatusCode::is_success).await
    }

    /// Sends it and decodes the answer of a status that `accepts`.
    pub(crate) async fn send_accepting<T: DeserializeOwned>(
        self,
        accepts: impl Fn(&StatusCode) -> bool,
    ) -> Result<T, Error> {
        let client = self.client;
        let (status, body) = self.send_raw(accepts).await?;
        serde_json::from_slice(&body)
            .map_err(|error| Error::unexpected(client.url(), status.as_u16(), &error.to_string()))
    }

    /// Sends it and reads the text of a success.
    pub(crate) async fn send_for_text(self) -> Result<String, Error> {
        let client = self.client;
        let (status, body) = self.send_raw(StatusCode::is_success).await?;
        String::from_utf8(body).map_err(|error| Error::unexpected(client.url(), status.as_u16(), &error.to_string()))
    }

    async fn send_raw(self, accepts: impl Fn(&StatusCode) -> bool) -> Result<(StatusCode, Vec<u8>), Error> {
        let Self { builder, client, timeout } = self;
        let lost = |error| Error::transport(client.url(), timeout, error);
        let answer = builder.timeout(timeout).send().await.map_err(lost)?;
        let status = answer.status();
        let body = body(answer).await.map_err(lost)?;
        if accepts(&status) { Ok((status, body)) } else { Err(Error::refusal(client.url(), status.as_u16(), &body)) }
    }
}

async fn body(answer: Response) -> Result<Vec<u8>, reqwest::Error> {
    Ok(answer.bytes().await?.to_vec())
}

fn proving(mut http: ClientBuilder, credentials: &Credentials) -> Result<ClientBuilder, Error> {
    let refused = |what: &'static str, reason: String| Error::Credentials { what, reason };
    if let Some(token) = &credentials.token {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim()))
            .map_err(|_| refused("the token", "it has characters that no header may have".to_owned()))?;
        value.set_sensitive(true);
        http = http.default_headers(HeaderMap::from_iter([(AUTHORIZATION, value)]));
    }
    if let Some(pem) = &credentials.authority {
        let found =
            Certificate::from_pem_bundle(pem).map_err(|e| refused("the authority's certificate", e.to_string()))?;
        if found.is_empty() {
            return Err(refused("the authority's certificate", "the file has none in PEM".to_owned()));
        }
        http = http.tls_certs_merge(found);
    }
    if let Some(pem) = &credentials.certificate {
        let identity = Identity::from_pem(pem).map_err(|e| refused("the client certificate", e.to_string()))?;
        http = http.identity(identity);
    }
    Ok(http)
}

fn parse(text: &str) -> Result<Url, Error> {
    let refuse = |reason: String| Error::Url { url: without_secrets(text), reason };
    let url = Url::parse(text).map_err(|error| refuse(error.to_string()))?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        other => Err(refuse(format!("the scheme `{other}` is neither http nor https"))),
    }
}
