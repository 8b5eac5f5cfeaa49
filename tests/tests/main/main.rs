//! Tests of the whole system, each on a database of its own.

mod docs;
mod layers;
