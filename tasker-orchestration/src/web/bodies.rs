//! Bodies of requests: each comes whole before its handler runs, in time, and a caller sends few slow ones at once.

use super::{
    answer::Refusal,
    extract,
    pressure::{API, OVERLOADED, route},
    rate::{Caller, caller},
};
use axum::{
    body::{Body, Bytes, HttpBody as _},
    extract::{Request, State},
    http::StatusCode,
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::{
    collections::HashMap,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tasker_shared::{
    metrics::{Label, Metrics, labels},
    runtime::web::problem,
};
use tokio::time::timeout;

/// A body that takes longer is slow.
const QUICK: Duration = Duration::from_millis(100);

/// The time that bodies have, and who sends slow ones; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Bodies(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    patience: Duration,
    most_slow: usize,
    slow: Mutex<HashMap<Caller, usize>>,
    metrics: Metrics,
}

/// A slow body that is on its way.
struct Slow<'a> {
    bodies: &'a Bodies,
    caller: Caller,
}

impl Bodies {
    /// A body has `patience` to come. Those that are slow take up a quarter of the `places` of the API for each caller, at most.
    pub(super) fn new(patience: Duration, places: usize, metrics: &Metrics) -> Self {
        let (most_slow, metrics) = ((places / 4).max(1), metrics.clone());
        Self(Arc::new(Inner { patience, most_slow, slow: Mutex::default(), metrics }))
    }

    async fn read(&self, caller: Caller, endpoint: String, request: Request) -> Result<Bytes, Refusal> {
        let mut body = pin!(extract::bytes(request, &()));
        if let Ok(read) = timeout(QUICK.min(self.0.patience), body.as_mut()).await {
            return read;
        }
        let Some(_slow) = self.slow(caller) else {
            self.0.metrics.api_requests_shed.add(1, labels::Endpoint { endpoint: Label::from(endpoint) });
            let title = "as many bodies of this client as may be slow are on their way; send fewer at once";
            return Err(problem(StatusCode::SERVICE_UNAVAILABLE, OVERLOADED, title).into());
        };
        timeout(self.0.patience.saturating_sub(QUICK), body).await.unwrap_or_else(|_| {
            let title = format!("the body did not come within {:?} (orchestration.body_timeout_ms)", self.0.patience);
            Err(problem(StatusCode::REQUEST_TIMEOUT, "body_timeout", title).into())
        })
    }

    fn slow(&self, caller: Caller) -> Option<Slow<'_>> {
        let mut slow = self.0.slow.lock().unwrap_or_else(PoisonError::into_inner);
        let of_caller = slow.entry(caller.clone()).or_default();
        // one that has none has room
        (*of_caller < self.0.most_slow).then(|| {
            *of_caller += 1;
            Slow { bodies: self, caller }
        })
    }
}

impl Drop for Slow<'_> {
    fn drop(&mut self) {
        let mut slow = self.bodies.0.slow.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_caller) = slow.get_mut(&self.caller) {
            *of_caller -= 1;
            if *of_caller == 0 {
                slow.remove(&self.caller);
            }
        }
    }
}

/// Hands the request on when its body is there.
pub(super) async fn whole(State(bodies): State<Bodies>, request: Request, next: Next) -> Response {
    let Some(route) = route(&request).filter(|route| route.starts_with(API)) else { return next.run(request).await };
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let caller = caller(&request);
    let (parts, body) = request.into_parts();
    match bodies.read(caller, route, Request::from_parts(parts.clone(), body)).await {
        Ok(bytes) => next.run(Request::from_parts(parts, Body::from(bytes))).await,
        Err(refusal) => refusal.into_response(),
    }
}
