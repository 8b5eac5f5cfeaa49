//! A running system whose telemetry goes to a collector inside the test.

use super::{
    receiver::Receiver,
    samples::{Sample, samples},
};
use anyhow::Result;
use std::time::Duration;
use tasker_shared::telemetry::{
    Telemetry,
    settings::{Protocol, Settings},
};
use tasker_tests::{System, system::orchestration_settings};

/// How long the last export may take.
pub(super) const FLUSH: Duration = Duration::from_secs(20);

/// The system, what it records with, and who receives it.
pub(super) struct Rig {
    pub(super) system: System,
    pub(super) telemetry: Telemetry,
    pub(super) receiver: Receiver,
}

/// What a rig left behind.
pub(super) struct Told {
    /// The page of `/metrics` at the end.
    pub(super) page: String,
    pub(super) samples: Vec<Sample>,
    pub(super) receiver: Receiver,
}

/// Settings that export everything to `endpoint`, often.
pub(super) fn settings(endpoint: String, protocol: Protocol) -> Settings {
    let mut settings = Settings::default();
    settings.opentelemetry.enabled = true;
    settings.opentelemetry.endpoint = Some(endpoint);
    settings.opentelemetry.protocol = protocol;
    settings.opentelemetry.export_interval_ms = 100;
    settings.opentelemetry.batch_delay_ms = 20;
    settings
}

impl Rig {
    /// Starts an orchestration without workers.
    pub(super) async fn start(protocol: Protocol, change: impl FnOnce(&mut Settings)) -> Result<Self> {
        let receiver = Receiver::default();
        let mut settings = settings(receiver.listen(protocol).await?, protocol);
        change(&mut settings);
        let telemetry = Telemetry::start(&settings, "tasker-tests", "0", &|_| None)?;
        let (metrics, tracing) = (telemetry.metrics().clone(), telemetry.tracing().clone());
        let system = System::start_traced(orchestration_settings(), metrics, tracing).await?;
        Ok(Self { system, telemetry, receiver })
    }

    /// Drains the system, and then the telemetry.
    pub(super) async fn finish(self) -> Result<Told> {
        self.system.finish().await?;
        let page = self.telemetry.prometheus_text();
        self.telemetry.shutdown(FLUSH).await;
        Ok(Told { page, samples: samples(&self.receiver.metrics()), receiver: self.receiver })
    }
}
