//! The harness of the tests that need a database: one PostgreSQL for all of them, a database for each.

pub mod booker;
pub mod chaos;
pub mod database;
#[path = "../../fuzz/src/lib.rs"]
pub mod fuzz;
pub mod gate;
pub mod interleave;
pub mod invariants;
mod median;
pub mod model;
pub mod process;
pub mod prometheus;
pub mod proof;
pub mod soak;
pub mod system;
pub mod templates;

pub use database::TestDatabase;
pub use gate::{Call, Gate};
pub use system::System;
