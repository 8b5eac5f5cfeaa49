//! What a handler knows about its step, and what it can tell the worker while it runs.

use super::{HandlerError, writes::Writes};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::{
    borrow::Cow,
    collections::BTreeMap,
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};
use tasker_shared::telemetry::Scope;
use tasker_shared::{
    id::{CorrelationId, StepId, TaskId},
    name::Name,
    template::Handler,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// One attempt at one step: what was claimed, and what its handler works on.
#[derive(Debug, Clone)]
pub struct StepRun {
    /// The task.
    pub task_id: TaskId,
    /// The step.
    pub step_id: StepId,
    /// Joins the task with its traces, logs and metrics.
    pub correlation_id: CorrelationId,
    /// The namespace of the task's template.
    pub namespace: Name,
    /// The name of the task's template.
    pub task_name: Name,
    /// The step's name in the template.
    pub step_name: Name,
    /// Counts the claims of this step: 1 is the first.
    pub attempt: u32,
    /// How many attempts have failed; a lost lease is an attempt and not a failure.
    pub failures: u32,
    /// The number of failures at which the step fails for good.
    pub max_attempts: u32,
    /// The task's priority: higher goes first.
    pub priority: i16,
    /// The task's input.
    pub input: Arc<Value>,
    /// The results of the steps that this one depends on.
    pub parents: Arc<BTreeMap<Name, Value>>,
    /// The handler's name, method and initialization as the template gives them.
    pub handler: Arc<Handler>,
    /// The W3C trace context to send along with calls to other systems.
    pub traceparent: Option<String>,
}

/// How far a handler says it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// From 0 to 1.
    pub fraction: f32,
    /// For people.
    pub message: Cow<'static, str>,
    /// When the handler said so.
    pub at: Instant,
}

/// What the run of a program took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    /// The largest resident memory of one of its processes, in bytes, where it can be told.
    pub memory_bytes: Option<u64>,
    /// Processor time, user and system together.
    pub cpu_time: Duration,
}

/// A handler's view of its step, and its line to the worker. Cheap to clone.
///
/// The fields of [`StepRun`] are its own: `context.attempt`, `context.step_name`.
#[derive(Debug, Clone)]
pub struct StepContext(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    run: StepRun,
    deadline: Instant,
    cancellation: CancellationToken,
    cancel_reason: OnceLock<Cow<'static, str>>,
    progress: Mutex<Option<Progress>>,
    usage: Mutex<Option<Usage>>,
    writes: Mutex<Writes>,
    scope: Scope,
}

impl Deref for StepContext {
    type Target = StepRun;
    fn deref(&self) -> &StepRun {
        &self.0.run
    }
}

impl StepContext {
    /// The context of one run. `cancellation` must be the run's own token, such as a child of the worker's: it is
    /// cancelled at the deadline too. What the handler traces and logs belongs to `scope`.
    pub fn new(run: StepRun, deadline: Instant, cancellation: CancellationToken, scope: Scope) -> Self {
        Self(Arc::new(Shared {
            run,
            deadline,
            cancellation,
            cancel_reason: OnceLock::new(),
            progress: Mutex::default(),
            usage: Mutex::default(),
            writes: Mutex::default(),
            scope,
        }))
    }

    /// The task's input as `T`.
    ///
    /// # Errors
    /// A permanent failure that names the path where the input has another shape.
    pub fn input_as<T: DeserializeOwned>(&self) -> Result<T, HandlerError> {
        shaped(&self.input, || "the task's input".to_owned())
    }

    /// The result of the parent step `name` as `T`.
    ///
    /// # Errors
    /// A permanent failure when there is no such parent, or when its result has another shape.
    pub fn parent<T: DeserializeOwned>(&self, name: &str) -> Result<T, HandlerError> {
        let result = self.parents.get(name).ok_or_else(|| self.no_parent(name))?;
        shaped(result, || format!("the result of step `{name}`"))
    }

    fn no_parent(&self, name: &str) -> HandlerError {
        let known = self.parents.keys().map(|parent| format!("`{parent}`")).collect::<Vec<_>>().join(", ");
        let known = if known.is_empty() { "no step".to_owned() } else { known };
        HandlerError::fail(format!(
            "there is no result of step `{name}`: step `{}` depends on {known}; add it to its `dependencies`",
            self.step_name
        ))
    }

    /// The handler's `initialization` as `T`.
    ///
    /// # Errors
    /// A permanent failure that names the key which is wrong.
    pub fn initialization_as<T: DeserializeOwned>(&self) -> Result<T, HandlerError> {
        serde_path_to_error::deserialize(&self.handler.initialization)
            .map_err(|error| misshapen(&format!("the `initialization` of step `{}`", self.step_name), &error))
    }

