//! Templates: what a workflow is, read from YAML, checked whole, immutable once used.
//!
//! A file goes [`parse`] -> [`Template`] -> [`Template::for_environment`] -> [`Compiled`]; the last is what a task is
//! submitted to and run by.

mod checksum;
pub mod compiled;
pub mod dag;
pub mod graph;
pub mod headers;
pub mod model;
mod parse;
pub mod placeholders;
mod problem;
mod read;
pub mod retention;
mod schema;
mod source;
pub mod wfformat;
mod work;
mod write;

pub use checksum::{canonical_json, checksum};
pub use compiled::Compiled;
pub use dag::Dag;
pub use model::{Concurrency, Handler, Lifecycle, RetryOverride, StepOverride, StepTemplate, Template};
pub use parse::{DEFAULT_VERSION, parse, parse_with};
pub use problem::{Invalid, Problem, nearest};
pub use retention::{Keep, Retention};
pub use schema::{SchemaViolation, Violation};
pub use source::Limits;
pub use write::to_yaml;

#[cfg(test)]
mod tests;
