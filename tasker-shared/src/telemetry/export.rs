//! Sends what was recorded, without ever being in the way of those who record it.

use super::{
    otlp::Sink,
    outage::Watch,
    outbox::Outbox,
    recorder::Recorder,
    store::Batch,
    trace::nanos,
    transport::{Failure, Transport},
};
use prost::Message as _;
use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// What could not be sent for so long is given up. Metrics lose nothing: the next batch has all their sums.
const OLDEST_BATCH: Duration = Duration::from_secs(300);

/// The way out for metrics.
#[derive(Debug)]
pub(super) struct Exporter {
    pub(super) transport: Transport,
    pub(super) watch: Watch,
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
        exporter.watch.look(false);
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
        let sent = exporter.transport.send(request.encode_to_vec()).await;
        watched(&mut exporter.watch, &sent);
        match sent {
            Ok(_) => drop(batch.requests.pop_front()),
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

fn watched(watch: &mut Watch, sent: &Result<Option<String>, Failure>) {
    match sent {
        Ok(None) => watch.worked(),
        Ok(Some(rejected)) => watch.failed(rejected),
        Err(failure) => watch.failed(&failure.to_string()),
    }
}

/// Exports what is in an outbox when enough waits or `delay` has passed, and what is left at the end. One request takes
/// items of up to `most` in weight.
pub(super) async fn items<T>(
    outbox: Arc<Outbox<T>>,
    sink: impl Sink<T>,
    mut watch: Watch,
    most: usize,
    delay: Duration,
    stop: CancellationToken,
) {
    let mut pending = None;
    let mut timer = interval(delay);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let stopped = tokio::select! {
            () = stop.cancelled() => true,
            _ = timer.tick() => false,
            () = outbox.filled(), if pending.is_none() => false,
        };
        if stopped {
            outbox.close();
            drain(&outbox, &sink, &mut watch, most, &mut pending).await;
            return;
        }
        // A stop in the middle of a request ends the request; its items are sent again above.
        stop.run_until_cancelled(drain(&outbox, &sink, &mut watch, most, &mut pending)).await;
    }
}

/// Items that have yet to arrive.
struct Pending<T> {
    items: Vec<T>,
    since: Instant,
}

async fn drain<T>(
    outbox: &Outbox<T>,
    sink: &impl Sink<T>,
    watch: &mut Watch,
    most: usize,
    pending: &mut Option<Pending<T>>,
) {
    loop {
        if outbox.take_dropped() > 0 {
            watch.failed("more is recorded than can be sent; some is dropped");
        }
        if pending.is_none() {
            let items = outbox.take(most);
            if items.is_empty() {
                watch.look(true);
                return;
            }
            *pending = Some(Pending { items, since: Instant::now() });
        }
        if let Some(Pending { items, since }) = pending {
            let sent = sink.send(items).await;
            watched(watch, &sent);
            watch.look(false);
            if matches!(sent, Err(Failure::Unavailable(_))) && since.elapsed() < OLDEST_BATCH {
                return;
            }
        }
        *pending = None;
    }
}
