//! `tasker step …`.

use clap::Subcommand;
use tasker_shared::id::TaskId;

/// Look at single steps, and act on them.
#[derive(Debug, Subcommand)]
pub enum StepCommand {
    /// Show a step with its result, its error and its history
    Show {
        /// The task's id
        task: TaskId,
        /// The step's name
        step: String,
    },
    /// Run a failed step again; the task goes on
    Retry(StepActionArgs),
    /// Stop a step; what depends on it cannot run any more
    Cancel(StepActionArgs),
    /// Give a step its result by hand; what depends on it goes on
    Resolve(StepResolveArgs),
}

/// An action on a step.
#[derive(Debug, Clone, clap::Args)]
pub struct StepActionArgs {
    /// The task's id
    pub task: TaskId,
    /// The step's name
    pub step: String,
    /// Why; kept in the history
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Who; kept in the history [default: $USER]
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
}

/// `tasker step resolve`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  tasker step resolve ID charge --result '{\"paid\": true}' --reason 'paid by hand'
  tasker step resolve ID charge --result @charge.json")]
pub struct StepResolveArgs {
    /// Which step, why and who.
    #[command(flatten)]
    pub action: StepActionArgs,
    /// The result: JSON, @FILE, or - for standard input
    #[arg(long, value_name = "JSON")]
    pub result: String,
}
