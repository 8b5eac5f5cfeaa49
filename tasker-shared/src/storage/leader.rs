//! Which of several processes speaks for all: the one that holds an advisory lock, on a connection of its own.

use crate::metrics::probe::Leadership;
use futures::future::BoxFuture;
use sqlx::{
    Connection, PgConnection,
    postgres::{PgConnectOptions, PgPool},
};
use std::{sync::Arc, time::Duration};
use tokio::{sync::Mutex, time::timeout};

/// What one process does for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty {
    /// Samples the whole system.
    Sample,
    /// Removes what is old.
    Retain,
    /// Samples, among the workers, what their authors' probes tell of the whole system.
    Probe,
}

impl Duty {
    const fn lock(self) -> i64 {
        match self {
            Self::Sample => 0x7461_736b_7072,
            Self::Retain => 0x7461_736b_7265,
            Self::Probe => 0x7461_736b_7077,
        }
    }
}

/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Leads for as long as its connection lives: PostgreSQL gives the lock to another process as soon as it is gone.
#[derive(Debug)]
pub struct Leader {
    duty: Duty,
    options: Arc<PgConnectOptions>,
    held: Mutex<Option<PgConnection>>,
}

impl Leader {
    /// A candidate; it connects when it is asked for the first time.
    pub fn candidate(pool: &PgPool, duty: Duty) -> Self {
        Self { duty, options: pool.connect_options(), held: Mutex::new(None) }
    }

    async fn hold(&self) -> bool {
        let mut held = self.held.lock().await;
        if let Some(connection) = held.as_mut() {
            if matches!(timeout(PATIENCE, connection.ping()).await, Ok(Ok(()))) {
                return true;
            }
            *held = None;
            tracing::info!("the connection that led is lost; another process may lead now");
        }
        match timeout(PATIENCE, locked(&self.options, self.duty)).await {
            Ok(Ok(connection)) => *held = connection,
            Ok(Err(error)) => tracing::debug!(%error, "failed to ask for the lead"),
            Err(_) => tracing::debug!("no answer to who leads"),
        }
        held.is_some()
    }
}

async fn locked(options: &PgConnectOptions, duty: Duty) -> sqlx::Result<Option<PgConnection>> {
    let mut connection = PgConnection::connect_with(options).await?;
    let locked: bool =
        sqlx::query_scalar("select pg_try_advisory_lock($1)").bind(duty.lock()).fetch_one(&mut connection).await?;
    if locked {
        return Ok(Some(connection));
    }
    connection.close().await?;
    Ok(None)
}

impl Leadership for Leader {
    fn leads(&self) -> BoxFuture<'_, bool> {
        Box::pin(self.hold())
    }
}
