//! Wake-up hints: in this process at once, to others by `NOTIFY`, coalesced and outside every transaction.
//!
//! A hint carries no work. Whoever is woken reads the queue, and whoever is not woken finds the work when it polls.

use crate::{
    id::{CorrelationId, TaskId},
    metrics::{ClaimMethod, Metrics, labels::Notification},
    name::Name,
};
use sqlx::{
    Executor as _, PgPool,
    postgres::{PgListener, PgPoolOptions},
};
use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    sync::{Notify, broadcast, watch},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// The channel of `LISTEN` and `NOTIFY`.
const CHANNEL: &str = "tasker";

/// What notifications are about: a topic without its namespace, tasks that ended, or traces that are kept.
pub const NOTIFICATIONS: [&str; 8] =
    ["requests", "results", "timers", "namespaces", "stopped", "steps", "finished", "kept"];

/// The shortest time between two notifications of one process: many small notifying transactions make commits wait for each other.
const BREATH: Duration = Duration::from_millis(2);

/// How many ended tasks one notification names; when there are more, waiters look for themselves.
const NAMED_TASKS: usize = 100;

/// How many kept traces one notification names.
const NAMED_TRACES: usize = 100;

/// How many announcements of ended tasks a slow waiter may be behind.
const BACKLOG: usize = 1024;

/// After so long without a word the listening connection is asked whether it still lives.
const QUIET: Duration = Duration::from_secs(10);

/// The longest pause between two tries to listen again.
const LONGEST_DELAY: Duration = Duration::from_secs(1);

/// How long a connection may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What woke a loop.
pub type Wake = ClaimMethod;

/// What there may be work for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    /// Queue `task_requests`.
    Requests,
    /// Queue `step_results`.
    Results,
    /// A timer was set that may be the next one.
    Timers,
    /// A namespace was opened.
    Namespaces,
    /// Running steps were stopped.
    Stopped,
    /// The queue of a namespace.
    Steps(Name),
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requests => f.write_str("requests"),
            Self::Results => f.write_str("results"),
            Self::Timers => f.write_str("timers"),
            Self::Namespaces => f.write_str("namespaces"),
            Self::Stopped => f.write_str("stopped"),
            Self::Steps(namespace) => write!(f, "steps:{namespace}"),
        }
    }
}

impl FromStr for Topic {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        Ok(match text {
            "requests" => Self::Requests,
            "results" => Self::Results,
            "timers" => Self::Timers,
            "namespaces" => Self::Namespaces,
            "stopped" => Self::Stopped,
            _ => Self::Steps(text.strip_prefix("steps:").and_then(|n| Name::new(n).ok()).ok_or(())?),
        })
    }
}

/// Tasks that ended.
#[derive(Debug, Clone)]
pub enum Finished {
    /// These.
    Tasks(Arc<[TaskId]>),
    /// Unknown ones: whoever waits looks for itself.
    Some,
}

/// Rings for topics and announces ended tasks; cheap to clone.
#[derive(Debug, Clone)]
pub struct Bell(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Sent along, so that a process does not wake itself twice.
    sender: String,
    topics: Mutex<HashMap<Topic, watch::Sender<u64>>>,
    finished: broadcast::Sender<Finished>,
    kept: broadcast::Sender<Arc<[CorrelationId]>>,
    outgoing: Mutex<Outgoing>,
    outgoing_filled: Notify,
    /// The number of the last notifications, and when they were sent.
    sent: Mutex<(u64, Instant)>,
}

#[derive(Debug, Default)]
struct Outgoing {
    topics: BTreeSet<Topic>,
    finished: Vec<TaskId>,
    kept: Vec<CorrelationId>,
}

impl Bell {
    /// A bell that is heard in this process alone.
    pub fn local() -> Self {
        Self(Arc::new(Inner {
            sender: TaskId::generate().0.simple().to_string(),
            topics: Mutex::default(),
            finished: broadcast::channel(BACKLOG).0,
            kept: broadcast::channel(BACKLOG).0,
            outgoing: Mutex::default(),
            outgoing_filled: Notify::new(),
            sent: Mutex::new((0, Instant::now())),
        }))
    }

