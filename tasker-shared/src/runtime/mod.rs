//! Loops, wake-up and shutdown.
