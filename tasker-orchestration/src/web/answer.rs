//! How refusals and failures of the service are answered.

use crate::Error;
use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use tasker_shared::{
    api::Problem,
    runtime::web::{internal, problem},
    storage,
};

/// SQLSTATE of texts that cannot be stored: character not in repertoire, untranslatable character.
const TEXT: [&str; 2] = ["22021", "22P05"];

/// A problem as the answer of a handler or extractor.
#[derive(Debug)]
pub(super) struct Refusal(pub(super) Box<Problem>);

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self(Box::new(problem))
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Problem::from(error).into()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        self.0.into_response()
    }
}

impl From<Error> for Problem {
    /// A refusal is told as it is; a failure is logged here, and told without what is internal.
    fn from(error: Error) -> Self {
        let title = error.to_string();
        let refused = |status, kind| problem(status, kind, title.clone());
        match error {
            Error::TemplateNotFound { .. } => refused(StatusCode::NOT_FOUND, "template_not_found"),
            Error::TaskNotFound(_) => refused(StatusCode::NOT_FOUND, "task_not_found"),
            Error::StepNotFound { .. } => refused(StatusCode::NOT_FOUND, "step_not_found"),
            Error::DeadLetterNotFound(_) => refused(StatusCode::NOT_FOUND, "dead_letter_not_found"),
            Error::NamespaceNotFound { .. } => refused(StatusCode::NOT_FOUND, "namespace_not_found"),
            Error::LimitNotFound(_) => refused(StatusCode::NOT_FOUND, "limit_not_found"),
            Error::TemplateConflict { .. } => refused(StatusCode::CONFLICT, "template_conflict"),
            Error::Illegal(_) => refused(StatusCode::CONFLICT, "illegal_transition"),
            Error::TooLarge { .. } => refused(StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Error::Invalid { .. } => refused(StatusCode::UNPROCESSABLE_ENTITY, "invalid_field"),
            Error::TemplateInvalid(errors) => violations("template_invalid", "the template is invalid".into(), errors),
            Error::InputInvalid { template, violations: errors } => {
                violations("input_invalid", format!("the input breaks the input_schema of `{template}`"), errors)
            }
            Error::ResultInvalid { step, violations: errors } => {
                violations("result_invalid", format!("the result breaks the result_schema of step `{step}`"), errors)
            }
            Error::Storage(failure) => of_storage(&failure),
        }
    }
}

fn violations(kind: &str, title: String, errors: Vec<String>) -> Problem {
    Problem { errors, ..problem(StatusCode::UNPROCESSABLE_ENTITY, kind, title) }
}

fn of_storage(failure: &storage::Error) -> Problem {
    match failure {
        storage::Error::Schema(_) => unavailable(failure),
        storage::Error::Statement { source: sqlx::Error::Database(refusal), .. }
            if refusal.code().is_some_and(|code| TEXT.contains(&&*code)) =>
        {
            let title = "a text has a character that PostgreSQL does not store, such as U+0000";
            problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid_text", title)
        }
        _ if failure.is_outage() => unavailable(failure),
        _ if failure.is_transient() => Problem {
            detail: Some(AGAIN.to_owned()),
            ..problem(StatusCode::SERVICE_UNAVAILABLE, "busy", "the database could not do it at the moment")
        },
        _ => internal(failure),
    }
}

const AGAIN: &str = "try again; with an idempotency_key a task is never made twice";

fn unavailable(failure: &storage::Error) -> Problem {
    tracing::warn!("refused a request for want of the database: {failure}");
    without_database()
}

/// The answer while the database cannot be used.
pub(super) fn without_database() -> Problem {
    Problem {
        detail: Some(AGAIN.to_owned()),
        ..problem(StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, "the database does not serve at the moment")
    }
}

/// The kind of [`without_database`].
pub(super) const UNAVAILABLE: &str = "unavailable";

#[cfg(test)]
mod tests {
    use crate::Error;
    use std::io;
    use tasker_shared::{
        api::Problem,
        id::{DeadLetterId, TaskId},
        storage,
    };

    fn statement(source: sqlx::Error) -> Error {
        Error::Storage(storage::Error::Statement { doing: "insert the secret", source })
    }

    #[test]
    fn every_refusal_has_its_status_and_word() {
        let named = || "math/add@1".to_owned();
        for (error, status, kind) in [
            (Error::TemplateNotFound { template: named(), nearest: None }, 404, "template_not_found"),
            (Error::TemplateInvalid(vec![]), 422, "template_invalid"),
            (Error::TemplateConflict { template: named() }, 409, "template_conflict"),
            (Error::InputInvalid { template: named(), violations: vec![] }, 422, "input_invalid"),
            (Error::ResultInvalid { step: "a".into(), violations: vec![] }, 422, "result_invalid"),
            (Error::Invalid { field: "limit", reason: "1 to 1000".into() }, 422, "invalid_field"),
            (Error::TooLarge { field: "input", size: 2, limit: 1 }, 413, "too_large"),
            (Error::TaskNotFound(TaskId::generate()), 404, "task_not_found"),
            (Error::StepNotFound { task: TaskId::generate(), step: "a".into(), nearest: None }, 404, "step_not_found"),
            (Error::DeadLetterNotFound(DeadLetterId::generate()), 404, "dead_letter_not_found"),
            (Error::NamespaceNotFound { namespace: "a".into(), nearest: None }, 404, "namespace_not_found"),
            (Error::LimitNotFound("a namespace".into()), 404, "limit_not_found"),
            (Error::Illegal("a task that is complete cannot cancel".into()), 409, "illegal_transition"),
            (statement(sqlx::Error::PoolTimedOut), 503, "unavailable"),
            (statement(sqlx::Error::Io(io::ErrorKind::ConnectionReset.into())), 503, "unavailable"),
            (Error::Storage(storage::Error::Schema("run tasker db migrate".into())), 503, "unavailable"),
            (statement(sqlx::Error::RowNotFound), 500, "internal"),
        ] {
            let problem = Problem::from(error);
            assert_eq!((problem.status, problem.kind.as_str()), (status, kind));
        }
    }

    #[test]
    fn violations_are_told_one_by_one() {
        let violations = vec!["/even: 3 is not even".to_owned(), "/odd: missing".to_owned()];
        let problem = Problem::from(Error::InputInvalid { template: "a/b@1".into(), violations: violations.clone() });
        assert_eq!(problem.errors, violations);
        assert_eq!(problem.title, "the input breaks the input_schema of `a/b@1`");
    }

    #[test]
    fn a_failure_tells_nothing_internal() {
        for source in [sqlx::Error::RowNotFound, sqlx::Error::PoolTimedOut] {
            let told = serde_json::to_string(&Problem::from(statement(source))).unwrap();
            assert!(!told.contains("secret") && !told.contains("row") && !told.contains("pool"), "{told}");
        }
    }
}
