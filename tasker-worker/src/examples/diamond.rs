//! The step that joins the branches of a diamond.

use super::{Call, Failed, math};
use serde_json::Value;

/// The sum of the numbers of all parents.
pub(super) fn sum(call: &Call<'_>) -> Result<Value, Failed> {
    if call.parents.is_empty() {
        return Err(Failed::for_good("this step needs the numbers of other steps; add them to its dependencies"));
    }
    let mut total = Some(0i64);
    let mut terms = Vec::new();
    for (name, result) in call.parents {
        let value = math::value_of(name, result)?;
        total = total.and_then(|total| total.checked_add(value));
        terms.push(value.to_string());
    }
    math::result(total, terms.join(" + "))
}
