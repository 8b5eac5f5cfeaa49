//! What runs a step: the trait, its context, its error, and the list of handlers a worker knows.
//!
//! ```
//! use serde::{Deserialize, Serialize};
//! use tasker_worker::handler::{HandlerError, Registry, StepContext, handler_fn};
//!
//! #[derive(Deserialize)]
//! struct Order { amount: u64 }
//!
//! #[derive(Serialize)]
//! struct Receipt { paid: u64 }
//!
//! async fn charge(context: StepContext, order: Order) -> Result<Receipt, HandlerError> {
//!     if order.amount == 0 {
//!         return Err(HandlerError::fail("an order of nothing is never paid"));
//!     }
//!     tracing::info!(key = context.idempotency_key(), "charging");
//!     Ok(Receipt { paid: order.amount })
//! }
//!
//! let mut registry = Registry::new();
//! registry.register("orders.charge", handler_fn(charge))?;
//! # Ok::<(), tasker_worker::handler::Duplicate>(())
//! ```
//!
//! A handler runs at least once for each step: it runs again after a failure, and after a worker died. What it
//! does elsewhere is made safe to repeat with [`StepContext::idempotency_key`]; what it writes in Tasker's own database
//! takes effect once with [`StepContext::in_report`].
//!
//! A handler must not block its thread: a future that does not yield cannot be stopped at its deadline. Work that
//! computes or waits without `await` goes into [`blocking_fn`].

mod bounds;
mod builtin;
pub mod command;
mod context;
mod document;
mod error;
mod filters;
mod function;
pub mod http;
pub mod registry;
mod run;
mod writes;

pub use builtin::{Echo, Noop, Sleep};
pub use context::{Progress, StepContext, StepRun, Usage};
pub use error::HandlerError;
pub use function::{HandlerFn, blocking_fn, handler_fn};
pub use registry::{Duplicate, Registry};
pub use run::{Limits, ResultCheck, run};
pub(crate) use writes::Writes;

use serde_json::Value;
use tasker_shared::breaker::Breakers;

/// What runs a handler, as metrics count it.
pub use tasker_shared::metrics::HandlerType;

/// Runs the steps that name it.
///
/// Plain functions become handlers by [`handler_fn`]; the trait is for handlers that keep something, such as a client.
#[async_trait::async_trait]
pub trait StepHandler: Send + Sync + 'static {
    /// Runs one attempt at a step and gives its result.
    ///
    /// The future is dropped some time after [`StepContext::cancelled`] completes, at its next `await`.
    ///
    /// # Errors
    /// [`HandlerError`] says whether another attempt may help.
    async fn call(&self, context: StepContext) -> Result<Value, HandlerError>;

    /// Shows the handler's own circuit breakers with those of the worker; called once, before the worker starts.
    fn show_breakers(&self, _breakers: &Breakers) {}

    /// What kind of handler this is, as metrics count it.
    fn kind(&self) -> HandlerType {
        HandlerType::Rust
    }
}
