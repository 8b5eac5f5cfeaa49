//! The handlers that a worker knows, by the name that templates call them.

use super::StepHandler;
use std::{collections::BTreeMap, fmt, sync::Arc};
use tasker_shared::step::{Failure, FailureKind};

/// Name to handler: filled once, explicitly, before the worker starts.
#[derive(Default, Clone)]
pub struct Registry {
    handlers: BTreeMap<String, Arc<dyn StepHandler>>,
}

/// The name is taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a handler named `{0}` is already registered; give one of the two another name")]
pub struct Duplicate(pub String);

impl Registry {
    /// A registry without handlers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `handler` under the name that templates call it by (`handler.callable`).
    ///
    /// # Errors
    /// [`Duplicate`] when the name is taken.
    pub fn register(&mut self, name: impl Into<String>, handler: impl StepHandler) -> Result<&mut Self, Duplicate> {
        let name = name.into();
        if self.handlers.contains_key(&name) {
            return Err(Duplicate(name));
        }
        self.handlers.insert(name, Arc::new(handler));
        Ok(self)
    }

    /// The handler of that name.
    pub fn get(&self, name: &str) -> Option<&Arc<dyn StepHandler>> {
        self.handlers.get(name)
    }

    /// Every handler.
    pub(crate) fn handlers(&self) -> impl Iterator<Item = &Arc<dyn StepHandler>> {
        self.handlers.values()
    }

    /// Every name, sorted.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.handlers.keys().map(String::as_str)
    }

    /// The name that is most like `name`, if one is.
    pub fn nearest(&self, name: &str) -> Option<&str> {
        let like = |known: &&str| strsim::jaro_winkler(&name.to_lowercase(), &known.to_lowercase());
        self.names()
            .map(|known| (like(&known), known))
            .filter(|(likeness, _)| *likeness > 0.75)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, known)| known)
    }

    /// The failure of a step whose handler this worker does not have. Another worker may have it.
    pub fn not_found(&self, name: &str) -> Failure {
        let hint = match self.nearest(name) {
            Some(near) => format!("; did you mean `{near}`?"),
            None if self.handlers.is_empty() => "; it has no handlers".to_owned(),
            None => format!("; it has {}", self.names().collect::<Vec<_>>().join(", ")),
        };
        Failure::new(FailureKind::HandlerNotFound, format!("this worker has no handler named `{name}`{hint}"))
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::{Duplicate, Registry};
    use crate::handler::{HandlerError, StepContext, handler_fn};
    use serde_json::{Value, json};
    use tasker_shared::step::FailureKind;

    async fn echo(context: StepContext) -> Result<Value, HandlerError> {
        Ok(Value::clone(&context.input))
    }

    async fn double(_: StepContext, n: u32) -> Result<u32, HandlerError> {
        Ok(n * 2)
    }

    fn registry() -> Registry {
        let mut registry = Registry::new();
        let added =
            registry.register("echo", handler_fn(echo)).and_then(|r| r.register("math.double", handler_fn(double)));
        added.expect("the names differ");
        registry
    }

    #[tokio::test]
    async fn a_handler_is_found_by_its_name() {
        let registry = registry();
        let handler = registry.get("math.double").expect("it is registered");
        assert_eq!(handler.call(StepContext::for_test(json!(21))).await.expect("it doubles"), json!(42));
        assert_eq!(registry.names().collect::<Vec<_>>(), ["echo", "math.double"]);
    }

    #[test]
    fn a_name_is_given_once() {
        let mut registry = registry();
        let refused = registry.register("echo", handler_fn(echo)).map(|_| ());
        assert_eq!(refused, Err(Duplicate("echo".to_owned())));
    }

    #[test]
    fn a_missing_handler_is_answered_with_the_nearest_name() {
        let failure = registry().not_found("math.duble");
        assert_eq!(failure.kind, FailureKind::HandlerNotFound);
        assert_eq!(failure.message, "this worker has no handler named `math.duble`; did you mean `math.double`?");
        let failure = registry().not_found("zzz");
        assert_eq!(failure.message, "this worker has no handler named `zzz`; it has echo, math.double");
    }
}
