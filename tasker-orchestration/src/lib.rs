//! The orchestration service: decides which steps may run.
//!
//! Five of the line's stations live here: [`submit`], `initialize`, `enqueue`, `process` and `finalize`, each a module
//! of that name. Around them stand `timers` (what is due later), `repair` (what the line may have missed), [`operate`]
//! (what operators do), [`limits`] (how many steps run at once), [`query`] (what people ask), [`probes`] (gauges),
//! [`templates`], and [`web`], the HTTP API. [`service`] runs it all.

mod committed;
mod enqueue;
pub mod error;
mod finalize;
mod finished;
mod initialize;
pub mod limits;
pub mod operate;
pub mod orchestration;
pub mod probes;
mod process;
pub mod query;
mod repair;
mod requests;
mod retention;
pub mod service;
pub mod submit;
mod taken;
pub mod templates;
mod timers;
pub mod web;

pub use error::Error;
pub use finished::Waiting;
pub use orchestration::{Orchestration, Settings};
