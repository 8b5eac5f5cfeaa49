//! The HTTP API: routes, what they take and answer, and how refusals look.

mod actions;
mod answer;
mod bodies;
mod caller;
mod dead_letters;
mod document;
mod extract;
mod keys;
mod limits;
mod pages;
mod permissions;
mod pressure;
mod rate;
mod tasks;
mod templates;
mod workers;

pub use permissions::ROUTES;

use crate::Orchestration;
use axum::{Router, extract::FromRef, middleware};
use bodies::{Bodies, whole};
use pressure::{Pressure, under_pressure};
use rate::{Limiter, limited, limited_by_address};
use std::time::Duration;
use tasker_shared::{
    breaker,
    config::RateLimits,
    runtime::{
        access::{self, Authenticator, COMMON},
        web::{self, Exposition, HealthChecks},
    },
};
use tokio_util::sync::CancellationToken;
use utoipa::openapi::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

/// What the HTTP API is set up with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The largest request body, in bytes.
    pub max_body_bytes: usize,
    /// How long a request may take; waiting for a task may take its own time on top.
    pub request_timeout: Duration,
    /// Knows who asks.
    pub authenticator: Authenticator,
    /// How many requests are served at the same time, besides those that wait for a task.
    pub max_concurrent_requests: usize,
    /// How many requests wait for a task at the same time.
    pub max_waiting_requests: usize,
    /// How long the body of a request may take to come.
    pub body_timeout: Duration,
    /// How often one address and one caller may ask.
    pub rate_limits: RateLimits,
    /// Ends waiting requests early when the service stops.
    pub shutdown: CancellationToken,
    /// What the health routes answer.
    pub health: HealthChecks,
    /// What `/metrics` answers; none when it is off or has a port of its own.
    pub exposition: Option<Exposition>,
}

/// Every route of the service.
pub fn router(orchestration: Orchestration, settings: Settings) -> Router {
    let Settings { max_body_bytes, request_timeout, authenticator, shutdown, health, exposition, .. } = settings;
    let orchestration = orchestration.for_requests();
    let metrics = orchestration.metrics().clone();
    let gate = access::Guard::new(authenticator, orchestration.database().clone(), &[permissions::ROUTES, COMMON]);
    let breaker = orchestration.database().breakers().of(breaker::API);
    let pressure = Pressure::new(settings.max_concurrent_requests, settings.max_waiting_requests, breaker, &metrics);
    let limiter = Limiter::new(&settings.rate_limits, &metrics);
    let bodies = Bodies::new(settings.body_timeout, settings.max_concurrent_requests, &metrics);
    let (routes, api) = api(request_timeout).with_state(Api { orchestration, shutdown }).split_for_parts();
    let api = document::complete(api, exposition.is_some());
    let routes = routes.merge(web::health_router(health)).merge(pages::routes(&api));
    let routes = exposition.into_iter().fold(routes, |routes, page| routes.merge(web::metrics_router(page)));
    let routes = routes.layer(middleware::from_fn_with_state(bodies, whole));
    let limited = middleware::from_fn_with_state(limiter.clone(), limited);
    // what works with the principal (rate limits, bodies, handlers) stands above this line
    let routes = access::guarded(routes, gate, |routes| routes.layer(limited));
    // what costs the database anything, such as knowing who asks, stands above this line
    let routes = routes.layer(middleware::from_fn_with_state(pressure, under_pressure));
    // who comes too often from one address is not even counted among those who wait
    let routes = routes.layer(middleware::from_fn_with_state(limiter, limited_by_address));
    web::common(routes, &metrics, max_body_bytes)
}

/// The OpenAPI document of the whole service, made from the routes.
pub fn openapi() -> OpenApi {
    document::complete(api(Duration::ZERO).into_openapi(), true)
}

/// What handlers work with.
#[derive(Debug, Clone, FromRef)]
struct Api {
    orchestration: Orchestration,
    shutdown: CancellationToken,
}

/// The routes below `/v1`.
fn api(request_timeout: Duration) -> OpenApiRouter<Api> {
    let within = |limit: Duration| middleware::from_fn_with_state(limit, web::deadline);
    let quick = OpenApiRouter::with_openapi(document::base())
        .routes(routes!(tasks::submit, tasks::list))
        .routes(routes!(tasks::submit_batch))
        .routes(routes!(tasks::show))
        .routes(routes!(tasks::history))
        .routes(routes!(tasks::explain))
        .routes(routes!(actions::cancel))
        .routes(routes!(actions::pause))
        .routes(routes!(actions::resume))
        .routes(routes!(actions::retry))
        .routes(routes!(actions::resolve))
        .routes(routes!(actions::retry_step))
        .routes(routes!(actions::cancel_step))
        .routes(routes!(actions::resolve_step))
        .routes(routes!(templates::list, templates::apply))
        .routes(routes!(templates::check))
        .routes(routes!(templates::show))
        .routes(routes!(workers::list))
        .routes(routes!(keys::list, keys::create))
        .routes(routes!(keys::revoke))
        .routes(routes!(keys::audit))
        .routes(routes!(dead_letters::list))
        .routes(routes!(dead_letters::show))
        .routes(routes!(dead_letters::redrive))
        .routes(routes!(dead_letters::resolve))
        .routes(routes!(dead_letters::discard))
        .routes(routes!(dead_letters::park))
        .routes(routes!(limits::list))
        .routes(routes!(limits::set, limits::remove))
        .layer(within(request_timeout));
    let waiting =
        OpenApiRouter::new().routes(routes!(tasks::wait)).layer(within(request_timeout + tasks::LONGEST_WAIT));
    quick.merge(waiting)
}

#[cfg(test)]
mod tests;
