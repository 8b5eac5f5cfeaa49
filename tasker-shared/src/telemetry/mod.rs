//! Traces, logs and the export of metrics.
