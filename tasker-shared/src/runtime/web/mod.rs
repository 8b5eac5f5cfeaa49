//! What the HTTP of both services has in common: server, layers, problems, health and metrics pages.

mod health;
mod layers;
mod listen;
mod metrics;
mod problem;
mod trace;

pub use health::{Builder as HealthBuilder, Document as HealthDocument, HealthChecks, health_router};
pub use layers::{TIMEOUT, common, deadline};
pub use listen::{Error, OwnPort, bind, serve};
pub use metrics::{Document as MetricsDocument, Exposition, metrics_router};
pub use problem::{PROBLEM_JSON, ProblemKind, internal, problem};
pub use trace::traceparent;
