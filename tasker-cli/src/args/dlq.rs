//! `tasker dlq …` and `tasker limit …`.

use super::StepActionArgs;
use clap::{
    Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use tasker_shared::{
    id::{DeadLetterId, TaskId},
    step::DeadLetterReason,
};

/// Look at dead letters, and deal with them.
#[derive(Debug, Subcommand)]
pub enum DlqCommand {
    /// List dead letters, the newest first
    List(DlqListArgs),
    /// Show a dead letter with its message and what task and step were like
    Show {
        /// The dead letter's id
        #[arg(value_name = "ID")]
        dead_letter: DeadLetterId,
    },
    /// Put the work back: run the step again, or send the message again; once only
    Redrive(DlqActionArgs),
    /// Say that it was dealt with by other means
    Resolve(DlqActionArgs),
    /// Give it up; what still waits for it fails
    Discard(DlqActionArgs),
    /// Take a step off the line as a dead letter, until it is redriven
    Park(StepActionArgs),
}

/// `tasker dlq list`.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(after_help = "\
Examples:
  tasker dlq list --open
  tasker dlq list --reason poison --namespace shop --limit 200 --json

When there are more, the last line (with --json the key `next`) gives the id for --before.")]
pub struct DlqListArgs {
    /// Only this reason
    #[arg(long, value_parser = reasons())]
    pub reason: Option<DeadLetterReason>,
    /// Only this namespace
    #[arg(long)]
    pub namespace: Option<String>,
    /// Only of this task
    #[arg(long, value_name = "ID")]
    pub task: Option<TaskId>,
    /// Only those that nobody has dealt with
    #[arg(long)]
    pub open: bool,
    /// Only those that somebody has dealt with
    #[arg(long, conflicts_with = "open")]
    pub resolved: bool,
    /// At most this many [default: 50]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: Option<u32>,
    /// Only those older than this one
    #[arg(long, value_name = "ID")]
    pub before: Option<DeadLetterId>,
}

/// An action on a dead letter.
#[derive(Debug, Clone, clap::Args)]
pub struct DlqActionArgs {
    /// The dead letter's id
    #[arg(value_name = "ID")]
    pub dead_letter: DeadLetterId,
    /// Why, or how; kept with it
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,
    /// Who; kept with it [default: $USER]
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
}

/// See and set how many steps run at once.
#[derive(Debug, Subcommand)]
pub enum LimitCommand {
    /// List the limits of operators and templates, and how much of them is used
    List,
    /// Set how many steps of a namespace, or of one of its handlers, run at once, across all workers
    #[command(after_help = "\
Examples:
  tasker limit set shop 50
  tasker limit set shop 3 --handler shop.charge --reason 'the bank asked'
  tasker limit set shop 0                              nothing new begins")]
    Set {
        /// The namespace
        namespace: String,
        /// The limit; 0 lets nothing begin
        #[arg(value_parser = clap::value_parser!(u32).range(0..=100_000))]
        max: u32,
        /// Only the steps that this handler runs
        #[arg(long, value_name = "NAME")]
        handler: Option<String>,
        /// Why; kept with the limit
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// Who; kept with the limit [default: $USER]
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
    },
    /// Remove a limit that was set
    Remove {
        /// The namespace
        namespace: String,
        /// The limit of this handler, not that of the namespace
        #[arg(long, value_name = "NAME")]
        handler: Option<String>,
        /// Who; kept in the log [default: $USER]
        #[arg(long, value_name = "NAME")]
        by: Option<String>,
    },
}

fn reasons() -> impl TypedValueParser<Value = DeadLetterReason> {
    PossibleValuesParser::new(DeadLetterReason::ALL.iter().map(|reason| reason.as_str()))
        .try_map(|word| word.parse::<DeadLetterReason>())
}
