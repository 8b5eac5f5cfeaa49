//! Dead letters, and limits on how many steps run at once.

use crate::{Client, Error};
use reqwest::Method;
use tasker_shared::{
    api::{
        Acted, Action, DeadLetter, DeadLetterFilter, DeadLetterPage, DeadLetterSummary, LimitList, LimitSummary,
        SetLimit, WhichLimit,
    },
    id::{DeadLetterId, TaskId},
};

impl Client {
    /// A page of dead letters, the newest first.
    ///
    /// # Errors
    /// [`Error::Refused`] for a limit out of range; else as the connection fails.
    pub async fn dead_letters(&self, filter: &DeadLetterFilter) -> Result<DeadLetterPage, Error> {
        self.get(&["v1", "dead-letters"]).query(filter).send().await
    }

    /// A dead letter with its message and what task and step were like.
    ///
    /// # Errors
    /// [`Error::Refused`] with status 404 when it does not exist.
    pub async fn dead_letter(&self, id: DeadLetterId) -> Result<DeadLetter, Error> {
        self.get(&["v1", "dead-letters", &id.to_string()]).send().await
    }

    /// Puts the work of a dead letter back, once.
    ///
    /// # Errors
    /// [`Error::Refused`]: status 404 when it does not exist, 409 when it was dealt with or its task has gone on.
    pub async fn redrive(&self, id: DeadLetterId, action: &Action) -> Result<DeadLetterSummary, Error> {
        self.post(&["v1", "dead-letters", &id.to_string(), "redrive"], action).send().await
    }

    /// Says that a dead letter was dealt with by other means.
    ///
    /// # Errors
    /// As [`Client::redrive`].
    pub async fn resolve_dead_letter(&self, id: DeadLetterId, action: &Action) -> Result<DeadLetterSummary, Error> {
        self.post(&["v1", "dead-letters", &id.to_string(), "resolve"], action).send().await
    }

    /// Gives a dead letter up; what still waits for it fails.
    ///
    /// # Errors
    /// As [`Client::redrive`].
    pub async fn discard(&self, id: DeadLetterId, action: &Action) -> Result<DeadLetterSummary, Error> {
        self.post(&["v1", "dead-letters", &id.to_string(), "discard"], action).send().await
    }

    /// Takes a step off the line as a dead letter.
    ///
    /// # Errors
    /// As [`Client::cancel_step`].
    pub async fn park_step(&self, task: TaskId, step: &str, action: &Action) -> Result<Acted, Error> {
        self.post(&["v1", "tasks", &task.to_string(), "steps", step, "park"], action).send().await
    }

    /// Every limit of operators and templates, and how much of it is used.
    ///
    /// # Errors
    /// As the connection fails.
    pub async fn limits(&self) -> Result<LimitList, Error> {
        self.get(&["v1", "limits"]).send().await
    }

    /// Sets how many steps of a namespace, or of one of its handlers, run at once.
    ///
    /// # Errors
    /// [`Error::Refused`]: status 404 when there is no such namespace, 422 for a limit out of range.
    pub async fn set_limit(&self, namespace: &str, limit: &SetLimit) -> Result<LimitSummary, Error> {
        self.send_json(Method::PUT, &["v1", "limits", namespace], limit).send().await
    }

    /// Removes a limit that an operator set; answers with those that are left.
    ///
    /// # Errors
    /// [`Error::Refused`] with status 404 when there is none.
    pub async fn remove_limit(&self, namespace: &str, which: &WhichLimit, action: &Action) -> Result<LimitList, Error> {
        self.send_json(Method::DELETE, &["v1", "limits", namespace], action).query(which).send().await
    }
}
