//! Telemetry as a whole, against collectors inside the test.
