//! Loops, wake-up and shutdown.

pub mod web;
