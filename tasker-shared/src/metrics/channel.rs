//! Bounded channels that tell how full they are.
//!
//! Every channel inside a service is made here; `clippy.toml` refuses the others. A sender that finds the channel full
//! counts that and then waits: that is back-pressure, and it can be seen.

use super::{Metrics, labels::Channel};
use tokio::sync::mpsc;

/// The channel is closed; what could not be sent is handed back.
pub use tokio::sync::mpsc::error::SendError;
/// The channel is full or closed; what could not be sent is handed back.
pub use tokio::sync::mpsc::error::TrySendError;

/// Makes a channel for `capacity` values. `name` and `component` together are unique in the process.
pub fn bounded<T>(
    name: &'static str,
    component: &'static str,
    capacity: usize,
    metrics: &Metrics,
) -> (Sender<T>, Receiver<T>) {
    #[expect(clippy::disallowed_methods, reason = "the one place where channels are made")]
    let (inner_sender, inner_receiver) = mpsc::channel(capacity);
    let labels = Channel { channel: name, component };
    metrics.mpsc_channel_capacity.set(i64::try_from(capacity).unwrap_or(i64::MAX), labels.clone());
    metrics.mpsc_channel_usage_percent.set(0.0, labels.clone());
    metrics.mpsc_channel_full_events.add(0, labels.clone());
    let monitor = Monitor { labels, metrics: metrics.clone() };
    (Sender { inner: inner_sender, monitor: monitor.clone() }, Receiver { inner: inner_receiver, monitor })
}

#[derive(Debug, Clone)]
struct Monitor {
    labels: Channel,
    metrics: Metrics,
}

impl Monitor {
    /// `used` is read while the gauge is locked, so that the last writer has seen every earlier change.
    fn usage(&self, used: impl FnOnce() -> usize, capacity: usize) {
        let percent = |value: &mut f64| *value = 100.0 * used() as f64 / capacity as f64;
        self.metrics.mpsc_channel_usage_percent.with(self.labels.clone(), percent);
    }

    fn full(&self) {
        self.metrics.mpsc_channel_full_events.add(1, self.labels.clone());
    }
}

/// The end that values go into.
#[derive(Debug)]
pub struct Sender<T> {
    inner: mpsc::Sender<T>,
    monitor: Monitor,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), monitor: self.monitor.clone() }
    }
}

impl<T> Sender<T> {
    /// Sends `value`, waiting for room.
    ///
    /// # Errors
    /// The receiver is gone.
    pub async fn send(&self, value: T) -> Result<(), SendError<T>> {
        match self.try_send(value) {
            Ok(()) => Ok(()),
            Err(TrySendError::Closed(value)) => Err(SendError(value)),
            Err(TrySendError::Full(value)) => {
                self.inner.send(value).await?;
                self.measure();
                Ok(())
            }
        }
    }

    /// Sends `value` if there is room.
    ///
    /// # Errors
    /// There is no room, or the receiver is gone.
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        let sent = self.inner.try_send(value);
        match &sent {
            Ok(()) => self.measure(),
            Err(TrySendError::Full(_)) => self.monitor.full(),
            Err(TrySendError::Closed(_)) => {}
        }
        sent
    }

    /// Waits until there is room for one, or the receiver is gone.
    pub async fn has_room(&self) {
        let _room = self.inner.reserve().await;
    }

    /// How full the channel is, in percent.
    pub fn usage(&self) -> f64 {
        let capacity = self.inner.max_capacity();
        100.0 * (capacity - self.inner.capacity()) as f64 / capacity as f64
    }

    /// Completes when the receiver is gone.
    pub async fn closed(&self) {
        self.inner.closed().await;
    }

    fn measure(&self) {
        let capacity = self.inner.max_capacity();
        self.monitor.usage(|| capacity - self.inner.capacity(), capacity);
    }
}

/// The end that values come out of.
#[derive(Debug)]
pub struct Receiver<T> {
    inner: mpsc::Receiver<T>,
    monitor: Monitor,
}

impl<T> Receiver<T> {
    /// The next value; `None` when every sender is gone and nothing is left.
    pub async fn recv(&mut self) -> Option<T> {
        let value = self.inner.recv().await;
        self.measure();
        value
    }

    /// Waits for at least one value and takes up to `limit` of those that are there. Returns how many; zero means that
    /// every sender is gone.
    pub async fn recv_many(&mut self, values: &mut Vec<T>, limit: usize) -> usize {
        let taken = self.inner.recv_many(values, limit).await;
        self.measure();
        taken
    }

    /// The next value if one is there.
    ///
    /// # Errors
    /// The channel is empty, or every sender is gone.
    pub fn try_recv(&mut self) -> Result<T, mpsc::error::TryRecvError> {
        let value = self.inner.try_recv();
        self.measure();
        value
    }

    /// Refuses further values; what was sent can still be received.
    pub fn close(&mut self) {
        self.inner.close();
    }

    fn measure(&self) {
        self.monitor.usage(|| self.inner.len(), self.inner.max_capacity());
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.monitor.metrics.mpsc_channel_usage_percent.remove(self.monitor.labels.clone());
        self.monitor.metrics.mpsc_channel_capacity.remove(self.monitor.labels.clone());
    }
}
