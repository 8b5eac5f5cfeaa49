//! Tests of the whole system, each on a database of its own.

mod line;
mod process;
mod process_refusals;
mod stage;
