//! The HTTP client of the Tasker orchestration API: one typed function for each route.
//!
//! A [`Client`] is cheap to clone and keeps its connections. What goes over the wire is in
//! [`tasker_shared::api`]; what can go wrong is [`Error`].
//!
//! ```no_run
//! # async fn example() -> Result<(), tasker_client::Error> {
//! use tasker_shared::api::SubmitTask;
//!
//! let client = tasker_client::Client::new("http://127.0.0.1:8080")?;
//! let task = SubmitTask { namespace: "shop".into(), name: "order".into(), ..SubmitTask::default() };
//! let submitted = client.submit(&task).await?;
//! println!("{}", client.task(submitted.task_id).await?.summary.state);
//! # Ok(())
//! # }
//! ```

mod action;
mod client;
mod dead_letter;
mod error;
mod service;
mod task;
mod template;
#[cfg(test)]
mod tests;

pub use client::Client;
pub use error::Error;
