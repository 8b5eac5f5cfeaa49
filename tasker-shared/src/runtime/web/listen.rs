//! The server: opens its address, serves, and stops in bounded time.

use super::{
    Exposition, Tls, common,
    connection::{self, Line, Patience},
    connections::Connections,
    metrics_router,
    tls::Unusable,
};
use crate::runtime::access::{Guard, guarded};
use axum::{Router, serve::Listener};
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A request came over TLS: an extension of the request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Encrypted;

/// The largest body of a request to a page, which takes none.
const NO_BODY: usize = 1024;

/// The most connections of a page that listens by itself.
const PAGE_CONNECTIONS: usize = 64;

/// How long a page that is being read may take at the end.
const PAGE_GRACE: Duration = Duration::from_secs(1);

/// Why a server cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be opened.
    #[error("cannot listen on {address}: {reason}; set {setting} to an address that is free")]
    Listen {
        /// As it was configured.
        address: String,
        /// The setting to change.
        setting: &'static str,
        /// In a person's words.
        reason: &'static str,
        /// What the machine said.
        #[source]
        source: io::Error,
    },
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] Unusable),
    /// Serving ended by itself.
    #[error("the HTTP server failed: {0}")]
    Serve(#[source] io::Error),
}

/// Opens `address` (`host:port`); `setting` is the name of the configuration key, for the message.
///
/// # Errors
/// [`Error::Listen`] says what is wrong with the address.
pub async fn bind(address: &str, setting: &'static str) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen {
        address: address.to_owned(),
        setting,
        reason: words(&source),
        source,
    })
}

/// Serves at most `most` connections until `shutdown`, then takes no new one and lets open requests end, for `grace` at
/// most. With TLS, SIGHUP reads the certificates again.
///
/// # Errors
/// [`Error::Serve`] when the machine does not know the listener's address.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Tls>,
    router: Router,
    most: usize,
    shutdown: CancellationToken,
    grace: Duration,
) -> Result<(), Error> {
    let address = listener.local_addr().map_err(Error::Serve)?;
    if let Some(tls) = &tls {
        tokio::spawn(tls.clone().reload_at_signals(shutdown.clone()));
    }
    let line = Line { tls, router, address, patience: Patience::USUAL, shutdown };
    serve_line(listener, line, most, grace).await;
    Ok(())
}

async fn serve_line(mut listener: TcpListener, line: Line, most: usize, grace: Duration) {
    let (line, connections, tracker) = (Arc::new(line), Connections::new(most), TaskTracker::new());
    let accept = async {
        loop {
            // waits a moment where the machine has no files left
            let (stream, address) = Listener::accept(&mut listener).await;
            let place = connections.place().await;
            tracker.spawn(connection::run(Arc::clone(&line), stream, address, place));
        }
    };
    tokio::select! { () = accept => {}, () = line.shutdown.cancelled() => {} }
    drop(listener);
    tracker.close();
    if tokio::time::timeout(grace, tracker.wait()).await.is_err() {
        tracing::warn!(grace_ms = grace.as_millis(), "requests were still open after the grace time and were left");
    }
}

/// The page `/metrics` where it listens by itself.
#[derive(Debug)]
pub struct OwnPort {
    listener: TcpListener,
    exposition: Exposition,
}

impl OwnPort {
    /// Opens the address, if one is configured; `setting` is the name of its configuration key.
    ///
    /// # Errors
    /// As [`bind`].
    pub async fn bind(
        address: Option<SocketAddr>,
        setting: &'static str,
        exposition: &Exposition,
    ) -> Result<Option<Self>, Error> {
        let Some(address) = address else { return Ok(None) };
        let listener = bind(&address.to_string(), setting).await?;
        if let Ok(address) = listener.local_addr() {
            tracing::info!(target: "tasker_shared::runtime::web", %address, "/metrics has an address of its own");
        }
        Ok(Some(Self { listener, exposition: exposition.clone() }))
    }

    /// Serves the page behind the gate, with the certificates of the service, until `shutdown`.
    pub async fn serve(self, gate: Guard, tls: Option<Tls>, shutdown: CancellationToken) {
        let metrics = gate.metrics().clone();
        let page = guarded(metrics_router(self.exposition), gate, |page| page);
        let router = common(page, &metrics, NO_BODY);
        if let Err(error) = serve(self.listener, tls, router, PAGE_CONNECTIONS, shutdown, PAGE_GRACE).await {
            tracing::error!(%error, "/metrics ended badly");
        }
    }
}

