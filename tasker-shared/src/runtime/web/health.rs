//! Health: whether the process lives, whether it can be given work, and what is wrong if not.

use crate::{
    access::{Permission, Principal},
    api::{Health, HealthCheck},
    breaker::Breakers,
    metrics::{HealthStatus, Metrics, labels},
};
use axum::{
    Extension, Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use futures::future::{BoxFuture, FutureExt, join_all};
use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

/// How long what was found is told again to those who ask meanwhile.
const FRESH: Duration = Duration::from_secs(1);

/// How long one check may take when nothing else is said.
const PATIENCE: Duration = Duration::from_secs(3);

type Check = Box<dyn Fn() -> BoxFuture<'static, Result<String, String>> + Send + Sync>;

/// The checks of a service; cheap to clone once complete.
#[derive(Clone)]
pub struct HealthChecks(Arc<Checks>);

struct Checks {
    service: &'static str,
    version: &'static str,
    draining: CancellationToken,
    metrics: Metrics,
    patience: Duration,
    checks: Vec<(&'static str, Check)>,
    breakers: Option<Breakers>,
    /// What was found last. Who finds it old looks, and the others wait for that.
    found: Mutex<Option<(Instant, Vec<HealthCheck>)>>,
}

/// Collects the checks of a service.
pub struct Builder(Checks);

impl HealthChecks {
    /// Checks for `service` (`orchestration` or `worker`), which takes no new work once `draining` is cancelled.
    pub fn builder(
        service: &'static str,
        version: &'static str,
        draining: CancellationToken,
        metrics: &Metrics,
    ) -> Builder {
        Builder(Checks {
            service,
            version,
            draining,
            metrics: metrics.clone(),
            patience: PATIENCE,
            checks: Vec::new(),
            breakers: None,
            found: Mutex::default(),
        })
    }

    /// Says what every check found, which is at most a second ago. Takes no longer than the slowest check may.
    pub async fn run(&self) -> Health {
        let checks = self.0.found().await;
        let status = match (checks.iter().all(|check| check.healthy), self.0.draining.is_cancelled()) {
            (false, _) => UNHEALTHY,
            (true, true) => DRAINING,
            (true, false) => HEALTHY,
        };
        self.answer(status, checks)
    }

    fn alive(&self) -> Health {
        let status = if self.0.draining.is_cancelled() { DRAINING } else { HEALTHY };
        self.answer(status, Vec::new())
    }

    fn answer(&self, status: &str, checks: Vec<HealthCheck>) -> Health {
        let (service, version) = (self.0.service.to_owned(), self.0.version.to_owned());
        let breakers = self.0.breakers.as_ref().map(Breakers::shown).unwrap_or_default();
        Health { status: status.to_owned(), service, version, checks, breakers }
    }
}

impl Builder {
    /// Adds a check: what was found when well, or what is wrong. Both are shown to anyone who may ask for health.
    pub fn check<F, Fut>(mut self, component: &'static str, check: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<String, String>> + Send + 'static,
    {
        self.0.checks.push((component, Box::new(move || check().boxed())));
        self
    }

    /// Shows these circuit breakers in the detailed answer. An open one does not make the service unhealthy: what it
    /// watches has a check of its own, or is none of the service's.
    pub fn breakers(mut self, breakers: &Breakers) -> Self {
        self.0.breakers = Some(breakers.clone());
        self
    }

    /// How long one check may take before it counts as failed; 3 s when not given.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.0.patience = patience;
        self
    }

    /// The complete list.
    pub fn build(self) -> HealthChecks {
        HealthChecks(Arc::new(self.0))
    }
}

/// Give it work.
const HEALTHY: &str = "healthy";
/// It ends what it has and takes nothing new.
const DRAINING: &str = "draining";
/// A check failed.
const UNHEALTHY: &str = "unhealthy";

/// `/health`, `/health/live`, `/health/ready` and `/health/detailed`.
pub fn health_router(checks: HealthChecks) -> Router {
    Router::new()
        .route("/health", get(short))
        .route("/health/ready", get(ready))
        .route("/health/live", get(live))
        .route("/health/detailed", get(detailed))
        .with_state(checks)
}

/// The description of the health routes for an OpenAPI document.
#[derive(Debug, utoipa::OpenApi)]
#[openapi(paths(short, ready, live, detailed))]
pub struct Document;

/// Whether the service is well, in short.
#[utoipa::path(get, path = "/health", operation_id = "get_health", tag = "health", responses(
    (status = 200, description = "It is well.", body = Health),
    (status = 503, description = "It is draining or a check failed.", body = Health),
))]
async fn short(State(checks): State<HealthChecks>) -> Response {
    without_checks(checks.run().await)
}

