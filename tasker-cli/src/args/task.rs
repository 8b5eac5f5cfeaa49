//! `tasker task …`.

use super::{Moment, TemplateRef};
use clap::{
    Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use std::{path::PathBuf, time::Duration};
use tasker_shared::{
    id::{CorrelationId, TaskId},
    task::TaskState,
};

/// Submit tasks, look at them, and act on them.
#[derive(Debug, Subcommand)]
pub enum TaskCommand {
    /// Start a workflow
    Submit(Box<SubmitArgs>),
    /// List tasks, the newest first
    List(ListArgs),
    /// Show a task with its steps
    Show {
        /// The task's id
        #[arg(value_name = "ID")]
        task: TaskId,
        /// Also show every transition
        #[arg(long)]
        history: bool,
    },
    /// Follow a task until it ends
    Watch(WatchArgs),
    /// Say why a task is where it is
    Explain {
        /// The task's id
        #[arg(value_name = "ID")]
        task: TaskId,
    },
    /// Stop a task, and tell its running handlers
    Cancel(ActionArgs),
    /// Start no further step of a task; those that run may end
    Pause(ActionArgs),
    /// Let a paused task go on
    Resume(ActionArgs),
    /// Run the failed steps of a failed task again
    Retry(ActionArgs),
    /// Declare a failed task settled
    Resolve(ActionArgs),
}

/// `tasker task submit`.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(after_help = "\
Examples:
  tasker task submit shop/order --input '{\"id\": 1}' --wait
  tasker task submit shop/order@1.2.0 --input @order.json --key order-1
  tasker task submit shop/report --run-at 'in 10m' --tag nightly --tag eu
  tasker task submit --file tasks.jsonl

In a file for --file each line is a JSON object like the body of POST /v1/tasks:
  {\"namespace\": \"shop\", \"name\": \"order\", \"input\": {\"id\": 1}}

With --wait, Ctrl-C stops the waiting, not the task; the exit code is 0 when every task completes, 1 when one does not.")]
pub struct SubmitArgs {
    /// The template: NAMESPACE/NAME, or NAMESPACE/NAME@VERSION
    #[arg(required_unless_present = "file")]
    pub template: Option<TemplateRef>,
    /// The input: JSON, @FILE, or - for standard input
    #[arg(long, short, value_name = "JSON")]
    pub input: Option<String>,
    /// Many tasks at once: a file with one JSON object in each line, or - for standard input
    #[arg(long, short, value_name = "FILE", conflicts_with_all = ["template", "input", "key", "priority", "tags", "run_at",
        "correlation_id", "parent_correlation_id", "traceparent", "initiator", "source_system", "reason"])]
    pub file: Option<PathBuf>,
    /// Follow the task until it ends
    #[arg(long, short)]
    pub wait: bool,
    /// Stop waiting after this time, such as 90s or 5m; the task goes on
    #[arg(long, value_name = "TIME", requires = "wait", value_parser = humantime::parse_duration)]
    pub timeout: Option<Duration>,
    /// Higher goes first: -100 to 100
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, value_parser = clap::value_parser!(i16).range(-100..=100))]
    pub priority: Option<i16>,
    /// A word to find the task by; may be given several times
    #[arg(long = "tag", value_name = "WORD")]
    pub tags: Vec<String>,
    /// Not before this time: RFC 3339, or a delay like 'in 10m'
    #[arg(long, value_name = "TIME")]
    pub run_at: Option<Moment>,
    /// A repeat with the same key answers with the task of this template that exists, whatever its version and input
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// The id that joins the task with its traces, logs and metrics
    #[arg(long, value_name = "ID")]
    pub correlation_id: Option<CorrelationId>,
    /// The correlation id of the work that caused this task
    #[arg(long, value_name = "ID")]
    pub parent_correlation_id: Option<CorrelationId>,
    /// The W3C trace context of the caller
    #[arg(long, value_name = "CONTEXT")]
    pub traceparent: Option<String>,
    /// Who asks
    #[arg(long, value_name = "NAME")]
    pub initiator: Option<String>,
    /// Which system asks
    #[arg(long, value_name = "NAME")]
    pub source_system: Option<String>,
    /// Why
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// `tasker task list`.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(after_help = "\
Examples:
  tasker task list --state error --namespace shop
  tasker task list --tag nightly --limit 200 --json

When there are more, the last line (with --json the key `next`) gives the id for --before.")]
pub struct ListArgs {
    /// Only this state
    #[arg(long, value_parser = states())]
    pub state: Option<TaskState>,
    /// Only this namespace
    #[arg(long)]
    pub namespace: Option<String>,
    /// Only templates of this name
    #[arg(long)]
    pub name: Option<String>,
    /// Only tasks with this tag
    #[arg(long, value_name = "WORD")]
    pub tag: Option<String>,
    /// Only tasks of this correlation id
    #[arg(long, value_name = "ID")]
    pub correlation_id: Option<CorrelationId>,
    /// At most this many [default: 50]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: Option<u32>,
    /// Only tasks older than this one
    #[arg(long, value_name = "ID")]
    pub before: Option<TaskId>,
}

/// `tasker task watch`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
On a terminal the view is redrawn; else each change of state is one line.
Ctrl-C stops the watching, not the task. The exit code is 0 when the task completes, 1 when it does not.")]
pub struct WatchArgs {
    /// The task's id
    #[arg(value_name = "ID")]
    pub task: TaskId,
    /// Stop watching after this time, such as 90s or 5m; the task goes on
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub timeout: Option<Duration>,
}

/// An action on a task.
#[derive(Debug, Clone, clap::Args)]
pub struct ActionArgs {
    /// The task's id
    #[arg(value_name = "ID")]
    pub task: TaskId,
    /// Why; kept in the history
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Who; kept in the history [default: $USER]
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
}

fn states() -> impl TypedValueParser<Value = TaskState> {
    PossibleValuesParser::new(TaskState::ALL.iter().map(|state| state.as_str()))
        .try_map(|word| word.parse::<TaskState>())
}
