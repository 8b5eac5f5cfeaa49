//! The network between one service and PostgreSQL: a TCP proxy that can be slow, silent, broken, or lose an answer.
//!
//! It reads PostgreSQL's messages far enough to know where an answer ends. An answer that says that nothing is open any
//! more comes after a commit: swallowing it and cutting the connection is the lost acknowledgement of that commit.

use anyhow::Result;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

/// Asks whether TLS is spoken.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
/// PostgreSQL is ready for the next query, and no transaction is open.
const READY_AND_IDLE: [u8; 6] = [b'Z', 0, 0, 0, 5, b'I'];

/// The way of one service to PostgreSQL; cheap to clone.
#[derive(Debug, Clone)]
pub struct Proxy(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    port: u16,
    server: u16,
    /// What every byte waits for, in milliseconds.
    delay_ms: AtomicU64,
    /// How many answers after commits are still to be swallowed.
    lose: AtomicU32,
    /// How many were.
    lost: AtomicU64,
    state: watch::Sender<State>,
}

/// What the network does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    /// Connections of an earlier generation are cut.
    generation: u64,
    /// Those of an earlier generation see their input end and are otherwise left alone.
    half_closed: u64,
    /// Those of an earlier generation never hear anything any more.
    deaf: u64,
    /// Nothing passes, and nothing is refused either.
    silent: bool,
    /// New connections are cut at once.
    refusing: bool,
}

impl Proxy {
    /// Listens on a free port of this machine and leads to PostgreSQL's.
    ///
    /// # Errors
    /// The machine refuses.
    pub async fn start(server: u16) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let state = State { generation: 0, half_closed: 0, deaf: 0, silent: false, refusing: false };
        let proxy = Self(Arc::new(Inner {
            port: listener.local_addr()?.port(),
            server,
            delay_ms: AtomicU64::new(0),
            lose: AtomicU32::new(0),
            lost: AtomicU64::new(0),
            state: watch::channel(state).0,
        }));
        tokio::spawn(accept(proxy.clone(), listener));
        Ok(proxy)
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// Cuts all connections.
    pub fn cut(&self) {
        self.0.state.send_modify(|state| state.generation += 1);
    }

    /// PostgreSQL sees the end of each connection, and the service does not.
    pub fn half_close(&self) {
        self.0.state.send_modify(|state| state.half_closed += 1);
    }

    /// The connections that are open never carry anything again, as when the machine at the other end is gone without a
    /// word; new ones work.
    pub fn deafen(&self) {
        self.0.state.send_modify(|state| state.deaf += 1);
    }

    /// Nothing passes, or everything again.
    pub fn silence(&self, silent: bool) {
        self.0.state.send_modify(|state| state.silent = silent);
    }

    /// New connections are refused, and open ones cut; or all is well again.
    pub fn refuse(&self, refusing: bool) {
        self.0.state.send_modify(|state| {
            state.refusing = refusing;
            state.generation += u64::from(refusing);
        });
    }

