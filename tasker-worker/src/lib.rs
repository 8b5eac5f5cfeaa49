//! The Tasker worker: claims steps, runs handlers, reports outcomes.

pub mod handler;
pub mod examples;
