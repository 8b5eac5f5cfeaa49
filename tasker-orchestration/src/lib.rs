//! The orchestration service: decides which steps may run.

pub mod error;
pub mod operate;
pub mod orchestration;
pub mod query;
pub mod submit;
pub mod templates;
pub mod web;

pub use error::Error;
pub use orchestration::Orchestration;
