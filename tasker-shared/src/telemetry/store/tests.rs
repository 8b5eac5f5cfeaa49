//! What the store promises.