/// Whether the service can be given work.
#[utoipa::path(get, path = "/health/ready", operation_id = "get_readiness", tag = "health", responses(
    (status = 200, description = "It can.", body = Health),
    (status = 503, description = "It is draining or a check failed.", body = Health),
))]
async fn ready(State(checks): State<HealthChecks>) -> Response {
    without_checks(checks.run().await)
}

/// Whether the process answers; checks nothing else.
#[utoipa::path(get, path = "/health/live", operation_id = "get_liveness", tag = "health", responses(
    (status = 200, description = "It lives.", body = Health),
))]
async fn live(State(checks): State<HealthChecks>) -> Response {
    answer(StatusCode::OK, Health { breakers: Vec::new(), ..checks.alive() })
}

/// Every check with what was found and how long it took, and every circuit breaker.
///
/// Where authentication is on, breakers of single hosts are shown to those with the permission `metrics:read` alone.
#[utoipa::path(get, path = "/health/detailed", operation_id = "get_health_detailed", tag = "health", responses(
    (status = 200, description = "All is well.", body = Health),
    (status = 503, description = "It is draining or a check failed; the body names it.", body = Health),
))]
async fn detailed(State(checks): State<HealthChecks>, caller: Option<Extension<Principal>>) -> Response {
    let mut health = checks.run().await;
    if !caller.is_some_and(|caller| caller.may(Permission::MetricsRead)) {
        // which hosts templates call is not for strangers
        health.breakers.retain(|breaker| breaker.host.is_none());
    }
    answer(code(&health), health)
}

fn without_checks(health: Health) -> Response {
    answer(code(&health), Health { checks: Vec::new(), breakers: Vec::new(), ..health })
}

