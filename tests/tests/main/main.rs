//! The tests of the whole system: one program, so that it is linked once.

mod docs;
mod graphs;
mod handlers;
mod layers;
mod line;
mod operations;
mod retries;
mod submission;
mod telemetry;