    /// A bell that is heard in every process of this database, until `shutdown`.
    pub fn start(pool: &PgPool, metrics: Metrics, shutdown: CancellationToken) -> Self {
        let bell = Self::local();
        tokio::spawn(notify(bell.clone(), pool.clone(), metrics.clone(), shutdown.clone()));
        tokio::spawn(listen(bell.clone(), pool.clone(), metrics, shutdown));
        bell
    }

    /// Wakes whoever waits for `topic`.
    pub fn ring(&self, topic: Topic) {
        self.ring_here(&topic);
        locked(&self.0.outgoing).topics.insert(topic);
        self.0.outgoing_filled.notify_one();
    }

    /// Tells whoever waits for them that tasks ended.
    pub fn announce(&self, tasks: Vec<TaskId>) {
        if tasks.is_empty() {
            return;
        }
        locked(&self.0.outgoing).finished.extend(&tasks);
        self.0.outgoing_filled.notify_one();
        // nobody may be waiting
        let _ = self.0.finished.send(Finished::Tasks(tasks.into()));
    }

    /// Tells other processes that this one has decided to keep traces.
    pub fn keep(&self, traces: &[CorrelationId]) {
        locked(&self.0.outgoing).kept.extend(traces);
        self.0.outgoing_filled.notify_one();
    }

    /// Listens for traces that other processes have decided to keep.
    pub fn kept(&self) -> broadcast::Receiver<Arc<[CorrelationId]>> {
        self.0.kept.subscribe()
    }

    /// Listens for a topic. Subscribe before looking for work: what is rung in between is not lost.
    pub fn subscribe(&self, topic: Topic) -> Subscription {
        Subscription(locked(&self.0.topics).entry(topic).or_insert_with(|| watch::channel(0).0).subscribe())
    }

    /// Listens for ended tasks.
    pub fn finished(&self) -> broadcast::Receiver<Finished> {
        self.0.finished.subscribe()
    }

    fn ring_here(&self, topic: &Topic) {
        if let Some(sender) = locked(&self.0.topics).get(topic) {
            sender.send_modify(|count| *count += 1);
        }
    }

    /// After notifications may have been lost.
    fn ring_all_here(&self) {
        for sender in locked(&self.0.topics).values() {
            sender.send_modify(|count| *count += 1);
        }
        let _ = self.0.finished.send(Finished::Some);
    }

    fn take_outgoing(&self) -> Vec<String> {
        let outgoing = std::mem::take(&mut *locked(&self.0.outgoing));
        let sender = {
            let mut sent = locked(&self.0.sent);
            *sent = (sent.0 + 1, Instant::now());
            format!("{}.{}", self.0.sender, sent.0)
        };
        let mut payloads: Vec<String> = outgoing.topics.iter().map(|topic| format!("{sender} {topic}")).collect();
        match outgoing.finished.as_slice() {
            [] => {}
            tasks if tasks.len() <= NAMED_TASKS => {
                let ids: Vec<String> = tasks.iter().map(ToString::to_string).collect();
                payloads.push(format!("{sender} finished:{}", ids.join(",")));
            }
            _ => payloads.push(format!("{sender} finished:*")),
        }
        for traces in outgoing.kept.chunks(NAMED_TRACES) {
            let ids: Vec<String> = traces.iter().map(ToString::to_string).collect();
            payloads.push(format!("{sender} kept:{}", ids.join(",")));
        }
        payloads
    }

