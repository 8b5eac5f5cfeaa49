//! What comes back from a call, and what follows from it.

use super::{
    guard::Refused,
    request::{Call, ResultForm},
};
use crate::handler::HandlerError;
use chrono::{DateTime, Utc};
use reqwest::{
    Response,
    header::{CONTENT_TYPE, DATE, HeaderMap, HeaderName, RETRY_AFTER},
};
use serde_json::{Map, Value, json};
use std::{
    error::Error,
    time::{Duration, SystemTime},
};

/// A service that asks for more is tried again after this time all the same.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// How much of an error response is kept.
const KEPT_BODY: usize = 2 * 1024;

/// Maps an answer to the step's result.
///
/// # Errors
/// Retryable: no whole answer, and the statuses that the step retries. Permanent: other statuses, bodies that are too large.
pub(super) async fn receive(
    response: Response,
    call: &Call,
    limit: Duration,
    max_bytes: usize,
) -> Result<Value, HandlerError> {
    if !call.is_success(response.status()) {
        return Err(bad_status(call, response).await);
    }
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = read_body(response, max_bytes).await.map_err(|unread| match unread {
        Unread::TooLarge => HandlerError::too_large(format!(
            "the response to {} has more than {max_bytes} bytes (`worker.http.max_response_bytes`)",
            call.shown()
        )),
        Unread::Failed(error) => no_answer(call, limit, error),
    })?;
    let body = parse(call, &headers, body)?;
    Ok(match call.result_form() {
        ResultForm::Body => body,
        ResultForm::Response => json!({"status": status, "headers": kept_headers(call, &headers), "body": body}),
    })
}

enum Unread {
    TooLarge,
    Failed(reqwest::Error),
}

async fn read_body(mut response: Response, max: usize) -> Result<Vec<u8>, Unread> {
    let announced = response.content_length().unwrap_or(0);
    if usize::try_from(announced).map_or(true, |announced| announced > max) {
        return Err(Unread::TooLarge);
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(Unread::Failed)? {
        if body.len() + chunk.len() > max {
            return Err(Unread::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn parse(call: &Call, headers: &HeaderMap, body: Vec<u8>) -> Result<Value, HandlerError> {
    if body.is_empty() {
        return Ok(Value::Null);
    }
    if is_json(headers) {
        return serde_json::from_slice(&body).map_err(|error| {
            HandlerError::retry(format!("the response to {} says it is JSON and is not: {error}", call.shown()))
                .with_details(json!({"body": beginning(&body)}))
        });
    }
    let text = String::from_utf8(body);
    text.map(Value::String)
        .map_err(|_| HandlerError::fail(format!("the response to {} is neither JSON nor text in UTF-8", call.shown())))
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = text(headers, &CONTENT_TYPE).unwrap_or_default().to_ascii_lowercase();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    media_type == "application/json" || media_type.ends_with("+json")
}

fn kept_headers(call: &Call, headers: &HeaderMap) -> Map<String, Value> {
    let kept = headers.keys().filter(|name| call.keeps_header(name.as_str()));
    kept.filter_map(|name| Some((name.to_string(), Value::from(text(headers, name)?)))).collect()
}

async fn bad_status(call: &Call, response: Response) -> HandlerError {
    let (status, headers) = (response.status(), response.headers().clone());
    let body = read_beginning(response).await;
    let message = format!("{} answered {status}", call.shown());
    let details = json!({"status": status.as_u16(), "headers": kept_headers(call, &headers), "body": beginning(&body)});
    let away = matches!(status.as_u16(), 502..=504);
    let of_host = |error: HandlerError| if away { error.of_host() } else { error };
    if !call.is_retryable(status) {
        return of_host(HandlerError::fail(message)).with_details(details);
    }
    let error = of_host(HandlerError::retry(message)).with_details(details);
    match retry_after(&headers) {
        Some(delay) => error.after(delay),
        None => error,
    }
}

async fn read_beginning(mut response: Response) -> Vec<u8> {
    let mut body = Vec::new();
    while body.len() < KEPT_BODY {
        match response.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) | Err(_) => break,
        }
    }
    body
}

fn beginning(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(KEPT_BODY)]).into_owned()
}

/// The delay that the service asks for: seconds, or a date. A date is compared with the service's own clock.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let asked = text(headers, &RETRY_AFTER)?.trim();
    let delay = match asked.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let now = text(headers, &DATE).and_then(date).unwrap_or_else(|| SystemTime::now().into());
            (date(asked)? - now).to_std().unwrap_or_default()
        }
    };
    Some(delay.min(LONGEST_RETRY_AFTER))
}

fn date(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc2822(text).ok().map(Into::into)
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Why no answer came, or not all of it.
pub(super) fn no_answer(call: &Call, limit: Duration, error: reqwest::Error) -> HandlerError {
    if let Some(refused) = refusal(&error) {
        return HandlerError::fail(format!("{}: {refused}", call.shown()));
    }
    if error.is_timeout() {
        let message = format!("{} gave no answer within {} ms", call.shown(), limit.as_millis());
        return HandlerError::retry(message).of_host();
    }
    if error.is_builder() {
        return HandlerError::fail(error.without_url());
    }
    let cause = HandlerError::retry(error.without_url());
    HandlerError::retry(format!("{} failed: {cause}", call.shown())).of_host()
}

fn refusal(error: &reqwest::Error) -> Option<&Refused> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(refused) = error.downcast_ref() {
            return Some(refused);
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{LONGEST_RETRY_AFTER, retry_after};
    use reqwest::header::{DATE, HeaderMap, HeaderValue, RETRY_AFTER};
    use std::time::Duration;

    fn asked(value: &'static str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(DATE, HeaderValue::from_static("Wed, 21 Oct 2015 07:28:00 GMT"));
        headers.insert(RETRY_AFTER, HeaderValue::from_static(value));
        retry_after(&headers)
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_by_the_clock_of_the_service() {
        assert_eq!(asked("120"), Some(Duration::from_secs(120)));
        assert_eq!(asked("Wed, 21 Oct 2015 07:29:30 GMT"), Some(Duration::from_secs(90)));
        assert_eq!(asked("Wed, 21 Oct 2015 07:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(asked("99999999999"), Some(LONGEST_RETRY_AFTER));
        assert_eq!(asked("soon"), None);
        assert_eq!(asked("-3"), None);
    }
}
