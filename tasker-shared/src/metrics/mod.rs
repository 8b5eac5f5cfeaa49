//! The catalogue of everything that is measured.
