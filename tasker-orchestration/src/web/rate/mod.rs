//! Rate limits: token buckets in this process. One for each address before it is known who asks, so that guessing keys is
//! limited too; then one for each caller and route.

mod bucket;

pub(in crate::web) use bucket::Rate;

use super::pressure::{API, route, seconds_up};
use axum::{
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use bucket::{Buckets, Decision};
use std::{
    hash::Hash,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};
use tasker_shared::{
    access::Principal,
    config::RateLimits,
    metrics::{Label, Metrics, labels},
    runtime::web::problem,
};

const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// Where a request comes from; nothing where there is no connection.
pub(in crate::web) type Address = Option<IpAddr>;

/// Who a request is from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::web) enum Caller {
    /// The holder of a key, or the subject of a token.
    Known(String),
    /// Somebody there, where authentication is off.
    At(Address),
}

/// Routes with the same rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    /// They make tasks.
    Submit,
    /// They look.
    Read,
    /// They change something else: what operators do, templates.
    Operate,
}

/// The limits of the API; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Limiter(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    address: Option<Limit<Address>>,
    submit: Option<Limit<(Caller, String)>>,
    read: Option<Limit<(Caller, String)>>,
    operate: Option<Limit<(Caller, String)>>,
    metrics: Metrics,
    epoch: Instant,
}

#[derive(Debug)]
struct Limit<K> {
    burst: u32,
    buckets: Mutex<Buckets<K>>,
}

impl<K: Hash + Eq> Limit<K> {
    fn new(per_second: f64, burst: u32, most_keys: usize) -> Option<Self> {
        let buckets = || Mutex::new(Buckets::new(Rate { per_second, burst }, most_keys));
        (per_second > 0.0).then(|| Self { burst, buckets: buckets() })
    }
}

impl Limiter {
    pub(super) fn new(limits: &RateLimits, metrics: &Metrics) -> Self {
        let most = limits.max_clients;
        Self(Arc::new(Inner {
            address: Limit::new(limits.address_per_second, limits.address_burst, most),
            submit: Limit::new(limits.submit_per_second, limits.submit_burst, most),
            read: Limit::new(limits.read_per_second, limits.read_burst, most),
            operate: Limit::new(limits.operate_per_second, limits.operate_burst, most),
            metrics: metrics.clone(),
            epoch: Instant::now(),
        }))
    }

    fn of(&self, group: Group) -> Option<&Limit<(Caller, String)>> {
        match group {
            Group::Submit => self.0.submit.as_ref(),
            Group::Read => self.0.read.as_ref(),
            Group::Operate => self.0.operate.as_ref(),
        }
    }

    fn decide<K: Hash + Eq>(&self, limit: &Limit<K>, key: K) -> Decision {
        let started = Instant::now();
        let now = started.duration_since(self.0.epoch);
        let decision = limit.buckets.lock().unwrap_or_else(PoisonError::into_inner).take(key, now);
        self.0.metrics.rate_limit_check_duration.record_since(started, ());
        decision
    }

    fn count(&self, endpoint: String, decision: &Decision) {
        let outcome = if decision.allowed { "allowed" } else { "rejected" };
        let endpoint = Label::from(endpoint);
        self.0.metrics.rate_limit_requests.add(1, labels::RateLimited { endpoint, outcome });
    }
}

/// Serves the request if its address has a token left. Nobody has looked at it before this. Probes are not limited.
pub(super) async fn limited_by_address(State(limiter): State<Limiter>, request: Request, next: Next) -> Response {
    let route = route(&request).filter(|route| route.starts_with(API) || route == "/metrics");
    let (Some(limit), Some(route)) = (&limiter.0.address, route) else { return next.run(request).await };
    let decision = limiter.decide(limit, address(&request));
    let mut response = if decision.allowed { next.run(request).await } else { refused("address", &decision) };
    // the limit of the caller has counted the request, and says more
    if !response.headers().contains_key(LIMIT) {
        limiter.count(route, &decision);
        tell(response.headers_mut(), limit.burst, &decision);
    }
    response
}

/// Serves the request if its caller has a token left for this route, and says how many are left. It stands between the
/// gate's knowing the caller and its looking at what the caller may: who is refused has asked too.
pub(super) async fn limited(State(limiter): State<Limiter>, request: Request, next: Next) -> Response {
    let Some(route) = route(&request).filter(|route| route.starts_with(API)) else { return next.run(request).await };
    let group = group(request.method(), request.uri().path());
    let Some(limit) = limiter.of(group) else { return next.run(request).await };
    let decision = limiter.decide(limit, (caller(&request), route.clone()));
    limiter.count(route, &decision);
    let mut response = if decision.allowed { next.run(request).await } else { refused("client", &decision) };
    tell(response.headers_mut(), limit.burst, &decision);
    response
}

fn group(method: &Method, path: &str) -> Group {
    match (method, path) {
        (&Method::GET | &Method::HEAD, _) => Group::Read,
        (_, "/v1/tasks" | "/v1/tasks/batch") => Group::Submit,
        _ => Group::Operate,
    }
}

/// Who a request is from, once the gate knows.
pub(in crate::web) fn caller(request: &Request) -> Caller {
    match request.extensions().get::<Principal>().filter(|principal| principal.is_authenticated()) {
        Some(principal) => Caller::Known(principal.name().to_owned()),
        None => Caller::At(address(request)),
    }
}

/// The address of the connection; of IPv6 the half that names the network, since whoever has one has all of it. What a header
/// says of others is not believed: anyone can write it.
fn address(request: &Request) -> Address {
    let address = request.extensions().get::<ConnectInfo<SocketAddr>>()?.0.ip().to_canonical();
    Some(match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    })
}

fn refused(whom: &str, decision: &Decision) -> Response {
    let title = format!("too many requests from this {whom}; the header `retry-after` says when there is room again");
    let mut response = problem(StatusCode::TOO_MANY_REQUESTS, "rate_limited", title).into_response();
    let wait = HeaderValue::from(seconds_up(decision.retry_after));
    response.headers_mut().insert(header::RETRY_AFTER, wait);
    response
}

fn tell(headers: &mut HeaderMap, burst: u32, decision: &Decision) {
    headers.insert(LIMIT, HeaderValue::from(burst));
    headers.insert(REMAINING, HeaderValue::from(decision.remaining));
    headers.insert(RESET, HeaderValue::from(seconds_up(decision.reset)));
}

#[cfg(test)]
mod tests;
