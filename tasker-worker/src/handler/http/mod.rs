//! The built-in handler `http`: calls a service that does the step's work.
//!
//! `initialization` of the step:
//!
//! | key | meaning |
//! |---|---|
//! | `url` | http or https; the host must be allowed by the worker's settings |
//! | `method` | `GET` unless given |
//! | `query`, `headers` | name to text |
//! | `body` | a text, or JSON. For `POST`, `PUT` and `PATCH` without it: the step as one JSON document |
//! | `timeout_ms` | at most the worker's own limit |
//! | `success_codes` | statuses that are a success, instead of 200 to 299 |
//! | `retryable_codes` | statuses that are tried again, instead of 408, 425, 429 and 500 to 599 |
//! | `result` | `response` (status, headers and body; the default) or `body` |
//! | `response_headers` | further headers to keep in the result |
//!
//! A host that gives no answer time after time, or answers 502, 503 or 504, is left alone for a while: its steps run later,
//! and the attempts that were not made do not count.
//!
//! Texts have placeholders such as `{{ input.order_id|urlencode }}`. A call carries `Idempotency-Key` and
//! `traceparent`, unless the step sets these itself. Proxies named by the worker's environment are not used, so that
//! the address that was checked is the one that is called.

mod address;
mod guard;
mod hosts;
mod redirect;
mod request;
mod response;
#[cfg(test)]
mod tests;

use super::{HandlerError, HandlerType, StepContext, StepHandler};
use guard::Guard;
use hosts::Hosts;
use request::Call;
use reqwest::{Client, redirect::Policy as Redirects};
use serde::Deserialize;
use serde_json::Value;
use std::{sync::Arc, time::Duration};
use tasker_shared::breaker::{Breakers, Policy};

/// What the `http` handler may do on this worker.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpSettings {
    /// Whether it does anything at all.
    pub enabled: bool,
    /// The hosts that may be called: `api.example.com`, `*.example.com` (any host below it), with `:port` to allow
    /// one port only, an address, a range such as `10.0.0.0/8`, or `*` for every host. Where a name may lead is told in
    /// `docs/handlers.md`.
    pub allowed_hosts: Vec<String>,
    /// The largest response body, in bytes.
    pub max_response_bytes: usize,
    /// The longest call, in milliseconds; a step may ask for less.
    pub timeout_ms: u64,
    /// When a host that fails is left alone.
    #[serde(skip)]
    pub breaker: Policy,
    /// How many failing hosts are remembered.
    pub max_failing_hosts: usize,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            enabled: false,
            allowed_hosts: Vec::new(),
            max_response_bytes: 1024 * 1024,
            timeout_ms: 30_000,
            breaker: Policy::default(),
            max_failing_hosts: 1_000,
        }
    }
}

/// The built-in handler `http`.
pub struct HttpHandler {
    settings: HttpSettings,
    guard: Arc<Guard>,
    hosts: Hosts,
    client: Result<Client, String>,
}

impl HttpHandler {
    /// A handler with its own connections. Installs the process's TLS provider if none is installed.
    pub fn new(settings: HttpSettings) -> Self {
        let guard = Arc::new(Guard::new(&settings.allowed_hosts));
        let client = if settings.enabled { client(&guard) } else { Err("it is off".to_owned()) };
        let hosts = Hosts::new(settings.breaker, settings.max_failing_hosts);
        Self { settings, guard, hosts, client }
    }

    async fn exchange(&self, context: &StepContext) -> Result<Value, HandlerError> {
        if !self.settings.enabled {
            return Err(HandlerError::fail(
                "the `http` handler is off on this worker: set `worker.http.enabled` and name the hosts it may call in \
                 `worker.http.allowed_hosts`",
            ));
        }
        let client = self.client.as_ref().map_err(|reason| HandlerError::retry(format!("no HTTP client: {reason}")))?;
        let call = Call::of(context)?;
        self.guard.check(call.url()).map_err(HandlerError::fail)?;
        let limit = Duration::from_millis(call.timeout_ms().unwrap_or(u64::MAX).min(self.settings.timeout_ms));
        let name = format!(
            "{}:{}",
            call.url().host_str().unwrap_or_default(),
            call.url().port_or_known_default().unwrap_or_default()
        );
        let under_way = self.hosts.admit(name, context.deadline()).map_err(|wait| {
            let message =
                format!("{} was not called: it failed time after time, and is left alone for a while", call.shown());
            HandlerError::not_tried(message).after(wait)
        })?;
        let answer = match redirect::send(client, &self.guard, &call, context, limit).await {
            Ok(response) => response::receive(response, &call, limit, self.settings.max_response_bytes).await,
            Err(error) => Err(error),
        };
        match &answer {
            Err(error) if error.blames_host() => under_way.failed(),
            _ => under_way.succeeded(),
        }
        answer
    }
}

#[async_trait::async_trait]
impl StepHandler for HttpHandler {
    async fn call(&self, context: StepContext) -> Result<Value, HandlerError> {
        tokio::select! {
            result = self.exchange(&context) => result,
            () = context.cancelled() => Err(HandlerError::retry("the call was given up")),
        }
    }

    fn show_breakers(&self, breakers: &Breakers) {
        if self.settings.enabled {
            self.hosts.show_in(breakers);
        }
    }

    fn kind(&self) -> HandlerType {
        HandlerType::Http
    }
}

fn client(guard: &Arc<Guard>) -> Result<Client, String> {
    // An error means that a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .user_agent(concat!("tasker-worker/", env!("CARGO_PKG_VERSION")))
        .no_proxy()
        .dns_resolver(Arc::clone(guard))
        .connect_timeout(Duration::from_secs(10))
        .redirect(Redirects::none())
        .referer(false)
        .build()
        .map_err(|error| HandlerError::retry(error).message().to_owned())
}
