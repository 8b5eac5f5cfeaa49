//! The harness of the tests that need a database: one PostgreSQL for all of them, a database for each.

pub mod database;
pub mod gate;
pub mod process;
pub mod soak;
pub mod system;
pub mod templates;

pub use database::TestDatabase;
pub use gate::{Call, Gate};
pub use system::System;
