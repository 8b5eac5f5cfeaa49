//! What a handler wants to write in the transaction of its report.

use super::{HandlerError, StepContext};
use futures::future::BoxFuture;
use sqlx::PgConnection;
use std::fmt;

type Write = Box<dyn for<'t> FnOnce(&'t mut PgConnection) -> BoxFuture<'t, Result<(), HandlerError>> + Send>;

/// Functions that write in the report's transaction, in the order in which they were given.
#[derive(Default)]
pub(crate) struct Writes(Vec<Write>);

impl Writes {
    pub(crate) fn push(&mut self, write: Write) {
        self.0.push(write);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Runs them one after the other; the first that fails is the last.
    pub(crate) async fn run(self, transaction: &mut PgConnection) -> Result<(), HandlerError> {
        for write in self.0 {
            write(transaction).await?;
        }
        Ok(())
    }
}

impl fmt::Debug for Writes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Writes").field(&self.0.len()).finish()
    }
}

impl StepContext {
    /// Writes in the transaction that stores this attempt's success: both commit, or neither does.
    ///
    /// `write` runs after the handler has returned a result, and only while the lease is still this attempt's. Where the
    /// lease was lost, the step stopped, or the handler failed, it does not run. When it fails, everything is rolled back
    /// and the step fails with its error. What it writes therefore takes effect once for each step, however often the
    /// handler runs.
    ///
    /// It has half of the lease's time, must not end the transaction, and can reach what is in Tasker's own database
    /// only. Several are run in the order given.
    ///
    /// ```
    /// use serde::Deserialize;
    /// use tasker_worker::{HandlerError, StepContext, handler::handler_fn};
    ///
    /// #[derive(Deserialize)]
    /// struct Payment { account: i64, cents: i64 }
    ///
    /// async fn book(context: StepContext, payment: Payment) -> Result<i64, HandlerError> {
    ///     let Payment { account, cents } = payment;
    ///     context.in_report(move |transaction| {
    ///         Box::pin(async move {
    ///             sqlx::query("update account set cents = cents + $2 where id = $1")
    ///                 .bind(account)
    ///                 .bind(cents)
    ///                 .execute(transaction)
    ///                 .await?;
    ///             Ok(())
    ///         })
    ///     });
    ///     Ok(cents)
    /// }
    ///
    /// handler_fn(book);
    /// ```
    pub fn in_report<F>(&self, write: F)
    where
        F: for<'t> FnOnce(&'t mut PgConnection) -> BoxFuture<'t, Result<(), HandlerError>> + Send + 'static,
    {
        self.writes().push(Box::new(write));
    }

    /// What the handler gave to [`StepContext::in_report`].
    pub(crate) fn take_writes(&self) -> Writes {
        std::mem::take(&mut *self.writes())
    }
}
