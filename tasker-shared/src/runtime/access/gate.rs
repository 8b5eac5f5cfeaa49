//! The layers that every request passes before a handler sees it.

use super::{
    Authenticator, Denied,
    audit::{self, Allowance, Asked},
    routes::{Access, Reach, Route},
};
use crate::{
    access::{Kind, Permission, Principal},
    api::Problem,
    id::{RequestId, TaskId},
    metrics::{AccessOutcome, Credential, Metrics, labels::AccessDecision},
    runtime::web::{Listens, internal, problem},
    storage::{Database, tasks},
};
use axum::{
    Router,
    extract::{ConnectInfo, MatchedPath, RawPathParams, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, uri::Authority},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use std::{
    net::{IpAddr, SocketAddr},
    panic::resume_unwind,
    sync::Arc,
};
use tracing::Instrument as _;

/// The action of those who only look, for the audit of those who may not.
const LOOK: &str = "access";

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What the gate of one service needs; cheap to clone.
#[derive(Debug, Clone)]
pub struct Guard(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    authenticator: Authenticator,
    database: Database,
    routes: Vec<&'static [Route]>,
    allowance: Allowance,
}

impl Guard {
    /// A gate for the routes of these tables.
    pub fn new(authenticator: Authenticator, database: Database, routes: &[&'static [Route]]) -> Self {
        Self(Arc::new(Inner { authenticator, database, routes: routes.to_vec(), allowance: Allowance::new() }))
    }

    fn routes(&self) -> impl Iterator<Item = &'static Route> {
        self.0.routes.iter().copied().flatten()
    }

    /// The host that a request names, if the service must not answer to that name: while everybody may do everything on an
    /// address of this machine, a page of another host, whose name leads here, is not to be taken for a program of this machine.
    fn foreign_host(&self, request: &Request) -> Option<String> {
        let listens = request.extensions().get::<Listens>()?.0.ip().to_canonical();
        if self.0.authenticator.answers_to_any_host() || !listens.is_loopback() {
            return None;
        }
        hosts(request).find(|host| !is_local(host))
    }

    /// Where its measurements go.
    pub fn metrics(&self) -> &Metrics {
        self.0.database.metrics()
    }

    fn count(&self, principal: Option<&Principal>, outcome: AccessOutcome) {
        let credential = match principal.map(Principal::kind) {
            None | Some(Kind::Anonymous) => Credential::None,
            Some(Kind::Key) => Credential::Key,
            Some(Kind::Token) => Credential::Token,
        };
        self.metrics().access_decisions.add(1, AccessDecision { credential, outcome });
    }

    /// The one who asks, as far as the route wants to know.
    async fn know(&self, route: &Route, headers: &HeaderMap) -> Result<Principal, Denied> {
        match route.access {
            Access::Open => Ok(Principal::nobody()),
            Access::Partly(_) => Ok(self.0.authenticator.authenticate(headers).await.unwrap_or(Principal::nobody())),
            Access::Needs(..) => self.0.authenticator.authenticate(headers).await.inspect_err(|denied| {
                let outcome = match denied {
                    Denied::Unavailable(_) => AccessOutcome::Unavailable,
                    Denied::Missing | Denied::Invalid(_) => AccessOutcome::Unauthenticated,
                };
                self.count(None, outcome);
            }),
        }
    }

    async fn check(
        &self,
        permission: Permission,
        reach: Reach,
        principal: &Principal,
        params: &RawPathParams,
    ) -> Result<(), Box<Problem>> {
        if !principal.may(permission) {
            return Err(Box::new(lacks(principal, permission)));
        }
        let named = |name: &str| params.iter().find(|(key, _)| *key == name).map(|(_, value)| value);
        match reach {
            Reach::System | Reach::Handler => Ok(()),
            Reach::Namespace => match named("namespace") {
                Some(namespace) if principal.namespaces().contain(namespace) => Ok(()),
                Some(namespace) => Err(Box::new(outside(principal, namespace))),
                None => Err(Box::new(internal("a route that reaches a namespace names none"))),
            },
            Reach::Task if principal.namespaces().limit().is_none() => Ok(()),
            Reach::Task => match named("task_id").map(str::parse::<TaskId>) {
                Some(Ok(task)) => self.owns(principal, task).await,
                // the handler says what is wrong with it
                Some(Err(_)) => Ok(()),
                None => Err(Box::new(internal("a route that reaches a task names none"))),
            },
        }
    }

    async fn owns(&self, principal: &Principal, task: TaskId) -> Result<(), Box<Problem>> {
        let found = async { tasks::namespace(&mut self.0.database.session("find_namespace").await?, task).await };
        match found.await {
            Ok(Some(namespace)) if principal.namespaces().contain(&namespace) => Ok(()),
            Ok(_) => {
                let title = format!("task {task} does not exist");
                Err(Box::new(problem(StatusCode::NOT_FOUND, "task_not_found", title)))
            }
            Err(error) if error.is_transient() => {
                tracing::warn!("refused a request for want of the database: {error}");
                let title = "the database does not serve at the moment";
                Err(Box::new(problem(StatusCode::SERVICE_UNAVAILABLE, "unavailable", title)))
            }
            Err(error) => Err(Box::new(internal(&error))),
        }
    }

    /// What a method gets that the tables do not have for this path.
    fn undeclared(&self, path: &str, method: &Method) -> Response {
        let known: Vec<_> = self.routes().filter(|route| route.path == path).map(|route| route.method).collect();
        if known.is_empty() {
            return internal(&format!("the route {path} is in no table of permissions")).into_response();
        }
        let title = format!("{path} does not take {method}; the header `allow` names what it takes");
        let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", title).into_response();
        let allow = HeaderValue::from_str(&known.join(",")).ok();
        response.headers_mut().extend(allow.map(|allow| (header::ALLOW, allow)));
        response
    }
}

/// The gate itself refused: an extension of the answer.
#[derive(Debug, Clone, Copy)]
struct TurnedAway;

/// The hosts that a request names: in its target and in its header.
fn hosts(request: &Request) -> impl Iterator<Item = String> {
    let target = request.uri().authority().map(|authority| authority.as_str().to_owned());
    let headers = request.headers().get_all(header::HOST).iter();
    target.into_iter().chain(headers.map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned()))
}

