//! The server: opens its address, serves, and stops in bounded time.

use super::{Exposition, common, metrics_router};
use crate::metrics::Metrics;
use axum::Router;
use std::{io, net::SocketAddr, time::Duration};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// The largest body of a request to a page, which takes none.
const NO_BODY: usize = 1024;

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

/// Serves until `shutdown`, then takes no new connection and lets open requests end, for `grace` at most.
///
/// # Errors
/// [`Error::Serve`] when the listener breaks.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: CancellationToken,
    grace: Duration,
) -> Result<(), Error> {
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    let server = axum::serve(listener, service).with_graceful_shutdown(shutdown.clone().cancelled_owned());
    let patience = async {
        shutdown.cancelled().await;
        tokio::time::sleep(grace).await;
    };
    tokio::select! {
        ended = server.into_future() => ended.map_err(Error::Serve),
        () = patience => {
            tracing::warn!(grace_ms = grace.as_millis(), "requests were still open after the grace time and were left");
            Ok(())
        }
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

    /// Serves the page until `shutdown`.
    pub async fn serve(self, metrics: &Metrics, shutdown: CancellationToken) {
        let router = common(metrics_router(self.exposition), metrics, NO_BODY);
        if let Err(error) = serve(self.listener, router, shutdown, PAGE_GRACE).await {
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
    use super::{bind, serve};
    use axum::{Router, routing::get};
    use std::{sync::Arc, time::Duration};
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
        let server = tokio::spawn(serve(listener, router, shutdown.clone(), Duration::from_secs(60)));

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
        let server = tokio::spawn(serve(listener, router, shutdown.clone(), Duration::from_millis(10)));

        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        entered.notified().await;
        shutdown.cancel();
        server.await.unwrap().unwrap();
    }
}
