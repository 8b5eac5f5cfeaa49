//! The catalogue of everything that is measured.
//!
//! [`catalog`] is the only place where a metric is named; instruments, Prometheus names, the reference page and the
//! tests derive from it. A label that is missing or misspelt does not compile: each instrument takes the label set of
//! its type.

pub mod cardinality;
pub mod catalog;
pub mod channel;
mod conformity;
pub mod instrument;
pub mod journal;
pub mod labels;
pub mod probe;
mod reference;
pub mod spec;
pub mod values;

pub use catalog::{CATALOG, Metrics};
pub use conformity::Conformity;
pub use instrument::{Counter, FloatGauge, Gauge, Held, Histogram, UpDownCounter};
pub use journal::Journal;
pub use labels::LabelSet;
pub use reference::reference_page;
pub use spec::{Kind, Spec};
pub use values::{
    ClaimMethod, ErrorType, HandlerType, HealthStatus, Label, LoopOutcome, Priority, Pruned, Signal, Success,
    TransactionOutcome,
};
