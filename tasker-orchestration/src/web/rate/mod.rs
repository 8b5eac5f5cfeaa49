//! Rate limits: a token bucket for each client and group of routes, in this process.

mod bucket;

pub(in crate::web) use bucket::Rate;

use super::pressure::{route, seconds_up};
use axum::{
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use bucket::{Buckets, Decision};
use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};
use tasker_shared::{
    config::RateLimits,
    metrics::{Label, Metrics, labels},
    runtime::web::problem,
};

/// Who a request is from.
type Client = Option<IpAddr>;

/// Routes that share a limit.
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
    submit: Option<Limit>,
    read: Option<Limit>,
    operate: Option<Limit>,
    metrics: Metrics,
    epoch: Instant,
}

#[derive(Debug)]
struct Limit {
    burst: u32,
    buckets: Mutex<Buckets<Client>>,
}

impl Limiter {
    pub(super) fn new(limits: &RateLimits, metrics: &Metrics) -> Self {
        let limit = |per_second: f64, burst: u32| {
            let buckets = || Mutex::new(Buckets::new(Rate { per_second, burst }, limits.max_clients));
            (per_second > 0.0).then(|| Limit { burst, buckets: buckets() })
        };
        Self(Arc::new(Inner {
            submit: limit(limits.submit_per_second, limits.submit_burst),
            read: limit(limits.read_per_second, limits.read_burst),
            operate: limit(limits.operate_per_second, limits.operate_burst),
            metrics: metrics.clone(),
            epoch: Instant::now(),
        }))
    }

    fn of(&self, group: Group) -> Option<&Limit> {
        match group {
            Group::Submit => self.0.submit.as_ref(),
            Group::Read => self.0.read.as_ref(),
            Group::Operate => self.0.operate.as_ref(),
        }
    }

    fn decide(&self, limit: &Limit, client: Client) -> Decision {
        let started = Instant::now();
        let now = started.duration_since(self.0.epoch);
        let decision = limit.buckets.lock().unwrap_or_else(PoisonError::into_inner).take(client, now);
        self.0.metrics.rate_limit_check_duration.record_since(started, ());
        decision
    }
}

/// Serves the request if its client has a token left, and says how many are left.
pub(super) async fn limited(State(limiter): State<Limiter>, request: Request, next: Next) -> Response {
    let group = group(request.method(), request.uri().path());
    let Some(limit) = limiter.of(group) else { return next.run(request).await };
    let decision = limiter.decide(limit, client(&request));
    let endpoint = route(&request).map_or(Label::from("unmatched"), Label::from);
    let outcome = if decision.allowed { "allowed" } else { "rejected" };
    limiter.0.metrics.rate_limit_requests.add(1, labels::RateLimited { endpoint, outcome });
    let mut response = if decision.allowed { next.run(request).await } else { refused(&decision) };
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

/// The address of the connection. What a header says of others is not believed: anyone can write it.
fn client(request: &Request) -> Client {
    request.extensions().get::<ConnectInfo<SocketAddr>>().map(|client| client.0.ip().to_canonical())
}

fn refused(decision: &Decision) -> Response {
    let title = "too many requests from this client; the header `retry-after` says when there is room again";
    let mut response = problem(StatusCode::TOO_MANY_REQUESTS, "rate_limited", title).into_response();
    let wait = HeaderValue::from(seconds_up(decision.retry_after));
    response.headers_mut().insert(header::RETRY_AFTER, wait);
    response
}

fn tell(headers: &mut HeaderMap, burst: u32, decision: &Decision) {
    headers.insert("ratelimit-limit", HeaderValue::from(burst));
    headers.insert("ratelimit-remaining", HeaderValue::from(decision.remaining));
    headers.insert("ratelimit-reset", HeaderValue::from(seconds_up(decision.reset)));
}

#[cfg(test)]
mod tests {
    use super::{Group, Limiter, group, limited};
    use axum::{Router, body::Body, extract::ConnectInfo, http::Request, middleware, response::Response, routing::get};
    use std::net::SocketAddr;
    use tasker_shared::{
        config::{Config, RateLimits, Sources},
        metrics::Metrics,
    };
    use tower::ServiceExt;

    fn router(limits: &RateLimits) -> Router {
        let limiter = Limiter::new(limits, &Metrics::disabled());
        let answer = || async { "answered" };
        Router::new()
            .route("/v1/tasks", get(answer).post(answer))
            .layer(middleware::from_fn_with_state(limiter, limited))
    }

    fn limits() -> RateLimits {
        let off = Config::load(&Sources::built_in("test")).expect("it loads").orchestration.rate_limits;
        RateLimits { submit_per_second: 0.5, submit_burst: 2, ..off }
    }

    async fn ask(router: &Router, method: &str, client: &str) -> Response {
        let address: SocketAddr = client.parse().unwrap();
        let request = Request::builder().method(method).uri("/v1/tasks").extension(ConnectInfo(address));
        router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    fn header(response: &Response, name: &str) -> Option<u64> {
        response.headers().get(name).map(|value| value.to_str().unwrap().parse().unwrap())
    }

    #[tokio::test]
    async fn a_client_that_asks_too_often_is_refused_with_the_time_to_wait_and_others_are_not() {
        let router = router(&limits());
        for left in [1, 0] {
            let response = ask(&router, "POST", "10.0.0.1:1000").await;
            assert_eq!(response.status(), 200);
            assert_eq!(
                (header(&response, "ratelimit-limit"), header(&response, "ratelimit-remaining")),
                (Some(2), Some(left))
            );
        }
        let refused = ask(&router, "POST", "10.0.0.1:2000").await;
        assert_eq!((refused.status().as_u16(), header(&refused, "retry-after")), (429, Some(2)));
        assert_eq!((header(&refused, "ratelimit-remaining"), header(&refused, "ratelimit-reset")), (Some(0), Some(4)));
        assert_eq!(refused.headers()["content-type"], "application/problem+json");
        assert_eq!(ask(&router, "POST", "10.0.0.2:1000").await.status(), 200);
        assert_eq!(ask(&router, "POST", "[::ffff:10.0.0.1]:1").await.status(), 429, "the same client over IPv6");
    }

    #[tokio::test]
    async fn a_group_without_a_limit_is_not_limited() {
        let router = router(&limits());
        for _ in 0..100 {
            let response = ask(&router, "GET", "10.0.0.1:1000").await;
            assert_eq!((response.status().as_u16(), header(&response, "ratelimit-limit")), (200, None));
        }
    }

    #[test]
    fn every_route_belongs_to_the_group_of_what_it_does() {
        for (method, path, expected) in [
            ("POST", "/v1/tasks", Group::Submit),
            ("POST", "/v1/tasks/batch", Group::Submit),
            ("GET", "/v1/tasks", Group::Read),
            ("HEAD", "/v1/workers", Group::Read),
            ("POST", "/v1/tasks/1/cancel", Group::Operate),
            ("POST", "/v1/templates", Group::Operate),
        ] {
            assert_eq!(group(&method.parse().unwrap(), path), expected, "{method} {path}");
        }
    }
}
