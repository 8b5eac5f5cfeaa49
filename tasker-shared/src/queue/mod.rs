//! All statements on queue tables.
