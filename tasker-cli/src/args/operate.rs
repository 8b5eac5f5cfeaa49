//! `tasker worker …`, `tasker db …` and `tasker config …`.

use super::Secret;
use clap::Subcommand;
use std::time::Duration;
use tasker_shared::id::TaskId;

/// See the workers.
#[derive(Debug, Subcommand)]
pub enum WorkerCommand {
    /// List the workers that are known, and whether they live
    List,
}

/// Prepare the database and see its schema.
#[derive(Debug, Subcommand)]
pub enum DbCommand {
    /// Bring the schema to the version of this program
    Migrate(DbArgs),
    /// Say which version the schema has
    Status(DbArgs),
    /// Print the SQL of the least-privilege roles, or apply it
    Roles(RolesArgs),
    /// Remove finished tasks that are old, now; the services do so by themselves as the section `retention` says
    Prune(PruneArgs),
    /// See tasks that were archived when they were removed
    #[command(subcommand)]
    Archive(ArchiveCommand),
}

/// `tasker db roles`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  tasker db roles | psql postgres://owner@127.0.0.1/tasker
  tasker db roles --apply --database-url postgres://owner@127.0.0.1/tasker")]
pub struct RolesArgs {
    /// Apply it to the database, as a user who owns the schema and may create roles
    #[arg(long)]
    pub apply: bool,
    /// Which database.
    #[command(flatten)]
    pub database: DbArgs,
}

/// Which database.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  tasker db migrate --database-url postgres://tasker@127.0.0.1/tasker")]
pub struct DbArgs {
    /// The PostgreSQL server and database [default: DATABASE_URL, else `database.url` of the configuration]
    #[arg(long, value_name = "URL")]
    pub database_url: Option<Secret>,
}

/// Which tasks to remove.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  tasker db prune --older-than 30d --dry-run")]
pub struct PruneArgs {
    /// The database
    #[command(flatten)]
    pub database: DbArgs,
    /// How long ago complete tasks must have ended, such as 30d or 12h; tasks of templates with a `retention` go by that
    #[arg(long, value_name = "AGE", value_parser = humantime::parse_duration)]
    pub older_than: Duration,
    /// The same for tasks that failed, were cancelled or resolved by hand; without it these stay
    #[arg(long, value_name = "AGE", value_parser = humantime::parse_duration)]
    pub failed_older_than: Option<Duration>,
    /// Archive them first, also where `retention.archive` is off
    #[arg(long)]
    pub archive: bool,
    /// Only say how many there are
    #[arg(long)]
    pub dry_run: bool,
}

/// See archived tasks.
#[derive(Debug, Subcommand)]
pub enum ArchiveCommand {
    /// List the tasks that were archived last
    List {
        /// The database
        #[command(flatten)]
        database: DbArgs,
        /// Only tasks of this namespace
        #[arg(long)]
        namespace: Option<String>,
        /// The most to list
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=10_000))]
        limit: i64,
    },
    /// Show all rows of an archived task
    Show {
        /// The database
        #[command(flatten)]
        database: DbArgs,
        /// The task
        id: TaskId,
    },
}

/// See what is measured.
#[derive(Debug, Subcommand)]
pub enum MetricsCommand {
    /// List the metrics of both services, with their labels and what they tell
    List {
        /// Only metrics with this in their name
        name: Option<String>,
    },
    /// Compare what running services tell at `/metrics` with what is documented
    #[command(after_help = "\
Example:
  tasker metrics check http://127.0.0.1:8080 http://127.0.0.1:8081

Missing is what no service knows: another version, or telemetry that is off. Silent is what they know and have not
measured yet. Unexpected is what they tell and this program does not know. The exit code is 1 when something is missing,
unexpected or of another form; what the handlers' own meters tell has a scope and is only listed.")]
    Check {
        /// Where services answer; a worker and an orchestration measure different things [default: as for all commands]
        #[arg(value_name = "URL")]
        urls: Vec<String>,
        /// What is silent counts as missing
        #[arg(long)]
        strict: bool,
    },
}

/// Show and check the services' configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print the configuration that a service would run with; secrets are left out
    Show(ConfigArgs),
    /// Say whether a service would accept its configuration
    Check(ConfigArgs),
}

/// Which configuration.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ConfigArgs {
    /// The directory with the configuration files [environment: TASKER_CONFIG_ROOT] [default: built in]
    #[arg(long, value_name = "DIR")]
    pub config: Option<std::path::PathBuf>,
    /// The environment whose overlays are used [environment: TASKER_ENV] [default: development]
    #[arg(long, value_name = "NAME")]
    pub environment: Option<String>,
}
