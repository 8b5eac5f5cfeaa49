//! Steps that calculate with whole numbers: each takes the number of the step before it, or the task's `even_number`.

use super::{Call, Failed};
use serde_json::{Value, json};

/// The number times itself.
pub(super) fn square(call: &Call<'_>) -> Result<Value, Failed> {
    let number = number(call)?;
    result(number.checked_mul(number), format!("{number} squared"))
}

/// The number plus `operand`.
pub(super) fn add(call: &Call<'_>) -> Result<Value, Failed> {
    let (number, operand) = (number(call)?, call.setting("operand")?);
    result(number.checked_add(operand), format!("{number} + {operand}"))
}

/// The number times `operand`.
pub(super) fn multiply(call: &Call<'_>) -> Result<Value, Failed> {
    let (number, operand) = (number(call)?, call.setting("operand")?);
    result(number.checked_mul(operand), format!("{number} * {operand}"))
}

/// The number divided by `operand`, which must leave no rest.
pub(super) fn divide(call: &Call<'_>) -> Result<Value, Failed> {
    let (number, operand) = (number(call)?, call.setting("operand")?);
    match number.checked_rem(operand) {
        Some(0) => result(number.checked_div(operand), format!("{number} / {operand}")),
        Some(_) => Err(Failed::for_good(format!("{number} cannot be divided by {operand} without rest"))),
        None => Err(Failed::for_good(format!("{number} cannot be divided by {operand}"))),
    }
}

fn number(call: &Call<'_>) -> Result<i64, Failed> {
    let mut parents = call.parents.iter();
    match (parents.next(), parents.next()) {
        (None, _) => call.input["even_number"]
            .as_i64()
            .filter(|number| number % 2 == 0)
            .ok_or_else(|| Failed::for_good("the input needs the even number `even_number`")),
        (Some((name, result)), None) => value_of(name, result),
        (Some(_), Some(_)) => Err(Failed::for_good("this step takes the number of one step, not of several")),
    }
}

/// The number that step `name` gave.
pub(super) fn value_of(name: &str, result: &Value) -> Result<i64, Failed> {
    result["value"].as_i64().ok_or_else(|| Failed::for_good(format!("step `{name}` gave no whole number `value`")))
}

/// The form of every result here.
pub(super) fn result(value: Option<i64>, calculation: String) -> Result<Value, Failed> {
    let value = value.ok_or_else(|| Failed::for_good(format!("{calculation} is too large")))?;
    Ok(json!({ "value": value, "calculation": calculation }))
}
