//! What both Tasker services and the command line share.
//!
//! The crate is layered; a module uses only layers below it.
//!
//! | layer | modules |
//! |---|---|
//! | 0 | [`id`], [`name`], [`text_enum`](mod@text_enum), [`url`] |
//! | 1 | [`access`], [`template`], [`task`], [`step`]: pure, tested without a database |
//! | 2 | [`metrics`], [`config`], [`api`], [`breaker`] |
//! | 3 | [`storage`] (all table SQL), [`queue`] (all PGMQ calls) |
//! | 4 | [`runtime`], [`telemetry`] |

pub mod access;
pub mod api;
pub mod breaker;
pub mod config;
pub mod id;
pub mod metrics;
pub mod name;
pub mod queue;
pub mod runtime;
pub mod step;
pub mod storage;
pub mod task;
pub mod telemetry;
pub mod template;
pub mod text_enum;
pub mod url;
