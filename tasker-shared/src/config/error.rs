//! What is wrong with the configuration: everything at once, each with its key, place and expected value.

use super::Origin;
use std::fmt;

/// Everything that is wrong with the configuration, one problem on each line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The problems, in the order of their places.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// A key that does not exist.
    #[error("{key} ({origin}): unknown key{}", did_you_mean(suggestion.as_deref()))]
    UnknownKey {
        /// The key's full name.
        key: String,
        /// Where it is written.
        origin: Origin,
        /// The key, or section in brackets, that was probably meant.
        suggestion: Option<String>,
    },
    /// A value that the key does not take.
    #[error("{key} = {value} ({origin}): expected {expected}")]
    Value {
        /// The key's full name.
        key: String,
        /// What was written; secrets are not shown.
        value: String,
        /// Where it is written.
        origin: Origin,
        /// What the key takes.
        expected: String,
    },
    /// A file that is not TOML.
    #[error("{file}, line {line}: {message}")]
    Syntax {
        /// The file.
        file: String,
        /// The line, counted from 1.
        line: usize,
        /// What the parser says.
        message: String,
    },
    /// A file or directory that cannot be read.
    #[error("{path}: {message}")]
    Unreadable {
        /// The file or directory.
        path: String,
        /// Why.
        message: String,
    },
    /// A file that nothing would read.
    #[error("{file}: unknown file; expected tasker.toml, telemetry.toml, orchestration.toml or worker.toml")]
    UnknownFile {
        /// The file.
        file: String,
    },
    /// `TASKER_ENV` names an environment that does not exist.
    #[error("TASKER_ENV = {name:?}: expected one of {}; for one of your own make {expected_directory}", known.join(", "))]
    UnknownEnvironment {
        /// The value of the variable.
        name: String,
        /// The environments there are.
        known: Vec<String>,
        /// The directory that would make the name known.
        expected_directory: String,
    },
    /// The default file and the sections of the program do not fit together.
    #[error("the built-in defaults are inconsistent: {0}")]
    Defaults(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.problems.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Error {}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem] }
    }
}

fn did_you_mean(suggestion: Option<&str>) -> String {
    suggestion.map_or_else(String::new, |key| format!("; did you mean {key}?"))
}
