//! The harness of the tests that need a database: one PostgreSQL for all of them, a database for each.

pub mod database;
pub mod process;
pub mod system;

pub use database::TestDatabase;
pub use system::System;