fn words(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "address in use",
        io::ErrorKind::AddrNotAvailable => "this machine does not have the address",
        io::ErrorKind::PermissionDenied => "not permitted (ports below 1024 need a privilege)",
        io::ErrorKind::InvalidInput => "not an address of the form host:port",
        _ => "the address cannot be opened",
    }
}

#[cfg(test)]
mod tests {
    use super::{bind, serve, serve_line};
    use crate::runtime::web::connection::{Line, Patience};
    use axum::{
        Router,
        routing::{get, post},
    };
    use std::{
        net::SocketAddr,
        sync::Arc,
        time::{Duration, Instant},
    };
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        sync::Notify,
    };
    use tokio_util::sync::CancellationToken;

    #[tokio::test]
    async fn an_address_in_use_is_refused_naming_the_setting() {
        let first = bind("127.0.0.1:0", "orchestration.http_address").await.unwrap();
        let address = first.local_addr().unwrap().to_string();
        let refused = bind(&address, "orchestration.http_address").await.unwrap_err().to_string();
        assert!(refused.starts_with(&format!("cannot listen on {address}: address in use; ")), "{refused}");
        assert!(refused.contains("orchestration.http_address"), "{refused}");
    }

    #[tokio::test]
    async fn an_open_request_is_answered_after_shutdown() {
        let (entered, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let shutdown = CancellationToken::new();
        let (enter, wait) = (Arc::clone(&entered), Arc::clone(&go));
        let router = Router::new().route(
            "/",
            get(move || async move {
                enter.notify_one();
                wait.notified().await;
                "done"
            }),
        );
        let listener = bind("127.0.0.1:0", "x").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener, None, router, 10, shutdown.clone(), Duration::from_secs(60)));

        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        entered.notified().await;
        shutdown.cancel();
        go.notify_one();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("done"), "{answer}");
        server.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_request_that_never_ends_does_not_hold_the_server_longer_than_the_grace_time() {
        let entered = Arc::new(Notify::new());
        let enter = Arc::clone(&entered);
        let router = Router::new().route(
            "/",
            get(move || async move {
                enter.notify_one();
                std::future::pending::<()>().await;
            }),
        );
        let listener = bind("127.0.0.1:0", "x").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(serve(listener, None, router, 10, shutdown.clone(), Duration::from_millis(10)));

        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        entered.notified().await;
        shutdown.cancel();
        server.await.unwrap().unwrap();
    }

    const HURRY: Patience = Patience {
        handshake: Duration::from_millis(100),
        first: Duration::from_millis(200),
        next: Duration::from_millis(400),
    };
    const CALM: Patience =
        Patience { handshake: Duration::MAX, first: Duration::from_secs(600), next: Duration::from_secs(600) };
    const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    /// The preface, and settings that say nothing.
    const H2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

    /// A server of `most` connections; `/` answers, and `/wait` when `go` says so.
    async fn served(
        patience: Patience,
        most: usize,
        go: &Arc<Notify>,
        entered: &Arc<Notify>,
    ) -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
        let (go, entered) = (Arc::clone(go), Arc::clone(entered));
        let waits = move || async move {
            entered.notify_one();
            go.notified().await;
            "done"
        };
        let router = Router::new()
            .route("/", get(|| async { "ok" }))
            .route("/", post(|_: String| async { "ok" }))
            .route("/wait", get(waits));
        let listener = bind("127.0.0.1:0", "x").await.unwrap();
        let (address, shutdown) = (listener.local_addr().unwrap(), CancellationToken::new());
        let line = Line { tls: None, router, address, patience, shutdown: shutdown.clone() };
        (address, shutdown, tokio::spawn(serve_line(listener, line, most, Duration::from_secs(60))))
    }

    async fn connected(address: SocketAddr, says: &[u8]) -> TcpStream {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(says).await.unwrap();
        client
    }

    /// Reads the answer to a request that keeps the connection.
    async fn answered(client: &mut TcpStream) -> String {
        let mut answer = vec![0; 1000];
        let read = client.read(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[..read]).into_owned()
    }

    /// Whether the server closes the connection within ten seconds.
    async fn is_closed(client: &mut TcpStream) -> bool {
        let closed = async { while !matches!(client.read(&mut [0; 1000]).await, Ok(0) | Err(_)) {} };
        tokio::time::timeout(Duration::from_secs(10), closed).await.is_ok()
    }

    #[tokio::test]
    async fn a_client_that_asks_nothing_is_left() {
        let notify = Arc::default();
        let (address, ..) = served(HURRY, 100, &notify, &notify).await;
        for says in
            [&b""[..], b"G", b"GET / HTTP/1.1\r\nhost: x\r\nx-slow: ", GET, &[GET, b"GET /"].concat(), H2, &H2[..10]]
        {
            let started = Instant::now();
            let mut client = connected(address, says).await;
            assert!(is_closed(&mut client).await, "{:?}", String::from_utf8_lossy(says));
            assert!(started.elapsed() >= HURRY.first, "too soon: {:?}", String::from_utf8_lossy(says));
        }
        let (mut read, mut write) = connected(address, b"GET / HTTP/1.1\r\nhost: x\r\nx-slow: ").await.into_split();
        let dripping = async {
            while write.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let closed = async { while !matches!(read.read(&mut [0; 100]).await, Ok(0) | Err(_)) {} };
        let left = async {
            tokio::select! { () = dripping => {}, () = closed => {} }
        };
        tokio::time::timeout(Duration::from_secs(10), left).await.expect("one that drips is left");
    }

    #[tokio::test]
    async fn a_request_takes_longer_than_the_patience_with_silence() {
        let (go, entered) = (Arc::default(), Arc::default());
        let (address, ..) = served(HURRY, 100, &go, &entered).await;
        let mut client = connected(address, b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n").await;
        entered.notified().await;
        assert!(tokio::time::timeout(HURRY.next * 3, client.read(&mut [0; 1])).await.is_err(), "it was left");
        go.notify_one();
        assert!(answered(&mut client).await.ends_with("done"));
    }

    #[tokio::test]
    async fn those_who_ask_nothing_make_room_and_a_request_never_does() {
        let (go, entered) = (Arc::default(), Arc::default());
        let (address, ..) = served(CALM, 4, &go, &entered).await;
        let mut waits = connected(address, b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n").await;
        entered.notified().await;
        let mut idle = connected(address, GET).await;
        assert!(answered(&mut idle).await.ends_with("ok"));
        let mut slow_body = connected(address, b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\na").await;
        let mut silent = connected(address, b"GET").await;
        for _ in 0..20 {
            let mut new = connected(address, b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
            assert!(answered(&mut new).await.ends_with("ok"));
            assert!(is_closed(&mut new).await);
        }
        for _ in 0..3 {
            // they fill what is left
            let _ = connected(address, b"").await;
        }
        assert!(is_closed(&mut slow_body).await && is_closed(&mut silent).await);
        let mut more = Vec::new();
        for _ in 0..20 {
            more.push(connected(address, GET).await);
        }
        assert!(answered(more.last_mut().unwrap()).await.ends_with("ok"));
        assert!(is_closed(&mut idle).await, "the one that is idle longest");
        go.notify_one();
        assert!(answered(&mut waits).await.ends_with("done"));
    }

    #[tokio::test]
    async fn where_all_work_a_new_connection_waits_for_the_first_that_ends() {
        let (go, entered) = (Arc::default(), Arc::default());
        let (address, ..) = served(CALM, 1, &go, &entered).await;
        let mut waits = connected(address, b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n").await;
        entered.notified().await;
        let mut new = connected(address, GET).await;
        assert!(tokio::time::timeout(Duration::from_millis(100), new.read(&mut [0; 1])).await.is_err());
        go.notify_one();
        assert!(answered(&mut waits).await.ends_with("done"), "its answer is not cut off");
        assert!(answered(&mut new).await.ends_with("ok"));
    }

    #[tokio::test]
    async fn those_who_ask_nothing_do_not_hold_the_end_up() {
        let notify = Arc::default();
        let (address, shutdown, server) = served(CALM, 100, &notify, &notify).await;
        let mut held = Vec::new();
        for says in [&b""[..], b"GET / HTTP/1.1\r\nhost", GET, H2] {
            held.push(connected(address, says).await);
        }
        assert!(answered(&mut held[2]).await.ends_with("ok"));
        shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(10), server).await.expect("it ends").unwrap();
    }
}
