//! Tests of the whole system, each on a database of its own.

mod graphs;
mod handlers;
mod line;
mod operations;
mod retries;
mod submission;
