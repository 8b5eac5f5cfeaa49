//! Templates: what a workflow is, read from YAML, checked whole, immutable once used.

pub mod model;

pub use model::{Handler, Lifecycle, StepTemplate, Template};
