//! The open connections of one address: how many there may be, and which one makes room for a new one.

use nix::sys::resource::{Resource, getrlimit};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The most connections when nothing is said.
const MOST: usize = 10_000;

/// How often it is said that there is no room.
const SAID_EVERY: Duration = Duration::from_secs(10);

/// How many connections an address may have: as `configured`, or 10,000 where that is 0, but at most three quarters of the
/// files that this process may open.
pub fn most_connections(configured: usize) -> usize {
    let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
    let possible = usize::try_from(files / 4).unwrap_or(usize::MAX).saturating_mul(3).max(1);
    possible.min(if configured == 0 { MOST } else { configured })
}

/// The connections of one address; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Connections(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    most: usize,
    open: Mutex<Open>,
    /// A connection has ended, or a request has.
    room: Notify,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    all: BTreeMap<u64, Arc<Connection>>,
    dismissed: usize,
    said: Option<Instant>,
}

/// What is known of a connection.
#[derive(Debug)]
struct Connection {
    state: Mutex<State>,
    dismissed: CancellationToken,
}

#[derive(Debug)]
struct State {
    /// Requests that are there whole and have no answer yet.
    working: usize,
    /// Requests whose body is still to come.
    arriving: usize,
    /// Whether a request was ever there whole, or answered.
    served: bool,
    /// Whether what is written are answers alone: HTTP/2 writes by itself too.
    writes_answers: bool,
    since: Instant,
}

/// The place of one connection, which ends with it.
#[derive(Debug)]
pub(super) struct Place {
    connections: Connections,
    number: u64,
    connection: Arc<Connection>,
}

/// A request that has no answer yet.
#[derive(Debug)]
pub(super) struct Asked {
    place: Arc<Place>,
    phase: Arc<Mutex<Phase>>,
}

/// The body of a request, on its way.
#[derive(Debug)]
pub(super) struct Arrival {
    connection: Arc<Connection>,
    phase: Arc<Mutex<Phase>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Arriving,
    Working,
    Answered,
}

impl Connections {
    pub(super) fn new(most: usize) -> Self {
        Self(Arc::new(Inner { most: most.max(1), open: Mutex::default(), room: Notify::new() }))
    }

    /// A place for a new connection. When all are taken, the one is dismissed that waits longest for its client to deliver
    /// a request, else the one that is idle longest; while all work, this waits.
    pub(super) async fn place(&self) -> Place {
        loop {
            if let Some(place) = self.try_place() {
                return place;
            }
            self.0.room.notified().await;
        }
    }

    fn try_place(&self) -> Option<Place> {
        let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.all.len() >= self.0.most {
            let least = open.all.iter().filter_map(|(number, open)| Some((open.locked().worth()?, *number))).min();
            self.say(&mut open, least.is_some());
            let dismissed = open.all.remove(&least?.1)?;
            dismissed.dismissed.cancel();
        }
        let number = open.next;
        open.next += 1;
        let connection = Arc::new(Connection::new());
        open.all.insert(number, Arc::clone(&connection));
        Some(Place { connections: self.clone(), number, connection })
    }

    fn say(&self, open: &mut Open, dismissed: bool) {
        open.dismissed += usize::from(dismissed);
        if open.said.is_none_or(|said| said.elapsed() >= SAID_EVERY) {
            tracing::warn!(
                most = self.0.most,
                closed = open.dismissed,
                "all connections are taken: those that ask nothing are closed for new ones; more are possible with \
                 max_http_connections, or with a higher limit of open files (ulimit -n)"
            );
            (open.said, open.dismissed) = (Some(Instant::now()), 0);
        }
    }
}

impl Connection {
    fn new() -> Self {
        let since = Instant::now();
        let state = State { working: 0, arriving: 0, served: false, writes_answers: false, since };
        Self { state: Mutex::new(state), dismissed: CancellationToken::new() }
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The less, the sooner it makes room; nothing for one that works.
    fn worth(&self) -> Option<(bool, Instant)> {
        (self.working == 0).then_some((self.served && self.arriving == 0, self.since))
    }
}

impl Place {
    /// Another connection needs the place.
    pub(super) async fn dismissed(&self) {
        self.connection.dismissed.cancelled().await;
    }

    /// Whether a request was ever there whole, or answered.
    pub(super) fn has_served(&self) -> bool {
        self.connection.locked().served
    }

    /// Since when no request is under way; nothing while one is.
    pub(super) fn quiet_since(&self) -> Option<Instant> {
        let state = self.connection.locked();
        (state.working + state.arriving == 0).then_some(state.since)
    }

    /// The client has taken a part of an answer.
    pub(super) fn wrote(&self) {
        let mut state = self.connection.locked();
        if state.writes_answers {
            state.since = Instant::now();
        }
    }

    /// A request came; `whole`: without a body. `alone`: until its answer nothing else is written.
    pub(super) fn asks(self: &Arc<Self>, whole: bool, alone: bool) -> Asked {
        let mut state = self.connection.locked();
        state.arriving += 1;
        (state.writes_answers, state.since) = (alone, Instant::now());
        drop(state);
        let asked = Asked { place: Arc::clone(self), phase: Arc::new(Mutex::new(Phase::Arriving)) };
        if whole {
            asked.arrival().ended();
        }
        asked
    }
}

impl Asked {
    /// What is told when the body is there.
    pub(super) fn arrival(&self) -> Arrival {
        Arrival { connection: Arc::clone(&self.place.connection), phase: Arc::clone(&self.phase) }
    }
}

impl Arrival {
    /// The body is there.
    pub(super) fn ended(&self) {
        let mut phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        if *phase == Phase::Arriving {
            *phase = Phase::Working;
            let mut state = self.connection.locked();
            state.arriving -= 1;
            state.working += 1;
            state.served = true;
        }
    }
}

impl Drop for Asked {
    /// It has its answer, which may come before the body, or nobody waits for one any more.
    fn drop(&mut self) {
        let mut phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.place.connection.locked();
        match std::mem::replace(&mut *phase, Phase::Answered) {
            Phase::Arriving => state.arriving -= 1,
            Phase::Working => state.working -= 1,
            Phase::Answered => {}
        }
        (state.served, state.since) = (true, Instant::now());
        drop(state);
        self.place.connections.0.room.notify_one();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.connections.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.all.remove(&self.number);
        drop(open);
        self.connections.0.room.notify_one();
    }
}
