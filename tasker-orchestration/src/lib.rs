//! The orchestration service: decides which steps may run.
