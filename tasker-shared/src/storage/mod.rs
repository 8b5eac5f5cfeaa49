//! All statements on the tables of schema `tasker`: one file per aggregate, one statement per function.
//!
//! Statements that change a state name the states they expect and return the rows they changed: a lost race is a
//! row that is missing from the answer. Statements that also touch a queue, so that state and doorbell commit
//! together, stand here and take the queue's table from [`crate::queue`].

mod address;
mod compiled;
mod database;
mod error;
mod gate;
mod leader;
mod stored;
mod types;

pub mod api_keys;
pub mod audit;
pub mod concurrency;
pub mod dead_letters;
pub mod history;
pub mod leases;
pub mod operations;
pub mod overview;
pub mod repair;
pub mod reports;
pub mod retention;
pub mod roles;
pub mod schema;
pub mod stalls;
pub mod steps;
pub mod tasks;
pub mod templates;
pub mod timers;
pub mod vitals;
pub mod workers;

pub use compiled::CompiledTemplates;
pub use database::{Database, Moved, Options, Passage, Session, Transaction};
pub use error::Error;
pub use gate::{Gate, Passed};
pub use leader::{Duty, Leader};
pub use stored::Stored;
