//! Settings: one default file, overlays by environment, environment variables on top.
