//! A step: its states, how a handler's run ended, and what follows from that.

pub mod dead_letter;
pub mod outcome;
pub mod retry;
pub mod state;
pub mod verdict;

pub use dead_letter::{DeadLetterReason, Resolution, StallKind};
pub use outcome::{Failure, FailureKind, Outcome, ResultType};
pub use retry::{Backoff, RetryPolicy};
pub use state::{Edge, StepEvent, StepState};
pub use verdict::{Verdict, missing, verdict};
