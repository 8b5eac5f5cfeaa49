//! The layer that every request passes before a handler sees it.

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
    runtime::web::{internal, problem},
    storage::{Database, tasks},
};
use axum::{
    extract::{ConnectInfo, MatchedPath, RawPathParams, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::{net::SocketAddr, panic::resume_unwind, sync::Arc};
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

    /// The caller, if it may use the route at all.
    async fn admit(&self, route: &Route, headers: &HeaderMap, params: &RawPathParams) -> Result<Principal, Turned> {
        let Access::Needs(permission, reach) = route.access else { return Ok(Principal::nobody()) };
        let principal = match self.0.authenticator.authenticate(headers).await {
            Ok(principal) => principal,
            Err(denied) => {
                let outcome = match denied {
                    Denied::Unavailable(_) => AccessOutcome::Unavailable,
                    Denied::Missing | Denied::Invalid(_) => AccessOutcome::Unauthenticated,
                };
                self.count(None, outcome);
                return Err(Turned { principal: None, denial: Denial::Unknown(denied) });
            }
        };
        match self.check(permission, reach, &principal, params).await {
            Ok(()) => {
                self.count(Some(&principal), AccessOutcome::Accepted);
                Ok(principal)
            }
            Err(problem) => {
                self.count(Some(&principal), AccessOutcome::Forbidden);
                Err(Turned { principal: Some(principal), denial: Denial::Refused(problem) })
            }
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

/// A caller who is turned away.
struct Turned {
    principal: Option<Principal>,
    denial: Denial,
}

enum Denial {
    Unknown(Denied),
    Refused(Box<Problem>),
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

/// Lets a request through to its handler, or answers itself: 401, 403, or 404 for what belongs to others.
pub async fn guard(State(guard): State<Guard>, params: RawPathParams, mut request: Request, next: Next) -> Response {
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
    match guard.admit(route, request.headers(), &params).await {
        Ok(principal) => {
            principal.name().clone_into(&mut asked.principal);
            request.extensions_mut().insert(principal);
            match route.action {
                None => next.run(request).await,
                Some(_) => acted(guard, asked, request, next).await,
            }
        }
        Err(turned) => {
            if let Some(principal) = turned.principal {
                principal.name().clone_into(&mut asked.principal);
            }
            turned_away(&guard, asked, turned.denial).await
        }
    }
}

async fn turned_away(guard: &Guard, asked: Asked, denial: Denial) -> Response {
    let id = asked.request_id;
    // a look without a word of who looks is no attempt at anything
    let silent = matches!(denial, Denial::Unknown(Denied::Missing)) && asked.action == LOOK;
    let (problem, response) = match denial {
        Denial::Unknown(denied) => (denied.problem(), denied.into_response()),
        Denial::Refused(problem) => (Problem::clone(&problem), problem.into_response()),
    };
    if problem.status < 500 && !silent {
        audit::turned_away(&guard.0.database, &guard.0.allowance, asked, &problem).await;
    }
    identified(response, id)
}

/// Runs an action to its end, whether its caller waits for it or not, and writes it down before the caller hears of it.
async fn acted(guard: Guard, asked: Asked, request: Request, next: Next) -> Response {
    let id = asked.request_id;
    let action = async move {
        let response = next.run(request).await;
        let entry = audit::answered(asked, &response);
        audit::write(&guard.0.database, entry).await;
        response
    };
    match tokio::spawn(action.in_current_span()).await {
        Ok(response) => identified(response, id),
        Err(ended) if ended.is_panic() => resume_unwind(ended.into_panic()),
        Err(ended) => internal(&ended).into_response(),
    }
}

fn identified(mut response: Response, id: RequestId) -> Response {
    let value = HeaderValue::from_str(&id.to_string()).ok();
    response.headers_mut().extend(value.map(|value| (REQUEST_ID, value)));
    response
}