    /// The handler's settings in the template.
    pub fn initialization(&self) -> &Map<String, Value> {
        &self.handler.initialization
    }

    /// The handler's method in the template.
    pub fn method(&self) -> Option<&str> {
        self.handler.method.as_deref()
    }

    /// When the run is stopped.
    pub fn deadline(&self) -> Instant {
        self.0.deadline
    }

    /// The time left until the deadline; zero after it.
    pub fn remaining(&self) -> Duration {
        self.0.deadline.saturating_duration_since(Instant::now())
    }

    /// Whether a failure now would be the last one.
    pub fn is_last_attempt(&self) -> bool {
        self.failures.saturating_add(1) >= self.max_attempts
    }

    /// The same text for every attempt at this step: other systems recognise a repeated call by it.
    pub fn idempotency_key(&self) -> String {
        self.step_id.to_string()
    }

    /// A text of this attempt alone.
    pub fn attempt_key(&self) -> String {
        format!("{}.{}", self.step_id, self.attempt)
    }

    /// Tells how far the handler is. Cheap: the worker sends the newest word with its next heartbeat.
    pub fn progress(&self, fraction: f32, message: impl Into<Cow<'static, str>>) {
        let fraction = if fraction.is_finite() { fraction.clamp(0.0, 1.0) } else { 0.0 };
        *lock(&self.0.progress) = Some(Progress { fraction, message: message.into(), at: Instant::now() });
    }

    /// What the handler last said about its progress.
    pub fn latest_progress(&self) -> Option<Progress> {
        lock(&self.0.progress).clone()
    }

    /// Completes when the run must stop: at the deadline, when the task is cancelled, when the worker stops.
    pub async fn cancelled(&self) {
        self.0.cancellation.cancelled().await;
    }

    /// Whether the run must stop.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancellation.is_cancelled()
    }

    /// The token behind [`cancelled`](Self::cancelled), to hand on to other code.
    pub fn cancellation(&self) -> &CancellationToken {
        &self.0.cancellation
    }

    /// Stops the run; the first reason is the one that is reported.
    pub fn cancel(&self, reason: impl Into<Cow<'static, str>>) {
        let _ = self.0.cancel_reason.set(reason.into());
        self.0.cancellation.cancel();
    }

    /// Why the run was stopped, where that was said.
    pub fn cancel_reason(&self) -> Option<&str> {
        self.0.cancel_reason.get().map(AsRef::as_ref)
    }

    /// Notes what the run of a program took, for metrics.
    pub fn record_usage(&self, usage: Usage) {
        *lock(&self.0.usage) = Some(usage);
    }

    /// What the run of a program took, if the handler ran one.
    pub fn usage(&self) -> Option<Usage> {
        *lock(&self.0.usage)
    }

    pub(super) fn writes(&self) -> MutexGuard<'_, Writes> {
        lock(&self.0.writes)
    }

    /// The scope of this run, for work on other tasks and threads: what is traced and logged in it belongs to the step.
    pub fn scope(&self) -> &Scope {
        &self.0.scope
    }
}

/// For unit tests of handlers: no database, no worker.
impl StepContext {
    /// A context with `input`, on the first of three attempts, with a minute to go.
    ///
    /// ```
    /// # use tasker_worker::handler::StepContext;
    /// # use serde_json::json;
    /// let context = StepContext::for_test(json!({"n": 6})).with_parent("double", json!(12)).with_attempt(2);
    /// assert_eq!(context.parent::<u32>("double").unwrap(), 12);
    /// ```
    pub fn for_test(input: Value) -> Self {
        let name = |text| Name::new(text).unwrap_or_else(|error| unreachable!("{error}"));
        let handler = Handler { callable: "test".to_owned(), method: None, initialization: Map::new() };
        let run = StepRun {
            task_id: TaskId::generate(),
            step_id: StepId::generate(),
            correlation_id: CorrelationId::generate(),
            namespace: name("test"),
            task_name: name("test"),
            step_name: name("step"),
            attempt: 1,
            failures: 0,
            max_attempts: 3,
            priority: 0,
            input: Arc::new(input),
            parents: Arc::default(),
            handler: Arc::new(handler),
            traceparent: None,
        };
        Self::new(run, Instant::now() + Duration::from_secs(60), CancellationToken::new(), Scope::default())
    }

