//! All statements on the tables of schema `tasker`.
