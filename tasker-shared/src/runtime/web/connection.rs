//! One connection, from the handshake to its end. A client that asks nothing is not waited for.

use super::{
    Tls,
    connections::{Arrival, Place},
    listen::Encrypted,
};
use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    extract::ConnectInfo,
    http::{Request, Version},
};
use hyper::{
    body::{Frame, Incoming, SizeHint},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use std::{
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_util::{io::InspectWriter, sync::CancellationToken};
use tower::ServiceExt as _;

/// How long a connection may be closing.
const CLOSING: Duration = Duration::from_secs(1);

/// How long the server waits for a client.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For the handshake of TLS.
    pub(super) handshake: Duration,
    /// For the first request.
    pub(super) first: Duration,
    /// For each further one, and for the client to take a part of an answer.
    pub(super) next: Duration,
}

impl Patience {
    pub(super) const USUAL: Self =
        Self { handshake: Duration::from_secs(3), first: Duration::from_secs(10), next: Duration::from_secs(75) };
}

/// The address that the service listens on: an extension of the request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listens(pub(crate) SocketAddr);

/// What all connections of one address share.
pub(super) struct Line {
    pub(super) tls: Option<Tls>,
    pub(super) router: Router,
    pub(super) address: SocketAddr,
    pub(super) patience: Patience,
    pub(super) shutdown: CancellationToken,
}

/// Serves one connection until it ends, nothing comes, or another one needs its place.
pub(super) async fn run(line: Arc<Line>, stream: TcpStream, address: SocketAddr, place: Place) {
    let Some(tls) = &line.tls else { return serve(&line, stream, address, place).await };
    let handshake = tokio::time::timeout(line.patience.handshake, tls.acceptor().accept(stream));
    let done = tokio::select! {
        done = handshake => done,
        () = place.dismissed() => return,
        () = line.shutdown.cancelled() => return,
    };
    match done {
        Ok(Ok(stream)) => serve(&line, stream, address, place).await,
        Ok(Err(error)) => tracing::debug!(%address, "a TLS handshake failed: {error}"),
        Err(_) => tracing::debug!(%address, "a TLS handshake took longer than {:?}", line.patience.handshake),
    }
}

async fn serve<Io>(line: &Line, io: Io, address: SocketAddr, place: Place)
where
    Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let place = Arc::new(place);
    let (written, asking) = (Arc::clone(&place), Arc::clone(&place));
    let (router, encrypted, listens) = (line.router.clone(), line.tls.is_some(), Listens(line.address));
    let service = service_fn(move |request: Request<Incoming>| {
        let alone = request.version() < Version::HTTP_2;
        let asked = asking.asks(request.body().is_end_stream(), alone);
        let arrival = asked.arrival();
        let mut request = request.map(|body| Body::new(Arriving { body, arrival }));
        request.extensions_mut().insert(ConnectInfo(address));
        request.extensions_mut().insert(listens);
        if encrypted {
            request.extensions_mut().insert(Encrypted);
        }
        let router = router.clone();
        async move {
            let answer = router.oneshot(request).await;
            drop(asked);
            answer
        }
    });
    let io = TokioIo::new(InspectWriter::new(io, move |_: &[u8]| written.wrote()));
    let builder = Builder::new(TokioExecutor::new());
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut closing = None;
    loop {
        let end = overdue(line.patience, &place, closing);
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%address, "a connection failed: {error}");
                }
                return;
            }
            () = place.dismissed(), if closing.is_none() => {
                if !place.has_served() {
                    return;
                }
            }
            () = line.shutdown.cancelled(), if closing.is_none() => {}
            () = tokio::time::sleep_until(end.unwrap_or_else(|| Instant::now() + CLOSING).into()) => {
                match overdue(line.patience, &place, closing) {
                    Some(end) if end > Instant::now() => continue,
                    None => continue,
                    Some(_) if closing.is_some() || !place.has_served() => return,
                    Some(_) => {}
                }
            }
        }
        // what is being answered is answered; a client that takes it has a moment
        closing = Some(Instant::now());
        connection.as_mut().graceful_shutdown();
    }
}

/// When the patience with this client ends; nothing while a request of it is under way.
fn overdue(patience: Patience, place: &Place, closing: Option<Instant>) -> Option<Instant> {
    let since = place.quiet_since()?;
    Some(match closing {
        Some(closing) => since.max(closing) + CLOSING,
        None if place.has_served() => since + patience.next,
        None => since + patience.first,
    })
}

/// A body that tells when it is there.
struct Arriving {
    body: Incoming,
    arrival: Arrival,
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if frame.is_none() || self.body.is_end_stream() {
            self.arrival.ended();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
