//! The Tasker worker: claims steps, runs handlers, reports outcomes.

pub mod examples;
pub mod handler;