    /// Hears a notification; answers with the time it took where it is this process's own.
    fn hear(&self, payload: &str) -> Option<Duration> {
        let (sender, what) = payload.split_once(' ')?;
        let (sender, number) = sender.split_once('.').unwrap_or((sender, ""));
        if sender == self.0.sender {
            let (last, at) = *locked(&self.0.sent);
            return (number.parse() == Ok(last)).then(|| at.elapsed());
        }
        if let Some(ids) = what.strip_prefix("kept:") {
            let traces: Vec<CorrelationId> = ids.split(',').filter_map(|id| id.parse().ok()).collect();
            let _ = self.0.kept.send(traces.into());
            return None;
        }
        match what.strip_prefix("finished:") {
            Some("*") => drop(self.0.finished.send(Finished::Some)),
            Some(ids) => {
                let tasks: Vec<TaskId> = ids.split(',').filter_map(|id| id.parse().ok()).collect();
                let _ = self.0.finished.send(Finished::Tasks(tasks.into()));
            }
            None => {
                if let Ok(topic) = what.parse() {
                    self.ring_here(&topic);
                }
            }
        }
        None
    }
}

/// Waits for one topic.
#[derive(Debug)]
pub struct Subscription(watch::Receiver<u64>);

impl Subscription {
    /// Returns when the topic was rung since the last call, or after `poll`.
    pub async fn wait(&mut self, poll: Duration) -> Wake {
        match timeout(poll, self.0.changed()).await {
            Ok(Ok(())) => Wake::Event,
            // the bell is gone: only time can wake
            Ok(Err(_)) => {
                sleep(poll).await;
                Wake::Poll
            }
            Err(_) => Wake::Poll,
        }
    }

    /// Returns when the topic was rung since the last call.
    pub async fn rung(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// What a notification is about.
fn channel(payload: &str) -> &'static str {
    let what = payload.split_once(' ').map_or("", |(_, what)| what.split(':').next().unwrap_or_default());
    NOTIFICATIONS.into_iter().find(|channel| *channel == what).unwrap_or("other")
}

async fn notify(bell: Bell, pool: PgPool, metrics: Metrics, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = bell.0.outgoing_filled.notified() => {}
            () = shutdown.cancelled() => return,
        }
        let payloads = bell.take_outgoing();
        if payloads.is_empty() {
            continue;
        }
        let sent = send(&pool, &payloads).await;
        for payload in &payloads {
            let counter = if sent.is_ok() { &metrics.notifications_sent } else { &metrics.notifications_failed };
            counter.add(1, Notification { channel: channel(payload) });
        }
        if let Err(error) = sent {
            tracing::debug!(%error, "failed to notify; other processes find the work when they poll");
        }
        sleep(BREATH).await;
    }
}

async fn send(pool: &PgPool, payloads: &[String]) -> Result<(), sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let query = sqlx::query("select pg_notify($1, p) from unnest($2::text[]) p").bind(CHANNEL).bind(payloads);
    let sent = answered(query.execute(&mut *connection)).await;
    if sent.as_ref().is_err_and(|error| error.as_database_error().is_none()) {
        // the answer may still come, or never: nobody else must wait for it
        connection.close_on_drop();
    }
    sent.map(drop)
}

/// A connection that does not answer is as good as lost.
async fn answered<T>(answer: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
    timeout(PATIENCE, answer).await.unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))
}

async fn listen(bell: Bell, pool: PgPool, metrics: Metrics, shutdown: CancellationToken) {
    let mut delay = Duration::from_millis(100);
    while !shutdown.is_cancelled() {
        let heard = tokio::select! {
            heard = listen_once(&bell, &pool, &metrics, &mut delay) => heard,
            () = shutdown.cancelled() => return,
        };
        if let Err(error) = heard
            && !shutdown.is_cancelled()
        {
            tracing::warn!(%error, retry_in_ms = delay.as_millis(), "lost the listening connection; polling goes on");
        }
        tokio::select! { () = sleep(delay) => {}, () = shutdown.cancelled() => return }
        delay = (delay * 2).min(LONGEST_DELAY);
    }
}

