//! The tests of the whole system: one program, so that it is linked once.

mod docs;
mod graphs;
mod handlers;
mod layers;
mod leases;
mod line;
mod operations;
mod queues;
mod races;
mod retries;
mod schema;
mod submission;
mod wakeups;
mod wfformat;
