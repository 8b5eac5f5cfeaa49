//! What the HTTP of both services has in common: server, layers, problems, health and metrics pages.

mod connection;
mod connections;
mod health;
mod layers;
mod listen;
mod metrics;
mod problem;
mod tls;
mod trace;

pub(crate) use connection::Listens;
pub use connections::most_connections;
pub use health::{Builder as HealthBuilder, Document as HealthDocument, HealthChecks, health_router};
pub use layers::{TIMEOUT, common, deadline};
pub use listen::{Error, OwnPort, bind, serve};
pub use metrics::{Document as MetricsDocument, Exposition, metrics_router};
pub use problem::{PROBLEM_JSON, ProblemKind, internal, problem};
pub use tls::{Tls, Unusable};
pub use trace::traceparent;
