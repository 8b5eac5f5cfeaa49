//! The views: Grafana dashboards as code.
//!
//! What is shown is described in one file per dashboard; queries, units and the meaning of each metric come from the
//! catalogue, so that a dashboard cannot name a metric or a label that does not exist. The JSON in
//! `observability/dashboards/` is made from here, and a test compares the two.

mod dashboard;
mod database;
mod health;
mod overview;
mod panel;
mod promql;
mod resilience;
mod task;
mod workers;

pub use dashboard::Dashboard;

/// Every dashboard.
pub fn dashboards() -> Vec<Dashboard> {
    vec![
        overview::dashboard(),
        workers::dashboard(),
        health::dashboard(),
        resilience::dashboard(),
        database::dashboard(),
        task::dashboard(),
    ]
}