fn code(health: &Health) -> StatusCode {
    if health.status == HEALTHY { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn answer(code: StatusCode, health: Health) -> Response {
    (code, [(header::CACHE_CONTROL, "no-store")], Json(health)).into_response()
}

impl Checks {
    /// Runs every check, all at once, unless that was done a moment ago.
    async fn found(&self) -> Vec<HealthCheck> {
        let mut found = self.found.lock().await;
        if let Some((at, checks)) = &*found
            && at.elapsed() < FRESH
        {
            return checks.clone();
        }
        let checks = join_all(self.checks.iter().map(|(component, check)| self.examine(component, check))).await;
        *found = Some((Instant::now(), checks.clone()));
        checks
    }

    async fn examine(&self, component: &'static str, check: &Check) -> HealthCheck {
        let started = Instant::now();
        let found = tokio::time::timeout(self.patience, check()).await;
        let found = found.unwrap_or_else(|_| Err(format!("no answer within {:?}", self.patience)));
        let (took, healthy) = (started.elapsed(), found.is_ok());
        self.record(component, healthy, took);
        HealthCheck {
            component: component.to_owned(),
            healthy,
            message: found.unwrap_or_else(|wrong| wrong),
            duration_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        }
    }

    fn record(&self, component: &'static str, healthy: bool, took: Duration) {
        let status = if healthy { HealthStatus::Healthy } else { HealthStatus::Unhealthy };
        self.metrics.health_checks.add(1, labels::HealthCheck { component, status });
        self.metrics.health_check_duration.record_duration(took, labels::Component { component });
        let dependency = labels::Dependency { dependency: component };
        self.metrics.health_dependency_up.set(i64::from(healthy), dependency);
    }
}

impl fmt::Debug for HealthChecks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let components = self.0.checks.iter().map(|(component, _)| component);
        f.debug_list().entries(components).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::{HealthChecks, health_router};
    use crate::{
        access::Principal,
        api::{self, Health},
        breaker::{Breakers, Policy, State},
        metrics::Metrics,
    };
    use axum::{
        body::Body,
        http::{Extensions, Request},
    };
    use futures::future::join_all;
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        time::Duration,
    };
    use tokio_util::sync::CancellationToken;
    use tower::ServiceExt;

    const ROUTES: [&str; 4] = ["/health/live", "/health", "/health/ready", "/health/detailed"];

    fn checks(database: Result<&'static str, &'static str>, draining: bool) -> HealthChecks {
        let token = CancellationToken::new();
        if draining {
            token.cancel();
        }
        HealthChecks::builder("orchestration", "1.2.3", token, &Metrics::disabled())
            .check("schema", || async { Ok("current".to_owned()) })
            .check("database", move || async move { database.map(str::to_owned).map_err(str::to_owned) })
            .build()
    }

    async fn ask(checks: HealthChecks, path: &str) -> (u16, Health) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = health_router(checks).oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn status_codes_tell_the_truth() {
        for (database, draining, codes, status) in [
            (Ok("answers"), false, [200, 200, 200, 200], "healthy"),
            (Ok("answers"), true, [200, 503, 503, 503], "draining"),
            (Err("refuses connections"), false, [200, 503, 503, 503], "unhealthy"),
            (Err("refuses connections"), true, [200, 503, 503, 503], "unhealthy"),
        ] {
            for (route, code) in ROUTES.into_iter().zip(codes) {
                let (answered, health) = ask(checks(database, draining), route).await;
                assert_eq!(answered, code, "{route} {database:?} draining: {draining}");
                if route != "/health/live" {
                    assert_eq!(health.status, status, "{route} {database:?} draining: {draining}");
                }
            }
        }
    }

    #[tokio::test]
    async fn only_the_detailed_answer_names_the_checks() {
        let (_, health) = ask(checks(Err("refuses connections"), false), "/health/detailed").await;
        let found: Vec<_> =
            health.checks.iter().map(|c| (c.component.as_str(), c.healthy, c.message.as_str())).collect();
        assert_eq!(found, [("schema", true, "current"), ("database", false, "refuses connections")]);
        assert_eq!((health.service.as_str(), health.version.as_str()), ("orchestration", "1.2.3"));

        let (_, health) = ask(checks(Err("refuses connections"), false), "/health").await;
        assert_eq!(health.checks, []);
    }

    #[tokio::test]
    async fn all_who_ask_within_a_second_hear_what_was_found_once() {
        let (times, shutdown) = (Arc::<AtomicUsize>::default(), CancellationToken::new());
        let counted = Arc::clone(&times);
        let checks = HealthChecks::builder("worker", "1", shutdown.clone(), &Metrics::disabled())
            .check("database", move || {
                counted.fetch_add(1, Ordering::SeqCst);
                async {
                    tokio::task::yield_now().await;
                    Ok("answers".to_owned())
                }
            })
            .build();
        let answers = join_all((0..100).map(|_| ask(checks.clone(), "/health/detailed"))).await;
        assert!(answers.iter().all(|(code, health)| *code == 200 && health.checks.len() == 1));
        assert_eq!(times.load(Ordering::SeqCst), 1);
        shutdown.cancel();
        assert_eq!(ask(checks, "/health/ready").await.1.status, "draining", "that is known at once");
    }

    #[tokio::test]
    async fn hosts_are_shown_to_those_who_may_read_metrics() {
        let shown = async |principal: Option<Principal>| {
            let breakers = Breakers::new(Policy::default(), &Metrics::disabled());
            breakers.also_show(|| {
                let host = Some("inner.example:1".to_owned());
                vec![api::Breaker { component: "http_handler".to_owned(), host, state: State::Open }]
            });
            let _ = breakers.of("pgmq");
            let checks = HealthChecks::builder("worker", "1", CancellationToken::new(), &Metrics::disabled());
            let mut request = Request::get("/health/detailed").body(Body::empty()).unwrap();
            request.extensions_mut().extend(
                principal
                    .map(|p| {
                        let mut extensions = Extensions::new();
                        extensions.insert(p);
                        extensions
                    })
                    .unwrap_or_default(),
            );
            let response = health_router(checks.breakers(&breakers).build()).oneshot(request).await.unwrap();
            let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
            let health: Health = serde_json::from_slice(&body).unwrap();
            health.breakers.into_iter().map(|breaker| breaker.component).collect::<Vec<_>>()
        };
        assert_eq!(shown(Some(Principal::anyone())).await, ["http_handler", "pgmq"]);
        for stranger in [None, Some(Principal::nobody())] {
            assert_eq!(shown(stranger).await, ["pgmq"]);
        }
    }

    #[tokio::test]
    async fn a_check_that_hangs_counts_as_failed() {
        let checks = HealthChecks::builder("worker", "1", CancellationToken::new(), &Metrics::disabled())
            .check("database", std::future::pending)
            .patience(Duration::from_millis(1))
            .build();
        let (code, health) = ask(checks, "/health/detailed").await;
        assert_eq!(code, 503);
        assert_eq!(health.checks[0].message, "no answer within 1ms");
    }
}
