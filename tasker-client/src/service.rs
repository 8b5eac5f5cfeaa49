//! The system itself: its workers and its health.

use crate::{Client, Error};
use reqwest::StatusCode;
use tasker_shared::api::{Health, WorkerList};

impl Client {
    /// The workers that are known.
    ///
    /// # Errors
    /// As the connection fails.
    pub async fn workers(&self) -> Result<WorkerList, Error> {
        self.get(&["v1", "workers"]).send().await
    }

    /// The health of the service with its single checks, also when it is not well (status 503).
    ///
    /// # Errors
    /// As the connection fails.
    pub async fn health(&self) -> Result<Health, Error> {
        let answers = |status: &StatusCode| status.is_success() || *status == StatusCode::SERVICE_UNAVAILABLE;
        self.get(&["health", "detailed"]).send_accepting(answers).await
    }

    /// What the service has measured, as Prometheus text. A worker answers too.
    ///
    /// # Errors
    /// As the connection fails, or this machine is not allowed to read it.
    pub async fn metrics(&self) -> Result<String, Error> {
        self.get(&["metrics"]).send_for_text().await
    }
}