async fn listen_once(bell: &Bell, pool: &PgPool, metrics: &Metrics, delay: &mut Duration) -> Result<(), sqlx::Error> {
    // a connection beside those of the pool: one that is given up while it is silent must not take a place there
    let own = PgPoolOptions::new().max_connections(1).acquire_timeout(PATIENCE);
    let own = own.connect_lazy_with(pool.connect_options().as_ref().clone());
    let mut listener = PgListener::connect_with(&own).await?;
    answered(listener.listen(CHANNEL)).await?;
    *delay = Duration::from_millis(100);
    bell.ring_all_here();
    loop {
        match timeout(QUIET, listener.try_recv()).await {
            Ok(Ok(Some(notification))) => {
                let payload = notification.payload();
                if let Some(took) = bell.hear(payload) {
                    let labels = Notification { channel: channel(payload) };
                    metrics.notifications_delivery_duration.record_duration(took, labels);
                }
            }
            // the connection was lost and is back: what was notified meanwhile is not known
            Ok(Ok(None)) => bell.ring_all_here(),
            Ok(Err(error)) => return Err(error),
            Err(_) => {
                answered(listener.execute("select 1")).await?;
            }
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::{Bell, Finished, Topic, Wake};
    use crate::{
        id::{CorrelationId, TaskId},
        name::Name,
    };
    use std::time::Duration;

    const LONG: Duration = Duration::from_secs(60);

    fn topics() -> Vec<Topic> {
        let steps = Topic::Steps(Name::new("a:b.c").expect("a legal name"));
        vec![Topic::Requests, Topic::Results, Topic::Timers, Topic::Namespaces, Topic::Stopped, steps]
    }

    #[test]
    fn topics_survive_their_text() {
        for topic in topics() {
            assert_eq!(topic.to_string().parse(), Ok(topic));
        }
    }

    #[tokio::test]
    async fn what_is_rung_before_the_wait_is_not_lost() {
        let bell = Bell::local();
        let mut subscription = bell.subscribe(Topic::Results);
        bell.ring(Topic::Results);
        bell.ring(Topic::Results);
        assert_eq!(subscription.wait(LONG).await, Wake::Event);
        assert_eq!(subscription.wait(Duration::from_millis(1)).await, Wake::Poll);
    }

    #[tokio::test]
    async fn another_process_is_heard_and_our_own_echo_is_not() {
        let (ours, theirs) = (Bell::local(), Bell::local());
        let mut subscription = ours.subscribe(Topic::Timers);
        let mut finished = ours.finished();
        let task = TaskId::generate();
        theirs.ring(Topic::Timers);
        theirs.announce(vec![task]);
        let (trace, mut kept) = (CorrelationId::generate(), ours.kept());
        theirs.keep(&[trace]);
        for payload in theirs.take_outgoing() {
            assert!(theirs.hear(&payload).is_some(), "its own echo tells how long the way takes");
            assert!(ours.hear(&payload).is_none());
        }
        assert_eq!(subscription.wait(LONG).await, Wake::Event);
        assert!(matches!(finished.recv().await, Ok(Finished::Tasks(tasks)) if *tasks == [task]));
        assert_eq!(*kept.recv().await.unwrap(), [trace]);
        ours.ring(Topic::Timers);
        subscription.wait(LONG).await;
        for payload in ours.take_outgoing() {
            ours.hear(&payload);
        }
        assert_eq!(subscription.wait(Duration::from_millis(1)).await, Wake::Poll);
    }

    #[test]
    fn a_notification_fits_into_what_postgresql_allows() {
        let bell = Bell::local();
        bell.announce((0..super::NAMED_TASKS).map(|_| TaskId::generate()).collect());
        assert!(bell.take_outgoing().iter().all(|payload| payload.len() < 8_000));
        bell.keep(&(0..super::NAMED_TRACES).map(|_| CorrelationId::generate()).collect::<Vec<_>>());
        assert!(bell.take_outgoing().iter().all(|payload| payload.len() < 8_000));
        bell.announce((0..=super::NAMED_TASKS).map(|_| TaskId::generate()).collect());
        assert!(bell.take_outgoing()[0].ends_with("finished:*"));
    }
}
