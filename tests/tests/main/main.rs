//! Tests of the whole system, each on a database of its own.

mod docs;
mod graphs;
mod handlers;
mod layers;
mod line;
mod observability;
mod operations;
mod retries;
mod submission;
