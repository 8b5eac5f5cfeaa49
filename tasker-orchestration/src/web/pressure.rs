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

/// The route of what has none; it is never refused here.
const NO_ROUTE: &str = "unmatched";

/// Places for requests that are served at the same time.
#[derive(Debug, Clone)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    metrics: Metrics,
}

impl Places {
    pub(super) fn new(places: usize, metrics: &Metrics) -> Self {
        Self { free: Arc::new(Semaphore::new(places)), metrics: metrics.clone() }
    }
}

/// Serves the request if there is a place; nobody queues for one.
pub(super) async fn bounded(State(places): State<Places>, request: Request, next: Next) -> Response {
    let Ok(_place) = places.free.try_acquire() else {
        places.metrics.api_requests_shed.add(1, labels::Endpoint { endpoint: endpoint(&request) });
        let title = "as many requests as may be served at once are being served";
        return problem(StatusCode::SERVICE_UNAVAILABLE, "overloaded", title).into_response();
    };
    next.run(request).await
}

/// The breaker between the API and the database.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    pub(super) breaker: Breaker,
    pub(super) metrics: Metrics,
}

/// Lets the request pass while the breaker is closed, and tells the breaker how it went.
pub(super) async fn guarded(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let permit = match guard.breaker.admit_if_closed() {
        Ok(permit) => permit,
        Err(refused) => {
            guard.metrics.api_requests_rejected.add(1, labels::Endpoint { endpoint: endpoint(&request) });
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

pub(super) fn endpoint(request: &Request) -> Label {
    let route = request.extensions().get::<MatchedPath>();
    route.map_or(Label::from(NO_ROUTE), |route| Label::from(route.as_str().to_owned()))
}
