use super::{Group, Limiter, group, limited, limited_by_address};
use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Request},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::get,
};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tasker_shared::{
    access::{Namespaces, Principal},
    config::{Config, RateLimits, Sources},
    metrics::Metrics,
};
use tower::ServiceExt;

/// Routes as the service has them: behind both limits, and between them somebody who looks at who asks. `checked` counts those looks.
struct Service {
    router: Router,
    checked: Arc<AtomicUsize>,
}

/// `key:NAME` in the header `from` is a known caller, `stranger` nobody, and nothing is where authentication is off.
async fn know(checked: Arc<AtomicUsize>, mut request: Request, next: Next) -> Response {
    checked.fetch_add(1, Ordering::Relaxed);
    let from = request.headers().get("from").map(|from| from.to_str().unwrap().to_owned());
    let principal = match from.as_deref() {
        Some("stranger") => return StatusCode::UNAUTHORIZED.into_response(),
        Some(name) => Principal::of_key(name, Vec::new(), Namespaces::All),
        None => Principal::anyone(),
    };
    request.extensions_mut().insert(principal);
    next.run(request).await
}

impl Service {
    fn new(limits: &RateLimits) -> Self {
        let limiter = Limiter::new(limits, &Metrics::disabled());
        let checked = Arc::new(AtomicUsize::new(0));
        let look = Arc::clone(&checked);
        let answer = || async { "answered" };
        let router = Router::new()
            .route("/v1/tasks", get(answer).post(answer))
            .route("/v1/tasks/batch", get(answer).post(answer))
            .route("/health", get(answer))
            .layer(middleware::from_fn_with_state(limiter.clone(), limited))
            .layer(middleware::from_fn(move |request, next| know(Arc::clone(&look), request, next)))
            .layer(middleware::from_fn_with_state(limiter, limited_by_address));
        Self { router, checked }
    }

    async fn ask(&self, asked: &str, client: &str, from: Option<&str>) -> Response {
        let (method, path) = asked.split_once(' ').unwrap();
        let address: SocketAddr = client.parse().unwrap();
        let mut request = Request::builder().method(method).uri(path).extension(ConnectInfo(address));
        if let Some(from) = from {
            request = request.header("from", from);
        }
        self.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    async fn status(&self, asked: &str, client: &str, from: Option<&str>) -> u16 {
        self.ask(asked, client, from).await.status().as_u16()
    }
}

fn off() -> RateLimits {
    Config::load(&Sources::built_in("test")).expect("it loads").orchestration.rate_limits
}

/// Two submissions, then one in two seconds.
fn submissions() -> RateLimits {
    RateLimits { submit_per_second: 0.5, submit_burst: 2, ..off() }
}

/// Three requests of an address, then one in ten seconds.
fn addresses() -> RateLimits {
    RateLimits { address_per_second: 0.1, address_burst: 3, ..off() }
}

fn header(response: &Response, name: &str) -> Option<u64> {
    response.headers().get(name).map(|value| value.to_str().unwrap().parse().unwrap())
}

const SUBMIT: &str = "POST /v1/tasks";
const HERE: &str = "10.0.0.1:1000";

#[tokio::test]
async fn a_client_that_asks_too_often_is_refused_with_the_time_to_wait_and_others_are_not() {
    let service = Service::new(&submissions());
    for left in [1, 0] {
        let response = service.ask(SUBMIT, HERE, None).await;
        assert_eq!(response.status(), 200);
        assert_eq!(
            (header(&response, "ratelimit-limit"), header(&response, "ratelimit-remaining")),
            (Some(2), Some(left))
        );
    }
    let refused = service.ask(SUBMIT, "10.0.0.1:2000", None).await;
    assert_eq!((refused.status().as_u16(), header(&refused, "retry-after")), (429, Some(2)));
    assert_eq!((header(&refused, "ratelimit-remaining"), header(&refused, "ratelimit-reset")), (Some(0), Some(4)));
    assert_eq!(refused.headers()["content-type"], "application/problem+json");
    assert_eq!(service.status(SUBMIT, "10.0.0.2:1000", None).await, 200);
    assert_eq!(service.status(SUBMIT, "[::ffff:10.0.0.1]:1", None).await, 429, "the same client over IPv6");
}

#[tokio::test]
async fn known_callers_behind_one_address_have_a_limit_each_wherever_they_come_from() {
    let service = Service::new(&submissions());
    for _ in 0..2 {
        assert_eq!(service.status(SUBMIT, HERE, Some("ada")).await, 200);
    }
    assert_eq!(service.status(SUBMIT, HERE, Some("ada")).await, 429);
    assert_eq!(service.status(SUBMIT, "10.0.0.9:1", Some("ada")).await, 429, "the same key from elsewhere");
    assert_eq!(service.status(SUBMIT, HERE, Some("bob")).await, 200, "another key from the same address");
}

#[tokio::test]
async fn each_route_has_its_own_limit() {
    let service = Service::new(&submissions());
    for _ in 0..2 {
        assert_eq!(service.status(SUBMIT, HERE, Some("ada")).await, 200);
    }
    assert_eq!(service.status(SUBMIT, HERE, Some("ada")).await, 429);
    assert_eq!(service.status("POST /v1/tasks/batch", HERE, Some("ada")).await, 200);
}

#[tokio::test]
async fn a_flood_of_strangers_is_refused_before_anybody_looks_who_they_are() {
    let service = Service::new(&addresses());
    let mut told = Vec::new();
    for _ in 0..1_000 {
        told.push(service.status(SUBMIT, HERE, Some("stranger")).await);
    }
    assert_eq!(told[..3], [401; 3]);
    assert!(told[3..].iter().all(|status| *status == 429));
    assert_eq!(service.checked.load(Ordering::Relaxed), 3);
    let refused = service.ask(SUBMIT, HERE, Some("ada")).await;
    assert_eq!((refused.status().as_u16(), header(&refused, "ratelimit-limit")), (429, Some(3)));
    assert!(header(&refused, "retry-after").is_some_and(|seconds| (1..=10).contains(&seconds)));
    assert_eq!(service.status(SUBMIT, "10.0.0.2:1", Some("ada")).await, 200, "another address");
    assert_eq!(service.status("GET /health", HERE, None).await, 200, "probes are answered");
}

#[tokio::test]
async fn the_network_of_an_ipv6_address_shares_its_limit() {
    let service = Service::new(&addresses());
    for host in 0..3 {
        assert_eq!(service.status(SUBMIT, &format!("[2001:db8::{host}]:1"), None).await, 200);
    }
    assert_eq!(service.status(SUBMIT, "[2001:db8::ffff:1]:1", None).await, 429);
    assert_eq!(service.status(SUBMIT, "[2001:db8:0:1::1]:1", None).await, 200);
}

#[tokio::test]
async fn where_both_limits_apply_the_answer_tells_of_the_one_of_the_caller() {
    let service = Service::new(&RateLimits { address_per_second: 0.1, address_burst: 3, ..submissions() });
    let told = service.ask(SUBMIT, HERE, Some("ada")).await;
    assert_eq!((header(&told, "ratelimit-limit"), header(&told, "ratelimit-remaining")), (Some(2), Some(1)));
}

#[tokio::test]
async fn a_group_without_a_limit_is_not_limited() {
    let service = Service::new(&submissions());
    for _ in 0..100 {
        let response = service.ask("GET /v1/tasks", HERE, None).await;
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
