//! What the HTTP API sends and takes.
