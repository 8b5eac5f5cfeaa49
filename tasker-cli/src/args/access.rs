//! `tasker key …` and `tasker audit …`.

use super::{DbArgs, Moment};
use clap::{
    Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use std::time::Duration;
use tasker_shared::api::AuditOutcome;

/// Make, list and end API keys. They work on the database, so that the first key can be made.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make an API key; it is shown this once
    Create(CreateKeyArgs),
    /// List the API keys, also those that have ended
    List(DbArgs),
    /// End an API key
    Revoke(RevokeKeyArgs),
}

/// `tasker key create`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  tasker key create admin --permission '*' --namespace '*'
  tasker key create shop-ci --permission tasks:write --permission tasks:read --namespace shop --expires 'in 90days'
  tasker key create prometheus --permission metrics:read --namespace '*'

The permissions: tasks:read, tasks:write, tasks:operate, templates:read, templates:write, workers:read, dlq:read,
dlq:operate, limits:read, limits:write, keys:admin, audit:read, metrics:read; all of a resource, such as tasks:*; and * for everything.")]
pub struct CreateKeyArgs {
    /// Whose key it is, as histories and the audit will name it
    pub name: String,
    /// What it may do; can be given several times
    #[arg(long = "permission", value_name = "PERMISSION", required = true)]
    pub permissions: Vec<String>,
    /// Where it may, `*` for everywhere; can be given several times
    #[arg(long = "namespace", value_name = "NAMESPACE", required = true)]
    pub namespaces: Vec<String>,
    /// When it ends by itself: a time, or a delay like `in 90days` [default: never]
    #[arg(long, value_name = "TIME")]
    pub expires: Option<Moment>,
    /// Which database.
    #[command(flatten)]
    pub database: DbArgs,
}

/// `tasker key revoke`.
#[derive(Debug, Clone, clap::Args)]
pub struct RevokeKeyArgs {
    /// The key's prefix, as `tasker key list` shows it
    pub prefix: String,
    /// Which database.
    #[command(flatten)]
    pub database: DbArgs,
}

/// See what operators did.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// List what operators did and tried to do, the newest first
    List(AuditArgs),
}

/// `tasker audit list`.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(after_help = "\
Examples:
  tasker audit list --since 24h --outcome refused
  tasker audit list --principal key:shop-ci --action task.cancel --json")]
pub struct AuditArgs {
    /// Only this principal, such as key:NAME or jwt:SUBJECT
    #[arg(long, value_name = "WHO")]
    pub principal: Option<String>,
    /// Only this action, such as task.cancel
    #[arg(long, value_name = "WORD")]
    pub action: Option<String>,
    /// Only this outcome
    #[arg(long, value_parser = outcomes())]
    pub outcome: Option<AuditOutcome>,
    /// Not older than this, such as 24h
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub since: Option<Duration>,
    /// At most this many [default: 50]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: Option<u32>,
    /// Only entries before this one
    #[arg(long, value_name = "ID")]
    pub before: Option<i64>,
}

fn outcomes() -> impl TypedValueParser<Value = AuditOutcome> {
    PossibleValuesParser::new(AuditOutcome::ALL.iter().map(|outcome| outcome.as_str()))
        .try_map(|word| word.parse::<AuditOutcome>())
}
