//! Why a command ended without doing what was asked: for people, for programs, and as an exit code.

use crate::exit::Exit;
use serde::Serialize;
use serde_json::{Value, json};
use std::{fmt, io};
use tasker_shared::api::Problem;

/// A failure with its exit code.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Error {
    /// A word that programs can match, such as `task_not_found` or `usage`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What happened, in one line.
    pub title: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Single findings.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    #[serde(skip)]
    exit: Exit,
}

/// What a command comes to.
pub type Result<T = Exit, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A failure that is known by `kind`.
    pub fn new(exit: Exit, kind: &str, title: impl Into<String>) -> Self {
        Self { kind: kind.to_owned(), title: title.into(), detail: None, errors: Vec::new(), exit }
    }

    /// Something given cannot be understood.
    pub fn usage(title: impl Into<String>) -> Self {
        Self::new(Exit::Usage, "usage", title)
    }

    /// Something that a person can do about it.
    pub fn advise(self, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..self }
    }

    /// Single findings.
    pub fn list(self, errors: Vec<String>) -> Self {
        Self { errors, ..self }
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// Whether only the reader of our output went away: nothing to talk about, and nobody to talk to.
    pub fn is_broken_pipe(&self) -> bool {
        self.kind == BROKEN_PIPE
    }

    /// For programs: one object.
    pub fn to_json(&self) -> Value {
        let mut error = json!(self);
        error["exit_code"] = self.exit.code().into();
        json!({ "error": error })
    }
}

const BROKEN_PIPE: &str = "broken_pipe";

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.title)?;
        self.errors.iter().try_for_each(|error| write!(f, "\n  - {error}"))?;
        self.detail.iter().try_for_each(|detail| write!(f, "\n  {detail}"))
    }
}

impl std::error::Error for Error {}

impl From<tasker_client::Error> for Error {
    fn from(error: tasker_client::Error) -> Self {
        use tasker_client::Error as E;
        let (exit, kind) = match &error {
            E::Refused(problem) => return Problem::clone(problem).into(),
            E::Url { .. } | E::Credentials { .. } => (Exit::Usage, "usage"),
            E::Unreachable { .. } => (Exit::Unreachable, "unreachable"),
            E::Timeout { .. } => (Exit::Timeout, "timeout"),
            E::Unexpected { .. } => (Exit::Broken, "unexpected_answer"),
        };
        Self::new(exit, kind, error.to_string())
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        let exit = match problem.status {
            404 => Exit::NotFound,
            408 | 504 => Exit::Timeout,
            503 => Exit::Unreachable,
            500.. => Exit::Broken,
            _ => Exit::Failed,
        };
        Self { kind: problem.kind, title: problem.title, detail: problem.detail, errors: problem.errors, exit }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::new(Exit::Ok, BROKEN_PIPE, "the reader of the output went away"),
            _ => Self::new(Exit::Broken, "io", format!("failed to write the output: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Error;
    use crate::exit::Exit;
    use serde_json::json;
    use std::io;
    use tasker_shared::api::Problem;

    fn problem(status: u16) -> Problem {
        Problem { kind: "some_kind".into(), status, title: "no".into(), ..Problem::default() }
    }

    #[test]
    fn the_status_of_a_refusal_decides_the_exit_code() {
        let cases = [
            (400, Exit::Failed),
            (404, Exit::NotFound),
            (409, Exit::Failed),
            (422, Exit::Failed),
            (500, Exit::Broken),
            (503, Exit::Unreachable),
            (504, Exit::Timeout),
        ];
        for (status, exit) in cases {
            assert_eq!(Error::from(problem(status)).exit(), exit, "{status}");
        }
    }

    #[test]
    fn people_read_findings_and_advice_below_the_title() {
        let error = Error::usage("the file is wrong").list(vec!["line 1".into(), "line 2".into()]).advise("mend it");
        assert_eq!(error.to_string(), "the file is wrong\n  - line 1\n  - line 2\n  mend it");
    }

    #[test]
    fn programs_read_one_object_with_the_exit_code() {
        let error = Error::from(Problem { detail: Some("look".into()), ..problem(404) });
        let expected = json!({"error": {"type": "some_kind", "title": "no", "detail": "look", "exit_code": 3}});
        assert_eq!(error.to_json(), expected);
    }

    #[test]
    fn a_broken_pipe_is_quiet_and_a_full_disk_is_not() {
        assert!(Error::from(io::Error::from(io::ErrorKind::BrokenPipe)).is_broken_pipe());
        let full = Error::from(io::Error::from(io::ErrorKind::StorageFull));
        assert!(!full.is_broken_pipe());
        assert_eq!(full.exit(), Exit::Broken);
    }
}
