//! States as a symbol and a colour.

use super::Tone;
use tasker_shared::{step::StepState, task::TaskState};

/// One column.
pub const fn step_symbol(state: StepState) -> &'static str {
    match state {
        StepState::Pending => "·",
        StepState::Enqueued => "○",
        StepState::InProgress => "▸",
        StepState::Reported => "◆",
        StepState::WaitingForRetry => "↻",
        StepState::Complete => "✓",
        StepState::Error => "✗",
        StepState::Cancelled => "⊘",
        StepState::Skipped => "–",
        StepState::ResolvedManually => "✎",
    }
}

/// The colour.
pub const fn step_tone(state: StepState) -> Tone {
    match state {
        StepState::Pending | StepState::Enqueued | StepState::Skipped => Tone::Quiet,
        StepState::InProgress | StepState::Reported => Tone::Busy,
        StepState::WaitingForRetry | StepState::Cancelled => Tone::Warn,
        StepState::Complete | StepState::ResolvedManually => Tone::Good,
        StepState::Error => Tone::Bad,
    }
}

/// One column.
pub const fn task_symbol(state: TaskState) -> &'static str {
    match state {
        TaskState::Pending => "○",
        TaskState::InProgress => "▸",
        TaskState::Paused => "‖",
        TaskState::Complete => "✓",
        TaskState::Error => "✗",
        TaskState::Cancelled => "⊘",
        TaskState::ResolvedManually => "✎",
    }
}

/// The colour.
pub const fn task_tone(state: TaskState) -> Tone {
    match state {
        TaskState::Pending => Tone::Quiet,
        TaskState::InProgress => Tone::Busy,
        TaskState::Paused | TaskState::Cancelled => Tone::Warn,
        TaskState::Complete | TaskState::ResolvedManually => Tone::Good,
        TaskState::Error => Tone::Bad,
    }
}

#[cfg(test)]
mod tests {
    use super::{StepState, TaskState, step_symbol, task_symbol};
    use crate::view::text::width;
    use std::collections::HashSet;

    #[test]
    fn every_state_has_a_symbol_of_its_own_one_column_wide() {
        let steps: HashSet<_> = StepState::ALL.iter().map(|state| step_symbol(*state)).collect();
        let tasks: HashSet<_> = TaskState::ALL.iter().map(|state| task_symbol(*state)).collect();
        assert_eq!((steps.len(), tasks.len()), (StepState::ALL.len(), TaskState::ALL.len()));
        assert!(steps.union(&tasks).all(|symbol| width(symbol) == 1));
    }
}
