//! The chaos suite: real processes, a real PostgreSQL, faults from a seed, and a judge that reads what is left.
//!
//! A [`plan`] is thrown from a seed. [`machines`] are started, [`load`] submits and operates, [`faults`] happen; then
//! everything is healed, the tasks must end, and the [`checker`] compares the database and its histories with what was
//! acknowledged ([`ledger`]), with the model of each [`graph`], and with what handlers did ([`effects`]).

pub mod archive;
pub mod checker;
pub mod clock;
mod command;
pub mod dice;
pub mod disk;
pub mod effects;
pub mod faults;
pub mod graph;
pub mod ledger;
pub mod load;
pub mod machines;
pub mod outside;
pub mod plan;
mod preload;
pub mod proxy;
pub mod report;
mod run;
pub mod scenario;
pub mod worker;

pub use command::{Settings, command};
pub use run::{Options, run};
