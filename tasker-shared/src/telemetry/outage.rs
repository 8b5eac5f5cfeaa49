//! Whether collectors take what they are sent. An outage is told once, and its end.
//!
//! It begins with the first signal that fails, and is over when something arrives and no signal fails any more. Signals that go
//! to the same collector share its outages.

use super::environment::Target;
use crate::{
    metrics::{Metrics, Signal, labels::ExportSignal},
    url::without_secrets,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The outages of this process, by collector; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Outages(Arc<Mutex<BTreeMap<String, Outage>>>);

#[derive(Debug)]
struct Outage {
    since: Instant,
    failing: BTreeSet<Signal>,
    failed: BTreeSet<Signal>,
    works: BTreeSet<Signal>,
}

/// What was lost, and for how long.
#[derive(Debug, PartialEq, Eq)]
struct Over {
    signals: String,
    after: Duration,
}

impl Outages {
    /// Whether an outage begins with this failure.
    fn failed(&self, collector: &str, signal: Signal) -> bool {
        let mut outages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let begins = !outages.contains_key(collector);
        let outage = outages.entry(collector.to_owned()).or_insert_with(|| Outage {
            since: Instant::now(),
            failing: BTreeSet::new(),
            failed: BTreeSet::new(),
            works: BTreeSet::new(),
        });
        outage.failing.insert(signal);
        outage.failed.insert(signal);
        outage.works.remove(&signal);
        begins
    }

    /// A signal fails no longer: it `arrives`, or has nothing to send. Answers where an outage is over with this.
    fn fails_no_longer(&self, collector: &str, signal: Signal, arrives: bool) -> Option<Over> {
        let mut outages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let outage = outages.get_mut(collector)?;
        outage.failing.remove(&signal);
        if arrives {
            outage.works.insert(signal);
        }
        if !outage.failing.is_empty() || outage.works.is_empty() {
            return None;
        }
        let Outage { since, failed, .. } = outages.remove(collector)?;
        let signals: Vec<&str> = failed.into_iter().map(Signal::as_str).collect();
        Some(Over { signals: signals.join(", "), after: since.elapsed() })
    }
}

/// Whether the way out for one signal is open. After a failure it is when something has arrived and nothing has failed for a
/// while, so that a collector that takes only a part is one outage.
#[derive(Debug)]
pub(super) struct Watch {
    signal: Signal,
    collector: String,
    metrics: Metrics,
    outages: Outages,
    quiet: Duration,
    failed_at: Option<Instant>,
    arrived_since: bool,
}

impl Watch {
    /// An outage is over when nothing has failed for the time `quiet`. Failures begin at zero, so that the first one is an
    /// increase for those who scrape.
    pub(super) fn new(target: &Target, metrics: Metrics, outages: Outages, quiet: Duration) -> Self {
        let (signal, collector) = (target.signal, collector(target));
        metrics.telemetry_export_failures.add(0, ExportSignal { signal });
        Self { signal, collector, metrics, outages, quiet, failed_at: None, arrived_since: false }
    }

    /// Something arrived.
    pub(super) fn worked(&mut self) {
        self.arrived_since = true;
    }

    /// Something did not.
    pub(super) fn failed(&mut self, reason: &str) {
        let (endpoint, signal) = (&self.collector, self.signal);
        (self.failed_at, self.arrived_since) = (Some(Instant::now()), false);
        self.metrics.telemetry_export_failures.add(1, ExportSignal { signal });
        if self.outages.failed(endpoint, signal) {
            tracing::warn!(%signal, endpoint, reason, "telemetry is not exported; this is said once per outage");
        }
    }

    /// Looks whether the way is open again, or nothing waits for it any more.
    pub(super) fn look(&mut self, nothing_waits: bool) {
        let arrives = self.arrived_since;
        if !(arrives || nothing_waits) || self.failed_at.is_none_or(|at| at.elapsed() < self.quiet) {
            return;
        }
        if arrives {
            self.failed_at = None;
        }
        let endpoint = &self.collector;
        if let Some(Over { signals, after }) = self.outages.fails_no_longer(endpoint, self.signal, arrives) {
            tracing::info!(endpoint, signals, after_s = after.as_secs_f64(), "the telemetry export works again");
        }
    }
}

/// The endpoint without what is the signal's own.
fn collector(target: &Target) -> String {
    let path = format!("/v1/{}", target.signal);
    without_secrets(target.endpoint.strip_suffix(&path).unwrap_or(&target.endpoint))
}

#[cfg(test)]
mod tests {
    use super::Outages;
    use crate::{
        metrics::Signal::{Logs, Metrics, Traces},
        telemetry::{Settings, Telemetry, settings::Protocol, tests::Lines},
    };
    use axum::http::StatusCode;
    use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
    use std::{
        sync::{
            Arc,
            atomic::{AtomicBool, AtomicUsize, Ordering},
        },
        time::Duration,
    };
    use tokio::{net::TcpListener, sync::Semaphore};
    use tracing_subscriber::{layer::SubscriberExt, util::SubscriberInitExt};

    const HERE: &str = "http://here:4317";

    #[test]
    fn an_outage_begins_with_the_first_signal_that_fails_and_ends_with_the_last() {
        let outages = Outages::default();
        let works = |signal| outages.fails_no_longer(HERE, signal, true);
        assert!(works(Metrics).is_none(), "nothing was wrong");
        assert!(outages.failed(HERE, Traces));
        assert!(!outages.failed(HERE, Metrics) && !outages.failed(HERE, Traces));
        assert!(works(Logs).is_none() && works(Traces).is_none());
        assert_eq!(works(Metrics).map(|over| over.signals).as_deref(), Some("metrics, traces"));
        assert!(outages.failed(HERE, Logs), "the next outage is another one");
    }

    #[test]
    fn a_signal_that_has_nothing_to_send_neither_keeps_an_outage_nor_ends_it() {
        let outages = Outages::default();
        let works = |signal| outages.fails_no_longer(HERE, signal, true).is_some();
        let silent = |signal| outages.fails_no_longer(HERE, signal, false).is_some();
        assert!(outages.failed(HERE, Logs) && !outages.failed(HERE, Metrics));
        assert!(!silent(Logs) && works(Metrics));
        assert!(outages.failed(HERE, Logs) && !outages.failed(HERE, Metrics));
        assert!(!works(Metrics) && silent(Logs));
        assert!(outages.failed(HERE, Logs));
        assert!(!silent(Logs) && !outages.failed(HERE, Logs), "it is the same outage");
        assert!(works(Logs));
    }

    #[test]
    fn each_collector_has_outages_of_its_own() {
        let outages = Outages::default();
        assert!(outages.failed(HERE, Metrics) && outages.failed("http://there:4317", Traces));
        assert!(outages.fails_no_longer(HERE, Metrics, true).is_some());
    }

    #[tokio::test]
    async fn an_outage_lasts_while_a_part_of_what_is_sent_does_not_arrive() {
        // refuses every other request, until it takes all
        let (asked, answered) = (AtomicUsize::new(0), Arc::new(Semaphore::new(0)));
        let (asked, takes_all) = (Arc::new(asked), Arc::new(AtomicBool::new(false)));
        let (done, all) = (Arc::clone(&answered), Arc::clone(&takes_all));
        let collector = axum::Router::new().route(
            "/v1/logs",
            axum::routing::post(move || async move {
                done.add_permits(1);
                let other = asked.fetch_add(1, Ordering::Relaxed) % 2 == 0;
                if other && !all.load(Ordering::Relaxed) { StatusCode::BAD_REQUEST } else { StatusCode::OK }
            }),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut settings = Settings::default();
        settings.logs.otlp = true;
        settings.opentelemetry.enabled = true;
        settings.opentelemetry.protocol = Protocol::HttpProtobuf;
        settings.opentelemetry.endpoint = Some(format!("http://{}", listener.local_addr().unwrap()));
        settings.opentelemetry.batch_delay_ms = 200;
        tokio::spawn(axum::serve(listener, collector).into_future());
        let others_off = ["OTEL_METRICS_EXPORTER", "OTEL_TRACES_EXPORTER"];
        let none = |name: &str| others_off.contains(&name).then(|| "none".to_owned());
        let telemetry = Telemetry::start(&settings, "test", "0", &none).unwrap();
        let bridge = OpenTelemetryTracingBridge::new(telemetry.logger.as_ref().unwrap());
        let records = tracing::Dispatch::new(tracing_subscriber::registry().with(bridge));
        let say = |count| tracing::dispatcher::with_default(&records, || (0..count).for_each(|n| tracing::info!(n)));
        let lines = Lines::default();
        let writer = lines.clone();
        // one thread exports and writes these lines
        let _told = tracing_subscriber::fmt().with_writer(move || writer.clone()).set_default();
        for _ in 0..4 {
            say(1_500);
            answered.acquire_many(2).await.unwrap().forget();
        }
        takes_all.store(true, Ordering::Relaxed);
        while lines.with("the telemetry export works again").is_empty() {
            say(1);
            answered.acquire().await.unwrap().forget();
        }
        telemetry.shutdown(Duration::from_secs(10)).await;
        assert_eq!(lines.with("telemetry is not exported").len(), 1);
    }
}
