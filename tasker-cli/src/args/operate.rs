//! `tasker worker …`, `tasker db …` and `tasker config …`.

use clap::Subcommand;

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
}

/// Which database.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  tasker db migrate --database-url postgres://tasker@127.0.0.1/tasker")]
pub struct DbArgs {
    /// The PostgreSQL server and database [default: DATABASE_URL, else `database.url` of the configuration]
    #[arg(long, value_name = "URL")]
    pub database_url: Option<String>,
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
