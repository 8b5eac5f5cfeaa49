//! Tests of the whole system, each on a database of its own.

mod cli;
mod cli_local;
mod graphs;
mod handlers;
mod http;
mod line;
mod operations;
mod process;
mod process_refusals;
mod retries;
mod stage;
mod submission;
