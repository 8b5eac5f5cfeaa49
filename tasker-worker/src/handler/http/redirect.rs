//! Sends a call, and goes where redirects lead, as far as the worker allows it.

use super::{
    guard::{Guard, Refused},
    request::{Call, Target},
    response::no_answer,
};
use crate::handler::{HandlerError, StepContext};
use reqwest::{Client, Method, Response, StatusCode, Url, header::LOCATION};
use std::time::{Duration, Instant};

const MAX_REDIRECTS: usize = 10;

/// The first answer that is no redirect. `limit` is the time for all of it.
///
/// # Errors
/// Retryable: no answer. Permanent: a redirect to where no call may go.
pub(super) async fn send(
    client: &Client,
    guard: &Guard,
    call: &Call,
    context: &StepContext,
    limit: Duration,
) -> Result<Response, HandlerError> {
    let began = Instant::now();
    let mut target = Target { method: call.method().clone(), url: call.url().clone(), with_body: true };
    for _ in 0..=MAX_REDIRECTS {
        let request = call.request(client, context, &target)?.timeout(limit.saturating_sub(began.elapsed()));
        let response = request.send().await.map_err(|error| no_answer(call, limit, error))?;
        let Some(url) = location(&response) else { return Ok(response) };
        allowed(guard, &target.url, &url)
            .map_err(|refused| HandlerError::fail(format!("{}: {refused}", call.shown())))?;
        target = redirected(target, response.status(), url);
    }
    Err(HandlerError::fail(format!("{}: more than {MAX_REDIRECTS} redirects", call.shown())))
}

/// Where the answer sends the caller.
fn location(response: &Response) -> Option<Url> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    response.url().join(response.headers().get(LOCATION)?.to_str().ok()?).ok()
}

fn allowed(guard: &Guard, from: &Url, to: &Url) -> Result<(), Refused> {
    if from.scheme() == "https" && to.scheme() != "https" {
        return Err(Refused::Downgrade(to.host_str().unwrap_or_default().to_owned()));
    }
    guard.check(to)
}

/// 301, 302 and 303 ask for a page, whatever was sent; 307 and 308 ask for the same again.
fn redirected(from: Target, status: StatusCode, url: Url) -> Target {
    if matches!(status.as_u16(), 307 | 308) {
        return Target { url, ..from };
    }
    let method = if from.method == Method::HEAD { Method::HEAD } else { Method::GET };
    Target { method, url, with_body: false }
}
