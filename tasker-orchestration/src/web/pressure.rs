//! What refuses requests before they cost anything: more than are served at once, and the circuit breaker of the database.

use super::answer::{UNAVAILABLE, without_database};
use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::{sync::Arc, time::Duration};
use tasker_shared::{
    breaker::Breaker,
    metrics::{Label, Metrics, labels},
    runtime::web::{ProblemKind, TIMEOUT, problem},
};
use tokio::sync::Semaphore;

/// The routes of the API begin so; pages, health and metrics are always answered.
pub(super) const API: &str = "/v1/";

/// The kind of the problem of a request for which there is no room.
pub(super) const OVERLOADED: &str = "overloaded";

/// Waits for a task, for up to a minute.
const WAIT: &str = "/v1/tasks/{task_id}/wait";

/// Needs no database.
const CHECK: &str = "/v1/templates/check";

/// Places for requests that are served at the same time, and the breaker between the API and the database.
#[derive(Debug, Clone)]
pub(super) struct Pressure {
    places: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    breaker: Breaker,
    metrics: Metrics,
}

impl Pressure {
    /// So many `places`, and so many apart for requests that wait for a task.
    pub(super) fn new(places: usize, waiting: usize, breaker: Breaker, metrics: &Metrics) -> Self {
        let room = |places| Arc::new(Semaphore::new(places));
        Self { places: room(places), waiting: room(waiting), breaker, metrics: metrics.clone() }
    }
}

/// Serves the request if there is a place, for which nobody queues, and if the breaker is closed; tells the breaker how it went.
pub(super) async fn under_pressure(State(pressure): State<Pressure>, request: Request, next: Next) -> Response {
    let Some(route) = route(&request).filter(|route| route.starts_with(API)) else { return next.run(request).await };
    let endpoint = || labels::Endpoint { endpoint: Label::from(route.clone()) };
    let places = if route == WAIT { &pressure.waiting } else { &pressure.places };
    let Ok(_place) = places.try_acquire() else {
        pressure.metrics.api_requests_shed.add(1, endpoint());
        let title = "as many requests as may be served at once are being served";
        return problem(StatusCode::SERVICE_UNAVAILABLE, OVERLOADED, title).into_response();
    };
    if route == CHECK {
        return next.run(request).await;
    }
    let permit = match pressure.breaker.admit_if_closed() {
        Ok(permit) => permit,
        Err(refused) => {
            pressure.metrics.api_requests_rejected.add(1, endpoint());
            return retry_after(without_database().into_response(), refused.wait);
        }
    };
    let response = next.run(request).await;
    let kind = response.extensions().get::<ProblemKind>().map(|kind| kind.0.as_str());
    match kind {
        Some(failed @ (UNAVAILABLE | TIMEOUT)) => permit.failed(&failed),
        // a refusal may not have come as far as the database
        Some(_) => {}
        None => permit.succeeded(),
    }
    response
}

fn retry_after(mut response: Response, wait: Duration) -> Response {
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds_up(wait).max(1)));
    response
}

/// Whole seconds, so that who waits that long has waited enough.
pub(super) fn seconds_up(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0))
}

/// The pattern of the route that matched.
pub(super) fn route(request: &Request) -> Option<String> {
    request.extensions().get::<MatchedPath>().map(|route| route.as_str().to_owned())
}
