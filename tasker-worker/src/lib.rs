//! The worker service: claims steps, runs their handlers, reports the outcomes.
//!
//! Three of the line's stations live here: `claim`, `execute` and `report`. A claimed step is held by a lease, which
//! `heartbeat` extends while its handler runs. A worker of one's own is a few lines: see [`Worker`].

mod claim;
mod completion;
mod core;
pub mod examples;
mod execute;
pub mod handler;
mod heartbeat;
mod report;
mod running;
pub mod service;
mod shed;
mod worker;
mod writing;

pub use completion::Slowness;
pub use handler::{HandlerError, StepContext, StepHandler};
pub use worker::{Builder, Error, Settings, Worker};
