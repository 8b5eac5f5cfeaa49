//! The story of a task.

use super::{Cell, Look, Table, Tone, duration, one_line, state};
use tasker_shared::api::{History, Transition};

/// Every transition as a table, with the time since the first.
pub fn history(history: &History, look: &Look) -> String {
    let Some(first) = history.transitions.first() else {
        return "no history".to_owned();
    };
    let mut table =
        Table::new(look, ["TIME", "AFTER", "WHAT", "FROM", "TO", "ATTEMPT", "BY", "REASON"], &["BY", "REASON"]);
    for transition in &history.transitions {
        table.row([
            look.clock.precise(transition.at).into(),
            Cell::toned(Tone::Quiet, duration(transition.at - first.at)),
            transition.step.as_deref().unwrap_or("task").into(),
            transition.from.as_deref().unwrap_or_default().into(),
            Cell::toned(tone(transition), transition.to.as_str()),
            transition.attempt.map(|attempt| attempt.to_string()).unwrap_or_default().into(),
            transition.actor.as_str().into(),
            one_line(transition.reason.as_deref().unwrap_or_default()).into(),
        ]);
    }
    table.draw()
}

fn tone(transition: &Transition) -> Tone {
    match &transition.step {
        Some(_) => transition.to.parse().map(state::step_tone).unwrap_or_default(),
        None => transition.to.parse().map(state::task_tone).unwrap_or_default(),
    }
}
