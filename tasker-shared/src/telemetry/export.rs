//! Sends what was recorded, without ever being in the way of those who record it.

use super::{
    outbox::Outbox,
    recorder::Recorder,
    store::Batch,
    trace::nanos,
    transport::{Failure, Message, Transport},
};
use crate::metrics::{Metrics, labels::ExportSignal};
use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// What could not be sent for so long is given up. Metrics lose nothing: the next batch has all their sums.
const OLDEST_BATCH: Duration = Duration::from_secs(300);
/// Items of one request.
const ITEMS_PER_REQUEST: usize = 1_000;

/// One way out, and whether it is open. An outage is told once, and its end.
#[derive(Debug)]
pub(super) struct Exporter {
    transport: Transport,
    metrics: Metrics,
    failing: bool,
}

impl Exporter {
    pub(super) fn new(transport: Transport, metrics: Metrics) -> Self {
        Self { transport, metrics, failing: false }
    }

    async fn send(&mut self, message: Message) -> Result<(), Failure> {
        let (signal, endpoint) = (self.transport.signal(), self.transport.endpoint());
        match self.transport.send(message).await {
            Ok(None) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!(%signal, endpoint, "the telemetry export works again");
                }
                Ok(())
            }
            Ok(Some(rejected)) => {
                self.failed(&rejected);
                Ok(())
            }
            Err(failure) => {
                self.failed(&failure.to_string());
                Err(failure)
            }
        }
    }

    fn failed(&mut self, reason: &str) {
        let (signal, endpoint) = (self.transport.signal(), self.transport.endpoint());
        self.metrics.telemetry_export_failures.add(1, ExportSignal { signal });
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(%signal, endpoint, reason, "telemetry is not exported; this is said once per outage");
        }
    }
}

/// Exports metrics every `period`, and once more at the end.
pub(super) async fn metrics(
    recorder: Arc<Recorder>,
    mut exporter: Exporter,
    period: Duration,
    stop: CancellationToken,
) {
    let mut pending = None;
    let mut timer = interval(period);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    timer.tick().await;
    while stop.run_until_cancelled(timer.tick()).await.is_some() {
        // A stop in the middle of a request ends the request; the batch is sent again below.
        stop.run_until_cancelled(export_metrics(&recorder, &mut exporter, &mut pending)).await;
    }
    export_metrics(&recorder, &mut exporter, &mut pending).await;
}

/// Finishes the pending batch, which is repeated unchanged, and then sends a new one.
async fn export_metrics(recorder: &Arc<Recorder>, exporter: &mut Exporter, pending: &mut Option<Batch>) {
    if !finish(recorder, exporter, pending).await {
        return;
    }
    let making = Arc::clone(recorder);
    match tokio::task::spawn_blocking(move || making.batch()).await {
        Ok(batch) => *pending = Some(batch),
        Err(error) => tracing::error!(%error, "a batch of metrics could not be made"),
    }
    finish(recorder, exporter, pending).await;
}

/// Whether nothing is pending any more.
async fn finish(recorder: &Recorder, exporter: &mut Exporter, pending: &mut Option<Batch>) -> bool {
    let Some(batch) = pending else { return true };
    while let Some(request) = batch.requests.front() {
        match exporter.send(Message::Metrics(request.clone())).await {
            Ok(()) => drop(batch.requests.pop_front()),
            Err(Failure::Unavailable(_)) => {
                let age = nanos(SystemTime::now()).saturating_sub(batch.time());
                if u128::from(age) >= OLDEST_BATCH.as_nanos() {
                    recorder.refused(batch);
                    *pending = None;
                }
                return false;
            }
            Err(Failure::Refused(_)) => {
                recorder.refused(batch);
                *pending = None;
                return true;
            }
        }
    }
    recorder.arrived(batch);
    *pending = None;
    true
}

/// Exports what is in an outbox when enough waits or `delay` has passed, and what is left at the end.
pub(super) async fn items<T>(
    outbox: Arc<Outbox<T>>,
    mut exporter: Exporter,
    delay: Duration,
    request: impl Fn(Vec<T>) -> Message,
    stop: CancellationToken,
) {
    let mut pending = None;
    let mut timer = interval(delay);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let stopped = tokio::select! {
            () = stop.cancelled() => true,
            _ = timer.tick() => false,
            () = outbox.filled(), if !exporter.failing => false,
        };
        if stopped {
            outbox.close();
            drain(&outbox, &mut exporter, &request, &mut pending).await;
            return;
        }
        stop.run_until_cancelled(drain(&outbox, &mut exporter, &request, &mut pending)).await;
    }
}

/// A request that has yet to arrive.
struct Pending {
    message: Message,
    since: Instant,
}

async fn drain<T>(
    outbox: &Outbox<T>,
    exporter: &mut Exporter,
    request: &impl Fn(Vec<T>) -> Message,
    pending: &mut Option<Pending>,
) {
    if outbox.take_dropped() > 0 {
        exporter.failed("more is recorded than can be sent; some is dropped");
    }
    loop {
        if pending.is_none() {
            let items = outbox.take(ITEMS_PER_REQUEST);
            if items.is_empty() {
                return;
            }
            *pending = Some(Pending { message: request(items), since: Instant::now() });
        }
        if let Some(Pending { message, since }) = pending
            && let Err(Failure::Unavailable(_)) = exporter.send(message.clone()).await
            && since.elapsed() < OLDEST_BATCH
        {
            return;
        }
        *pending = None;
    }
}
