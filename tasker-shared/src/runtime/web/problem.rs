//! Errors as answers: RFC 9457 problems, for every route and for requests that match none.

use crate::{api::Problem, id::RequestId};
use axum::{
    Json,
    http::{HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use std::{any::Any, fmt::Display};

/// The media type of every error answer.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// After how many seconds a caller may try again when the service cannot answer now.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// The `kind` of the problem that a response tells, for the layers that it passes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProblemKind(pub String);

/// A problem with what every problem has; `kind` is the word that programs match.
pub fn problem(status: StatusCode, kind: &str, title: impl Into<String>) -> Problem {
    Problem { kind: kind.to_owned(), status: status.as_u16(), title: title.into(), ..Problem::default() }
}

/// A failure that is not the caller's: logged here with its cause, answered with nothing but the id to find it by.
pub fn internal(cause: &(impl Display + ?Sized)) -> Problem {
    let id = RequestId::generate();
    tracing::error!(request.id = %id, "failed to answer a request: {cause}");
    Problem {
        detail: Some(format!("look for request.id {id} in the log of the service")),
        instance: Some(format!("urn:uuid:{id}")),
        ..problem(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the service failed to answer")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let kind = ProblemKind(self.kind.clone());
        let mut response = (status, Json(self)).into_response();
        response.extensions_mut().insert(kind);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response
    }
}

/// Answers what no route matches.
pub(super) async fn no_route(uri: Uri) -> Problem {
    problem(StatusCode::NOT_FOUND, "route_not_found", format!("there is nothing at {}", uri.path()))
}

/// Answers a method that the route does not have.
pub(super) async fn wrong_method(method: Method, uri: Uri) -> Problem {
    let title = format!("{} does not take {method}; the header `allow` names what it takes", uri.path());
    problem(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", title)
}

/// Answers for a handler that panicked.
pub(super) fn panicked(payload: Box<dyn Any + Send + 'static>) -> Response {
    let words =
        payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    internal(&format!("panic: {}", words.unwrap_or("without words"))).into_response()
}
