//! What a step asks to be called, read from its `initialization`.

use crate::handler::{
    HandlerError, StepContext,
    document::{Document, Placeholders},
};
use reqwest::{
    Client, Method, RequestBuilder, StatusCode, Url,
    header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use tasker_shared::{template::headers, url::without_secrets};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Initialization {
    url: String,
    #[serde(default = "get")]
    method: String,
    #[serde(default)]
    query: Map<String, Value>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: Option<Value>,
    timeout_ms: Option<u64>,
    success_codes: Option<Vec<u16>>,
    retryable_codes: Option<Vec<u16>>,
    #[serde(default)]
    result: ResultForm,
    #[serde(default)]
    response_headers: Vec<String>,
}

fn get() -> String {
    "GET".to_owned()
}

/// What the step's result is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ResultForm {
    #[default]
    Response,
    Body,
}

/// A call with every placeholder filled.
pub(super) struct Call {
    initialization: Initialization,
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Option<Value>,
}

/// Where a request goes: to the step's `url`, or to where a redirect leads.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) with_body: bool,
}

impl Call {
    /// Reads the step's `initialization`.
    ///
    /// # Errors
    /// A permanent failure that names the key.
    pub(super) fn of(context: &StepContext) -> Result<Self, HandlerError> {
        let initialization: Initialization = context.initialization_as()?;
        let placeholders = Placeholders::of(context);
        let method = placeholders.text("method", &initialization.method)?;
        let method = Method::from_bytes(method.to_ascii_uppercase().as_bytes())
            .map_err(|_| HandlerError::fail(format!("`method` is `{method}`, which is no HTTP method")))?;
        let url = url(&placeholders, &initialization)?;
        let headers = headers(&placeholders, &initialization.headers)?;
        let body = initialization.body.as_ref().map(|body| placeholders.value("body", body)).transpose()?;
        Ok(Self { initialization, method, url, headers, body })
    }

    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    pub(super) fn timeout_ms(&self) -> Option<u64> {
        self.initialization.timeout_ms
    }

    pub(super) fn result_form(&self) -> ResultForm {
        self.initialization.result
    }

    /// `POST https://host/path`: for messages.
    pub(super) fn shown(&self) -> String {
        format!("{} {}", self.method, without_secrets(self.url.as_str()))
    }

    pub(super) fn is_success(&self, status: StatusCode) -> bool {
        let listed = self.initialization.success_codes.as_ref().map(|codes| codes.contains(&status.as_u16()));
        listed.unwrap_or_else(|| status.is_success())
    }

    pub(super) fn is_retryable(&self, status: StatusCode) -> bool {
        let listed = self.initialization.retryable_codes.as_ref().map(|codes| codes.contains(&status.as_u16()));
        listed.unwrap_or_else(|| matches!(status.as_u16(), 408 | 425 | 429) || status.is_server_error())
    }

    /// Whether the response header `name` is kept in the result.
    pub(super) fn keeps_header(&self, name: &str) -> bool {
        const KEPT: [&str; 7] = ["content-type", "date", "etag", "last-modified", "link", "location", "x-request-id"];
        KEPT.contains(&name) || self.initialization.response_headers.iter().any(|kept| kept.eq_ignore_ascii_case(name))
    }

    pub(super) fn method(&self) -> &Method {
        &self.method
    }

    /// The request to `to`, ready to be sent. What the step itself says about headers goes to the origin of its `url` alone.
    ///
    /// # Errors
    /// A permanent failure when the body is not JSON.
    pub(super) fn request(
        &self,
        client: &Client,
        context: &StepContext,
        to: &Target,
    ) -> Result<RequestBuilder, HandlerError> {
        let mut headers = if to.url.origin() == self.url.origin() { self.headers.clone() } else { HeaderMap::new() };
        set_default(&mut headers, HeaderName::from_static("idempotency-key"), &context.idempotency_key());
        set_default(&mut headers, ACCEPT, "application/json, */*;q=0.5");
        if let Some(traceparent) = &context.traceparent {
            set_default(&mut headers, HeaderName::from_static("traceparent"), traceparent);
        }
        let body = if to.with_body { self.body_bytes(context)? } else { None };
        if let Some((_, content_type)) = &body {
            set_default(&mut headers, CONTENT_TYPE, content_type);
        }
        let request = client.request(to.method.clone(), to.url.clone()).headers(headers);
        Ok(if let Some((bytes, _)) = body { request.body(bytes) } else { request })
    }

    fn body_bytes(&self, context: &StepContext) -> Result<Option<(Vec<u8>, &'static str)>, HandlerError> {
        const JSON: &str = "application/json";
        let json = match &self.body {
            Some(Value::String(text)) => return Ok(Some((text.clone().into_bytes(), "text/plain; charset=utf-8"))),
            Some(body) => serde_json::to_vec(body),
            None if [Method::POST, Method::PUT, Method::PATCH].contains(&self.method) => {
                serde_json::to_vec(&Document::of(context))
            }
            None => return Ok(None),
        };
        json.map(|bytes| Some((bytes, JSON))).map_err(HandlerError::fail)
    }
}

fn url(placeholders: &Placeholders, initialization: &Initialization) -> Result<Url, HandlerError> {
    let text = placeholders.text("url", &initialization.url)?;
    let mut url: Url = text.parse().map_err(|error| {
        HandlerError::fail(format!("`url` is `{}`, which is no URL: {error}", without_secrets(&text)))
    })?;
    for (name, value) in &initialization.query {
        let value = match placeholders.value(&format!("query.{name}"), value)? {
            Value::Null => continue,
            Value::String(text) => text,
            other => other.to_string(),
        };
        url.query_pairs_mut().append_pair(name, &value);
    }
    Ok(url)
}

fn headers(placeholders: &Placeholders, texts: &BTreeMap<String, String>) -> Result<HeaderMap, HandlerError> {
    let mut filled = HeaderMap::new();
    for (name, text) in texts {
        let key = format!("headers.{name}");
        let value = placeholders.text(&key, text)?;
        let bad = |what: &str| HandlerError::fail(format!("`{key}` has a {what} that HTTP does not allow"));
        if headers::belongs_to_connection(name) {
            return Err(HandlerError::fail(format!("`{key}` cannot be sent: {}", headers::REASON)));
        }
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad("name"))?;
        filled.insert(name, HeaderValue::from_str(&value).map_err(|_| bad("value"))?);
    }
    Ok(filled)
}

fn set_default(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.entry(name).or_insert(value);
    }
}
