//! Plain functions as handlers, with typed input and output.

use super::{HandlerError, StepContext, StepHandler};
use futures::future::BoxFuture;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{marker::PhantomData, sync::Arc};

/// Makes a handler of an async function: `async fn(StepContext) -> Result<O, E>`, or
/// `async fn(StepContext, I) -> Result<O, E>` where `I` is read from the task's input.
///
/// An input of another shape is a permanent failure that names the path; the function is not called then.
pub fn handler_fn<F: HandlerFn<Shape>, Shape: 'static>(function: F) -> impl StepHandler {
    FunctionHandler { function, shape: PhantomData }
}

/// Makes a handler of a function that blocks its thread: it computes for long, or waits without `await`. It runs
/// on a thread of its own.
///
/// Such a function cannot be stopped from outside: at the deadline the step fails, and the function goes on until
/// it returns. One that runs for long asks [`StepContext::is_cancelled`] from time to time.
pub fn blocking_fn<F, I, O, E>(function: F) -> impl StepHandler
where
    F: Fn(StepContext, I) -> Result<O, E> + Send + Sync + 'static,
    I: DeserializeOwned + Send + 'static,
    O: Serialize + Send + 'static,
    E: Into<HandlerError> + Send + 'static,
{
    BlockingFn { function: Arc::new(function), shape: PhantomData }
}

/// The functions that [`handler_fn`] takes. `Shape` tells their argument lists apart.
pub trait HandlerFn<Shape>: Send + Sync + 'static {
    /// Reads the input, calls the function and turns its output into JSON.
    fn run(&self, context: StepContext) -> BoxFuture<'_, Result<Value, HandlerError>>;
}

impl<F, Running, O, E> HandlerFn<fn(StepContext) -> Result<O, E>> for F
where
    F: Fn(StepContext) -> Running + Send + Sync + 'static,
    Running: Future<Output = Result<O, E>> + Send,
    O: Serialize,
    E: Into<HandlerError>,
{
    fn run(&self, context: StepContext) -> BoxFuture<'_, Result<Value, HandlerError>> {
        Box::pin(async move { output(self(context).await) })
    }
}

impl<F, Running, I, O, E> HandlerFn<fn(StepContext, I) -> Result<O, E>> for F
where
    F: Fn(StepContext, I) -> Running + Send + Sync + 'static,
    Running: Future<Output = Result<O, E>> + Send,
    I: DeserializeOwned + Send,
    O: Serialize,
    E: Into<HandlerError>,
{
    fn run(&self, context: StepContext) -> BoxFuture<'_, Result<Value, HandlerError>> {
        Box::pin(async move {
            let input = context.input_as()?;
            output(self(context, input).await)
        })
    }
}

struct FunctionHandler<F, Shape> {
    function: F,
    shape: PhantomData<fn() -> Shape>,
}

#[async_trait::async_trait]
impl<F: HandlerFn<Shape>, Shape: 'static> StepHandler for FunctionHandler<F, Shape> {
    async fn call(&self, context: StepContext) -> Result<Value, HandlerError> {
        self.function.run(context).await
    }
}

struct BlockingFn<F, I, O, E> {
    function: Arc<F>,
    shape: PhantomData<fn(I) -> Result<O, E>>,
}

#[async_trait::async_trait]
impl<F, I, O, E> StepHandler for BlockingFn<F, I, O, E>
where
    F: Fn(StepContext, I) -> Result<O, E> + Send + Sync + 'static,
    I: DeserializeOwned + Send + 'static,
    O: Serialize + Send + 'static,
    E: Into<HandlerError> + Send + 'static,
{
    async fn call(&self, context: StepContext) -> Result<Value, HandlerError> {
        let input = context.input_as()?;
        let function = Arc::clone(&self.function);
        let running = tokio::task::spawn_blocking(move || {
            let scope = context.scope().clone();
            scope.call(|| output(function(context, input)))
        });
        match running.await {
            Ok(result) => result,
            Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
            Err(_) => Err(HandlerError::retry("the worker stopped before the function began")),
        }
    }
}

fn output<O: Serialize, E: Into<HandlerError>>(result: Result<O, E>) -> Result<Value, HandlerError> {
    let output = result.map_err(Into::into)?;
    serde_json::to_value(output).map_err(|error| HandlerError::fail(format!("the result is not JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use super::{blocking_fn, handler_fn};
    use crate::handler::{HandlerError, StepContext, StepHandler};
    use serde::{Deserialize, Serialize};
    use serde_json::json;
    use std::collections::BTreeMap;

    #[derive(Deserialize)]
    struct Numbers {
        numbers: Vec<i64>,
    }

    #[derive(Serialize)]
    struct Sum {
        sum: i64,
        attempt: u32,
    }

    async fn sum(context: StepContext, input: Numbers) -> Result<Sum, HandlerError> {
        Ok(Sum { sum: input.numbers.iter().sum(), attempt: context.attempt })
    }

    #[tokio::test]
    async fn input_and_output_are_typed() {
        let context = StepContext::for_test(json!({"numbers": [1, 2, 3]})).with_attempt(2);
        assert_eq!(handler_fn(sum).call(context).await.expect("it adds up"), json!({"sum": 6, "attempt": 2}));
    }

    #[tokio::test]
    async fn a_closure_keeps_what_it_needs() {
        let factor = 7;
        let times = handler_fn(move |_: StepContext, n: i64| async move { Ok::<_, HandlerError>(n * factor) });
        assert_eq!(times.call(StepContext::for_test(json!(6))).await.expect("it multiplies"), json!(42));
    }

    #[tokio::test]
    async fn other_errors_become_retryable_failures() {
        let parse = handler_fn(|_: StepContext, text: String| async move { text.parse::<u8>() });
        let error = parse.call(StepContext::for_test(json!("x"))).await.expect_err("it is no number");
        assert!(error.is_retryable());
        assert_eq!(error.message(), "invalid digit found in string");
    }

    #[tokio::test]
    async fn input_of_another_shape_never_reaches_the_function() {
        let error =
            handler_fn(sum).call(StepContext::for_test(json!({"numbers": 5}))).await.expect_err("it is no list");
        assert!(!error.is_retryable());
        assert!(error.message().contains("at `numbers`"), "{error}");
    }

    #[tokio::test]
    async fn output_that_is_not_json_fails_for_good() {
        let odd = handler_fn(|_: StepContext| async { Ok::<_, HandlerError>(BTreeMap::from([((1, 2), 3)])) });
        let error = odd.call(StepContext::for_test(json!(null))).await.expect_err("keys are text in JSON");
        assert!(!error.is_retryable());
        assert!(error.message().starts_with("the result is not JSON"), "{error}");
    }

    #[tokio::test]
    async fn a_blocking_function_runs_on_another_thread() {
        let here = std::thread::current().id();
        let elsewhere =
            blocking_fn(move |_: StepContext, (): ()| Ok::<_, HandlerError>(std::thread::current().id() != here));
        assert_eq!(elsewhere.call(StepContext::for_test(json!(null))).await.expect("it runs"), json!(true));
    }
}
