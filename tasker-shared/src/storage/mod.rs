//! All statements on the tables of schema `tasker`: one file per aggregate, one statement per function.

mod error;

pub use error::Error;
