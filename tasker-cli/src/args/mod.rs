//! What can be written on the command line. The doc comments here are the help texts.

mod operate;
mod run;
mod template;
mod value;

pub use operate::{
    ArchiveCommand, ConfigArgs, ConfigCommand, DbArgs, DbCommand, MetricsCommand, PruneArgs, WorkerCommand,
};
pub use run::{BenchArgs, DemoArgs, DevArgs};
pub use template::{Format, GraphFormat, ImportArgs, TemplateCommand};
pub use value::{Moment, TemplateRef};

mod dlq;
mod step;
mod task;

pub use dlq::{DlqActionArgs, DlqCommand, DlqListArgs, LimitCommand};
pub use step::{StepActionArgs, StepCommand, StepResolveArgs};
pub use task::{ActionArgs, ListArgs, SubmitArgs, TaskCommand, WatchArgs};

use crate::exit;
use clap::{Parser, Subcommand, ValueEnum};

/// Runs workflows of steps, and shows what becomes of them.
#[derive(Debug, Parser)]
#[command(name = "tasker", version, after_help = AFTER_HELP, after_long_help = after_long_help(), max_term_width = 110)]
#[command(propagate_version = true, subcommand_required = true, arg_required_else_help = true)]
pub struct Args {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What holds for every command.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Everywhere")]
pub struct Global {
    /// The orchestration service, such as http://127.0.0.1:8080 [environment: TASKER_URL]
    #[arg(long, global = true, value_name = "URL")]
    pub url: Option<String>,
    /// A connection from the profile file [environment: TASKER_PROFILE]
    #[arg(long, global = true, value_name = "NAME")]
    pub profile: Option<String>,
    /// Print one JSON object, for programs
    #[arg(long, global = true)]
    pub json: bool,
    /// When to use colours [environment: NO_COLOR]
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN", hide_possible_values = true)]
    pub color: ColorChoice,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start everything here: PostgreSQL, orchestration and a worker
    Dev(DevArgs),
    /// Run the four example workflows and show their results
    Demo(DemoArgs),
    /// Measure throughput and latency on this machine
    Bench(BenchArgs),
    /// Submit tasks, look at them, and act on them
    #[command(subcommand, visible_alias = "tasks")]
    Task(TaskCommand),
    /// Look at single steps, and act on them
    #[command(subcommand, visible_alias = "steps")]
    Step(StepCommand),
    /// Look at dead letters, and deal with them
    #[command(subcommand)]
    Dlq(DlqCommand),
    /// See and set how many steps run at once
    #[command(subcommand, visible_alias = "limits")]
    Limit(LimitCommand),
    /// Check, register, show, draw and import templates
    #[command(subcommand, visible_alias = "templates")]
    Template(TemplateCommand),
    /// See the workers
    #[command(subcommand, visible_alias = "workers")]
    Worker(WorkerCommand),
    /// Prepare the database and see its schema
    #[command(subcommand)]
    Db(DbCommand),
    /// Show and check the services' configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// See what is measured
    #[command(subcommand)]
    Metrics(MetricsCommand),
    /// Ask the service how it is
    Health,
    /// Print the completions of a shell
    #[command(after_help = "Example:\n  tasker completions bash > ~/.local/share/bash-completion/completions/tasker")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

const AFTER_HELP: &str = "\
Examples:
  tasker demo                                        see four workflows run
  tasker dev                                         the same system, which stays
  tasker template apply workflows/                   register all templates of a directory
  tasker task submit shop/order --input '{\"id\": 1}' --wait
  tasker task explain ID                             why is it not running?

`tasker help` says more: exit codes, and how the service is found.";

fn after_long_help() -> String {
    format!(
        "{}\n\n{CONNECTION}\n\n{}",
        AFTER_HELP.rsplit_once("\n\n").map_or(AFTER_HELP, |(examples, _)| examples),
        exit::help()
    )
}

const CONNECTION: &str = "\
The service is found by, in this order: --url, --profile, TASKER_URL,
TASKER_PROFILE, `default_profile` of the profile file, http://127.0.0.1:8080.
The profile file is $XDG_CONFIG_HOME/tasker/cli.toml, else
~/.config/tasker/cli.toml:

  default_profile = \"local\"

  [profiles.local]
  url = \"http://127.0.0.1:8080\"

  [profiles.production]
  url = \"https://tasker.example.com\"";

#[cfg(test)]
mod tests {
    use super::Args;
    use clap::CommandFactory;

    #[test]
    fn the_declaration_is_consistent() {
        Args::command().debug_assert();
    }
}
