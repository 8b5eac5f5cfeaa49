//! A gate before every statement: where a test holds one transaction while others go on, or lets it fail.
//!
//! Services have none. With it the orders in which transactions meet can be tried one after the other.

use std::{fmt, future::Future, pin::Pin};

/// What a gate answers: the statement runs, or fails with this as if the connection had broken.
pub type Passed<'a> = Pin<Box<dyn Future<Output = Result<(), sqlx::Error>> + Send + 'a>>;

/// Decides when a statement may run, and whether.
pub trait Gate: fmt::Debug + Send + Sync {
    /// Called before the statement `doing` of the transaction `name`; the statement runs when this is done.
    fn pass<'a>(&'a self, name: &'static str, doing: &'static str) -> Passed<'a>;
}
