//! A private PostgreSQL: found, downloaded, started and stopped.
//!
//! `tasker dev`, `tasker demo` and the tests need a PostgreSQL that nobody set up. [`Search`] finds the programs on the
//! machine, [`Download`] fetches them where there are none, and [`Cluster`] runs one server in one directory for as
//! long as its owner lives. [`testkit`] shares one cluster between all test processes of a run.
//!
//! Everything here is blocking code; asynchronous callers wrap it in `spawn_blocking`.

mod account;
mod archive;
mod cluster;
mod discover;
mod download;
mod endpoint;
mod error;
mod initdb;
mod options;
mod paths;
mod pidfile;
mod pip;
mod process;
pub mod testkit;

pub use cluster::Cluster;
pub use discover::{Installation, Search};
pub use download::Download;
pub use endpoint::Endpoint;
pub use error::Error;
pub use options::{Lifetime, Options};
pub use paths::{default_cache_dir, default_data_dir};

/// The oldest major version of PostgreSQL that Tasker runs on.
pub const OLDEST_MAJOR: u32 = 14;
