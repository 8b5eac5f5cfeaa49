//! Wake-up, the two shapes of loops, how a process starts and stops, and what the HTTP of both services has in common.
//!
//! A [`consume`] loop is woken by a queue; a [`sweep`] is woken by time, takes no input, and repairs what the line missed.

pub mod access;
mod bell;
mod loops;
mod patience;
pub mod process;
pub mod pulse;
pub mod web;

pub use bell::{Bell, Finished, NOTIFICATIONS, Subscription, Topic, Wake};
pub use loops::{Gate, Turn, consume, judge, sweep};
pub use process::{Process, Signals};