/// Whether a host, with a port or without, is this machine by its very name.
fn is_local(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let host = authority.host();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

fn refuse_host(host: &str) -> Problem {
    let title = format!("this service does not answer to the host `{host}` while authentication is off");
    Problem {
        detail: Some(
            "call it by localhost or 127.0.0.1; or set auth.enabled = true and make a key with `tasker key create`; or, where \
             something else keeps strangers away, set auth.allow_unauthenticated_public_address = true"
                .to_owned(),
        ),
        ..problem(StatusCode::FORBIDDEN, "foreign_host", title)
    }
}

/// The 403 of a caller who lacks a permission.
fn lacks(principal: &Principal, permission: Permission) -> Problem {
    problem(StatusCode::FORBIDDEN, "forbidden", format!("`{principal}` lacks the permission `{permission}`"))
}

/// The 403 of a caller who reaches for another namespace.
pub fn outside(principal: &Principal, namespace: &str) -> Problem {
    problem(
        StatusCode::FORBIDDEN,
        "forbidden",
        format!("`{principal}` has no permission in the namespace `{namespace}`"),
    )
}

/// The routes behind the gate, which stands on both sides of `between`: outside it finds out who asks, inside it looks
/// what the caller may.
pub fn guarded(routes: Router, gate: Guard, between: impl FnOnce(Router) -> Router) -> Router {
    let routes = between(routes.layer(middleware::from_fn_with_state(gate.clone(), authorize)));
    routes.layer(middleware::from_fn_with_state(gate, identify))
}

/// Finds out who asks, or answers 401 itself, and writes down what becomes of actions.
async fn identify(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    if let Some(host) = guard.foreign_host(&request) {
        return refuse_host(&host).into_response();
    }
    let Some(path) = request.extensions().get::<MatchedPath>().cloned() else { return next.run(request).await };
    let method = request.method().clone();
    let Some(route) = guard.routes().find(|route| route.path == path.as_str() && route.takes(&method)) else {
        // where authentication is off, the router itself says what it does not have
        return if guard.0.authenticator.is_on() {
            guard.undeclared(path.as_str(), &method)
        } else {
            next.run(request).await
        };
    };
    let mut asked = Asked {
        principal: "unknown".to_owned(),
        address: request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip().to_string()),
        action: route.action.unwrap_or(LOOK),
        target: request.uri().path().to_owned(),
        request_id: RequestId::generate(),
    };
    let principal = match guard.know(route, request.headers()).await {
        Ok(principal) => principal,
        Err(denied) => {
            // a look without a word of who looks is no attempt at anything
            let silent = denied == Denied::Missing && route.action.is_none();
            return turned_away(&guard, asked, denied.into_response(), silent).await;
        }
    };
    principal.name().clone_into(&mut asked.principal);
    request.extensions_mut().insert(principal);
    request.extensions_mut().insert(route);
    if route.action.is_some() {
        return acted(guard, asked, request, next).await;
    }
    let response = next.run(request).await;
    match response.extensions().get::<TurnedAway>() {
        Some(TurnedAway) => turned_away(&guard, asked, response, false).await,
        None => response,
    }
}

