//! A task: its states, what a person asks for when submitting one, and how it ends.

pub mod state;
pub mod submission;

pub use state::{TaskEvent, TaskState, ending};
pub use submission::{IdentityStrategy, Submission};
