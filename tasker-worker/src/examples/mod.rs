//! The handlers of the templates in `examples/`, as plain functions: JSON in, JSON out.

mod diamond;
mod math;
mod orders;
mod weather;

use serde_json::{Map, Value};

/// What an example's step is called with.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The task's input.
    pub input: &'a Value,
    /// The results of the steps that this one depends on, by step name.
    pub parents: &'a Map<String, Value>,
    /// The step's `handler.initialization`.
    pub initialization: &'a Map<String, Value>,
    /// 1 on the first run.
    pub attempt: u32,
}

/// Why an example's step did not give a result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failed {
    /// For people.
    pub message: String,
    /// Whether another run may go better.
    pub retryable: bool,
}

impl Failed {
    fn for_good(message: impl Into<String>) -> Self {
        Self { message: message.into(), retryable: false }
    }

    fn for_now(message: impl Into<String>) -> Self {
        Self { message: message.into(), retryable: true }
    }
}

/// An example's handler. Those of the weather report read and write files, so they block.
pub type Function = fn(&Call<'_>) -> Result<Value, Failed>;

/// Every example's handler with the name that templates call it by.
pub const ALL: &[(&str, Function)] = &[
    ("examples.square", math::square),
    ("examples.add", math::add),
    ("examples.multiply", math::multiply),
    ("examples.divide", math::divide),
    ("examples.sum", diamond::sum),
    ("examples.validate_order", orders::validate_order),
    ("examples.reserve_inventory", orders::reserve_inventory),
    ("examples.charge_payment", orders::charge_payment),
    ("examples.ship_order", orders::ship_order),
    ("examples.send_confirmation", orders::send_confirmation),
    ("examples.load_and_validate", weather::load_and_validate),
    ("examples.yearly_statistics", weather::yearly_statistics),
    ("examples.monthly_statistics", weather::monthly_statistics),
    ("examples.write_report", weather::write_report),
];

impl<'a> Call<'a> {
    /// The result of the step `name`, which this one depends on.
    fn parent(&self, name: &str) -> Result<&'a Value, Failed> {
        self.parents.get(name).ok_or_else(|| {
            Failed::for_good(format!("this step needs the result of `{name}`; add it to its dependencies"))
        })
    }

    fn input_text(&self, key: &str) -> Result<&'a str, Failed> {
        self.input[key].as_str().ok_or_else(|| Failed::for_good(format!("the input needs the text `{key}`")))
    }

    fn setting(&self, key: &str) -> Result<i64, Failed> {
        let value = self.initialization.get(key).and_then(Value::as_i64);
        value.ok_or_else(|| Failed::for_good(format!("handler.initialization needs the whole number `{key}`")))
    }
}

#[cfg(test)]
mod tests;