/// Lets a request through to its handler, or answers itself: 403, or 404 for what belongs to others.
async fn authorize(State(guard): State<Guard>, params: RawPathParams, request: Request, next: Next) -> Response {
    let Some(Access::Needs(permission, reach)) = request.extensions().get::<&'static Route>().map(|route| route.access)
    else {
        return next.run(request).await;
    };
    let Some(principal) = request.extensions().get::<Principal>().cloned() else {
        return internal("a request came by the outer side of the gate").into_response();
    };
    match guard.check(permission, reach, &principal, &params).await {
        Ok(()) => {
            guard.count(Some(&principal), AccessOutcome::Accepted);
            next.run(request).await
        }
        Err(problem) => {
            guard.count(Some(&principal), AccessOutcome::Forbidden);
            let mut response = problem.into_response();
            response.extensions_mut().insert(TurnedAway);
            response
        }
    }
}

/// Writes down that a caller was turned away, unless that is to go by in silence or is the service's own fault.
async fn turned_away(guard: &Guard, asked: Asked, response: Response, silent: bool) -> Response {
    let id = asked.request_id;
    if !response.status().is_server_error()
        && !silent
        && let Some(entry) = audit::turned_away(&guard.0.allowance, asked, &response)
    {
        audit::write(&guard.0.database, entry).await;
    }
    identified(response, id)
}

/// Runs an action to its end, whether its caller waits for it or not, and writes it down before the caller hears of it.
async fn acted(guard: Guard, asked: Asked, request: Request, next: Next) -> Response {
    let id = asked.request_id;
    let action = async move {
        let response = next.run(request).await;
        if response.extensions().get::<TurnedAway>().is_some() {
            return turned_away(&guard, asked, response, false).await;
        }
        let entry = audit::answered(asked, &response);
        audit::write(&guard.0.database, entry).await;
        identified(response, id)
    };
    match tokio::spawn(action.in_current_span()).await {
        Ok(response) => response,
        Err(ended) if ended.is_panic() => resume_unwind(ended.into_panic()),
        Err(ended) => internal(&ended).into_response(),
    }
}

fn identified(mut response: Response, id: RequestId) -> Response {
    let value = HeaderValue::from_str(&id.to_string()).ok();
    response.headers_mut().extend(value.map(|value| (REQUEST_ID, value)));
    response
}