    /// Whatever comes from PostgreSQL arrives so much later.
    pub fn delay(&self, delay: Duration) {
        self.0.delay_ms.store(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Swallows the next answers that come after a commit.
    pub fn lose_answers(&self, count: u32) {
        self.0.lose.fetch_add(count, Ordering::Relaxed);
    }

    /// How many answers were swallowed.
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }

    /// All is well: nothing is delayed, lost, silent or refused.
    pub fn heal(&self) {
        self.delay(Duration::ZERO);
        self.0.lose.store(0, Ordering::Relaxed);
        self.0.state.send_modify(|state| (state.silent, state.refusing) = (false, false));
    }

    fn loses_this(&self) -> bool {
        let taken = self.0.lose.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        if taken {
            self.0.lost.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }
}

async fn accept(proxy: Proxy, listener: TcpListener) {
    while let Ok((service, _)) = listener.accept().await {
        if !proxy.0.state.borrow().refusing {
            tokio::spawn(carry(proxy.clone(), service));
        }
    }
}

/// Carries one connection. Whoever breaks first ends it for both.
async fn carry(proxy: Proxy, mut service: TcpStream) {
    let Some(first) = opening(&mut service).await else { return };
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", proxy.0.server)).await else { return };
    if server.write_all(&first).await.is_err() {
        return;
    }
    // without this, small messages wait for each other
    let _ = (service.set_nodelay(true), server.set_nodelay(true));
    let born = *proxy.0.state.borrow();
    let mut watching = proxy.0.state.subscribe();
    let (from_service, to_service) = service.into_split();
    let (from_server, to_server) = server.into_split();
    let up = requests(&proxy, born, from_service, to_server);
    let down = answers(&proxy, born, from_server, to_service);
    let cut = watching.wait_for(|state| state.generation > born.generation);
    tokio::select! {
        () = async { tokio::join!(up, down); } => {}
        _ = cut => {}
    }
}

/// Answers that TLS is not spoken, and reads what the service says then.
async fn opening(service: &mut TcpStream) -> Option<[u8; 8]> {
    let mut first = [0; 8];
    service.read_exact(&mut first).await.ok()?;
    if first == SSL_REQUEST {
        service.write_all(b"N").await.ok()?;
        service.read_exact(&mut first).await.ok()?;
    }
    Some(first)
}

/// Returns when bytes may pass; never for a connection that is deaf.
async fn passable(proxy: &Proxy, born: State) {
    let mut state = proxy.0.state.subscribe();
    let open = |state: &State| !state.silent && state.deaf == born.deaf;
    if state.wait_for(open).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn requests(proxy: &Proxy, born: State, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    let mut buffer = vec![0; 16 * 1024];
    let mut state = proxy.0.state.subscribe();
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            _ = state.wait_for(|state| state.half_closed > born.half_closed) => Ok(0),
        };
        let Some(bytes) = read.ok().filter(|read| *read > 0).and_then(|read| buffer.get(..read)) else { break };
        passable(proxy, born).await;
        if to.write_all(bytes).await.is_err() {
            break;
        }
    }
    // PostgreSQL sees the end; its own last words still pass
    let _ = to.shutdown().await;
}

async fn answers(proxy: &Proxy, born: State, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    let mut waiting = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    // the first answer ends the start of the connection, not a commit
    let mut started = false;
    loop {
        let Some(bytes) = from.read(&mut buffer).await.ok().filter(|n| *n > 0).and_then(|n| buffer.get(..n)) else {
            return;
        };
        passable(proxy, born).await;
        let delay = proxy.0.delay_ms.load(Ordering::Relaxed);
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        waiting.extend_from_slice(bytes);
        let whole = whole_messages(&waiting);
        let passing: Vec<u8> = waiting.drain(..whole.end).collect();
        if whole.ends_idle && started && proxy.loses_this() {
            return;
        }
        started |= whole.ends_idle;
        if to.write_all(&passing).await.is_err() {
            return;
        }
    }
}

struct Whole {
    /// Where the last whole message ends.
    end: usize,
    /// Whether that one says that PostgreSQL is ready and no transaction is open.
    ends_idle: bool,
}

fn whole_messages(bytes: &[u8]) -> Whole {
    let mut whole = Whole { end: 0, ends_idle: false };
    while let Some(length) = bytes.get(whole.end + 1..whole.end + 5) {
        let length = length.try_into().map_or(0, u32::from_be_bytes);
        let next = whole.end + 1 + usize::try_from(length).unwrap_or(usize::MAX / 2).max(4);
        let Some(message) = bytes.get(whole.end..next) else { break };
        whole = Whole { end: next, ends_idle: message == READY_AND_IDLE };
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::{READY_AND_IDLE, whole_messages};

    #[test]
    fn answers_are_cut_where_a_message_ends() {
        let mut bytes = vec![b'C', 0, 0, 0, 11];
        bytes.extend_from_slice(b"COMMIT\0");
        bytes.extend_from_slice(&READY_AND_IDLE);
        assert!(whole_messages(&bytes).ends_idle);
        assert_eq!(whole_messages(&bytes).end, bytes.len());
        let cut = whole_messages(&bytes[..bytes.len() - 1]);
        assert_eq!((cut.end, cut.ends_idle), (12, false));
        assert_eq!(whole_messages(&bytes[..3]).end, 0);
    }
}
