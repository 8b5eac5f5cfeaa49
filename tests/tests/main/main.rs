//! The tests of the whole system: one program, so that it is linked once.

mod cli;
mod cli_local;
mod docs;
mod graphs;
mod handlers;
mod http;
mod layers;
mod line;
mod observability;
mod observability_prometheus;
mod operations;
mod process;
mod process_refusals;
mod retries;
mod stage;
mod submission;
mod telemetry;