    /// With the result of one more parent step.
    ///
    /// # Panics
    /// When `name` is no name of a step.
    #[must_use]
    pub fn with_parent(self, name: &str, result: Value) -> Self {
        let name = Name::new(name).unwrap_or_else(|error| panic!("{error}"));
        self.with_run(|run| {
            Arc::make_mut(&mut run.parents).insert(name, result);
        })
    }

    /// On this attempt, after as many failures as there were attempts before.
    #[must_use]
    pub fn with_attempt(self, attempt: u32) -> Self {
        self.with_run(|run| {
            run.attempt = attempt;
            run.failures = attempt.saturating_sub(1);
        })
    }

    /// With this `initialization`; anything but an object is an empty one.
    #[must_use]
    pub fn with_initialization(self, initialization: Value) -> Self {
        let initialization = if let Value::Object(map) = initialization { map } else { Map::new() };
        self.with_run(|run| Arc::make_mut(&mut run.handler).initialization = initialization)
    }

    /// With this much time to go.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self::new(self.0.run.clone(), Instant::now() + timeout, CancellationToken::new(), Scope::default())
    }

    /// With anything else about the run changed.
    #[must_use]
    pub fn with_run(self, change: impl FnOnce(&mut StepRun)) -> Self {
        let mut run = self.0.run.clone();
        change(&mut run);
        Self::new(run, self.0.deadline, CancellationToken::new(), Scope::default())
    }
}

/// `value` as `T`, or a permanent failure that says where it has another shape.
fn shaped<T: DeserializeOwned>(value: &Value, what: impl FnOnce() -> String) -> Result<T, HandlerError> {
    serde_path_to_error::deserialize(value).map_err(|error| misshapen(&what(), &error))
}

fn misshapen(what: &str, error: &serde_path_to_error::Error<serde_json::Error>) -> HandlerError {
    let path = error.path().to_string();
    let place = if path == "." { String::new() } else { format!(" at `{path}`") };
    HandlerError::fail(format!("{what} has the wrong shape{place}: {}", error.inner()))
}

/// The cells hold plain values, so a panic while one was locked leaves nothing half done.
fn lock<T>(cell: &Mutex<T>) -> MutexGuard<'_, T> {
    cell.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::StepContext;
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Debug, Deserialize)]
    struct Order {
        #[expect(dead_code, reason = "only its shape matters")]
        items: Vec<Item>,
    }

    #[derive(Debug, Deserialize)]
    struct Item {
        #[expect(dead_code, reason = "only its shape matters")]
        price: u32,
    }

    #[test]
    fn input_of_another_shape_fails_for_good_and_names_the_path() {
        let context = StepContext::for_test(json!({"items": [{"price": 1}, {"price": "two"}]}));
        let error = context.input_as::<Order>().expect_err("a price is no number");
        assert!(!error.is_retryable());
        assert_eq!(
            error.message(),
            "the task's input has the wrong shape at `items[1].price`: invalid type: string \"two\", expected u32"
        );
    }

    #[test]
    fn a_missing_parent_is_named_with_those_that_exist() {
        let context = StepContext::for_test(json!(null)).with_parent("a", json!(1)).with_parent("b", json!({"n": "x"}));
        assert_eq!(context.parent::<u8>("a").expect("it is a number"), 1);
        let error = context.parent::<u8>("c").expect_err("there is no such parent");
        assert!(error.message().contains("step `step` depends on `a`, `b`"), "{error}");
        let error = context.parent::<u8>("b").expect_err("it is an object");
        assert!(
            error.message().starts_with("the result of step `b` has the wrong shape: invalid type: map"),
            "{error}"
        );
    }

    #[test]
    fn keys_for_other_systems_are_stable_per_step_and_distinct_per_attempt() {
        let first = StepContext::for_test(json!(null));
        let second = first.clone().with_attempt(2);
        assert_eq!(first.idempotency_key(), second.idempotency_key());
        assert_ne!(first.attempt_key(), second.attempt_key());
    }

    #[test]
    fn the_newest_progress_wins_and_is_clamped() {
        let context = StepContext::for_test(json!(null));
        assert_eq!(context.latest_progress(), None);
        context.progress(0.5, "half");
        context.progress(7.0, format!("{} of 7", 7));
        let progress = context.clone().latest_progress().expect("there was progress");
        assert_eq!((progress.fraction, progress.message.as_ref()), (1.0, "7 of 7"));
    }

    #[test]
    fn the_first_reason_to_stop_is_kept() {
        let context = StepContext::for_test(json!(null));
        context.cancel("the task was cancelled");
        context.cancel("too late");
        assert!(context.is_cancelled());
        assert_eq!(context.cancel_reason(), Some("the task was cancelled"));
    }
}
