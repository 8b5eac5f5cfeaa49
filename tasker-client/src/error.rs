//! What can go wrong between a client and the service, with what to do about it.

use std::{error::Error as _, time::Duration};
use tasker_shared::api::Problem;

/// A request did not bring what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be used.
    #[error("`{url}` cannot be called: {reason}; write the address like http://127.0.0.1:8080")]
    Url {
        /// As it was given; a password and other secrets in it are not shown.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A token or certificate cannot be used.
    #[error("{what} cannot be used: {reason}")]
    Credentials {
        /// Which of them.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing answers at the address.
    #[error(
        "no connection to {url}: {reason}; is Tasker running? start it with `tasker dev`, or set --url or TASKER_URL to where it is"
    )]
    Unreachable {
        /// The service's address.
        url: String,
        /// What the connection said.
        reason: String,
        /// The whole cause.
        #[source]
        source: reqwest::Error,
    },
    /// The service took the request and did not answer in time; it may still have acted on it.
    #[error("no answer from {url} within {}; it may be overloaded: see `tasker health`", seconds(.after))]
    Timeout {
        /// The service's address.
        url: String,
        /// How long the client waited.
        after: Duration,
    },
    /// The service refused the request, or failed at it, and says why.
    #[error("{}", sentence(.0))]
    Refused(Box<Problem>),
    /// Something answered that is not the service, or not one of this version.
    #[error(
        "{url} answered {status} with something that is not understood ({reason}); is this the address of a Tasker orchestration service of the same version?"
    )]
    Unexpected {
        /// The service's address.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What was found.
        reason: String,
    },
}

impl Error {
    /// What the service said, when it refused.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Refused(problem) => Some(problem),
            _ => None,
        }
    }

    /// The HTTP status of the answer, when there was one.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused(problem) => Some(problem.status),
            Self::Unexpected { status, .. } => Some(*status),
            _ => None,
        }
    }

    pub(crate) fn transport(url: &str, after: Duration, source: reqwest::Error) -> Self {
        let (url, source) = (url.to_owned(), source.without_url());
        if source.is_timeout() && !source.is_connect() {
            return Self::Timeout { url, after };
        }
        Self::Unreachable { url, reason: root_cause(&source), source }
    }

    pub(crate) fn refusal(url: &str, status: u16, body: &[u8]) -> Self {
        match serde_json::from_slice::<Box<Problem>>(body) {
            Ok(problem) => Self::Refused(problem),
            Err(_) => Self::unexpected(url, status, &beginning(body)),
        }
    }

    pub(crate) fn unexpected(url: &str, status: u16, reason: &str) -> Self {
        Self::Unexpected { url: url.to_owned(), status, reason: reason.to_owned() }
    }
}

fn sentence(problem: &Problem) -> String {
    let mut text = problem.title.clone();
    for more in problem.errors.iter().chain(&problem.detail) {
        text.push_str("; ");
        text.push_str(more);
    }
    text
}

fn seconds(duration: &Duration) -> String {
    format!("{} s", duration.as_secs_f64())
}

fn root_cause(error: &reqwest::Error) -> String {
    let mut cause = error.source();
    let mut text = error.to_string();
    while let Some(inner) = cause {
        text = inner.to_string();
        cause = inner.source();
    }
    text
}

/// Enough of a body to recognise it: a proxy's error page, for instance.
fn beginning(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(120) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None if line.is_empty() => "an empty body".to_owned(),
        None => line,
    }
}
