//! A handler that does what the test says: each of its calls waits until the test answers it.

use crate::system::PATIENCE;
use serde_json::Value;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};
use tasker_worker::{HandlerError, StepContext, handler::StepHandler};
use tokio::sync::{Semaphore, oneshot};

type Answer = Result<Value, HandlerError>;

/// Holds every call until the test answers it; cheap to clone, and each clone is a handler of the same gate.
#[derive(Debug, Clone)]
pub struct Gate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    calls: Mutex<VecDeque<Call>>,
    /// One permit for each call that nobody has taken.
    waiting: Semaphore,
}

/// A handler that runs. It fails once this is dropped without an answer.
#[must_use = "a handler whose call is dropped fails, and its step is tried again"]
#[derive(Debug)]
pub struct Call {
    /// What it was called with.
    pub context: StepContext,
    answer: oneshot::Sender<Answer>,
}

impl Call {
    /// The name of its step.
    pub fn step(&self) -> &str {
        &self.context.step_name
    }

    /// Lets the handler return this.
    pub fn succeed(self, result: Value) {
        self.answer(Ok(result));
    }

    /// Lets the handler fail with this.
    pub fn fail(self, error: HandlerError) {
        self.answer(Err(error));
    }

    fn answer(self, answer: Answer) {
        // a handler that was dropped needs no answer
        let _ = self.answer.send(answer);
    }
}

impl Gate {
    /// A gate that nobody has reached.
    #[expect(clippy::new_without_default, reason = "a gate is made on purpose")]
    pub fn new() -> Self {
        Self(Arc::new(Inner { calls: Mutex::default(), waiting: Semaphore::new(0) }))
    }

    /// The next call, in the order of arrival.
    ///
    /// # Panics
    /// When none comes in time.
    pub async fn next(&self) -> Call {
        let waited = tokio::time::timeout(PATIENCE, self.0.waiting.acquire()).await;
        waited.expect("a handler is called in time").expect("the gate stays open").forget();
        self.calls().pop_front().expect("each permit stands for a call")
    }

    /// The next `n` calls, by the name of their step.
    pub async fn take(&self, n: usize) -> Vec<Call> {
        let mut calls = Vec::with_capacity(n);
        for _ in 0..n {
            calls.push(self.next().await);
        }
        calls.sort_by(|a, b| a.step().cmp(b.step()));
        calls
    }

    /// How many calls nobody has taken.
    pub fn waiting(&self) -> usize {
        self.0.waiting.available_permits()
    }

    fn calls(&self) -> std::sync::MutexGuard<'_, VecDeque<Call>> {
        self.0.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait::async_trait]
impl StepHandler for Gate {
    async fn call(&self, context: StepContext) -> Answer {
        let (answer, answered) = oneshot::channel();
        self.calls().push_back(Call { context: context.clone(), answer });
        self.0.waiting.add_permits(1);
        tokio::select! {
            answer = answered => answer.unwrap_or_else(|_| Err(HandlerError::retry("the test dropped the call"))),
            () = context.cancelled() => Err(HandlerError::retry("the handler was told to stop")),
        }
    }
}
