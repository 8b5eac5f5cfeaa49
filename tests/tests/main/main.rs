//! The tests of the whole system: one program, so that it is linked once.

mod cli;
mod cli_local;
mod crowd;
mod docs;
mod exactly_once;
mod graphs;
mod handlers;
mod http;
mod layers;
mod leases;
mod line;
mod model;
mod observability;
mod observability_prometheus;
mod operations;
mod process;
mod process_refusals;
mod queues;
mod races;
mod retries;
mod schema;
mod stage;
mod submission;
mod telemetry;
mod wakeups;
mod wfformat;
