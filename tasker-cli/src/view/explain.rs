//! Why a task is where it is.

use super::{Cell, Look, Table, one_line, plain, state};
use serde_json::Value;
use tasker_shared::api::Explanation;

/// The answer in one sentence, then for each step that is not done.
pub fn explanation(explanation: &Explanation, look: &Look) -> String {
    let tone = state::task_tone(explanation.state);
    let symbol = look.paint.paint(tone, state::task_symbol(explanation.state));
    let state = look.paint.paint(tone, explanation.state.as_str());
    let head = format!("{symbol} {state}: {}", one_line(&explanation.summary));
    if explanation.steps.is_empty() {
        return head;
    }
    let mut table = Table::new(look, ["", "STEP", "STATE", "BECAUSE"], &["BECAUSE"]);
    for step in &explanation.steps {
        let tone = state::step_tone(step.state);
        table.row([
            Cell::toned(tone, state::step_symbol(step.state)),
            step.step.as_str().into(),
            Cell::toned(tone, step.state.as_str()),
            one_line(&step.because).into(),
        ]);
    }
    format!("{head}\n\n{}", table.draw())
}

/// An error that is kept as JSON: its message where it has one.
pub(super) fn error_text(error: &Value) -> String {
    let message = error.get("message").and_then(Value::as_str).or_else(|| error.as_str());
    message.map_or_else(|| plain(&error.to_string()), plain)
}
