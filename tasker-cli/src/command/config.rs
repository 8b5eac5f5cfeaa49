//! `tasker config …`: what the services would run with.

use crate::{
    args::{ConfigArgs, ConfigCommand},
    error::{Error, Result},
    exit::Exit,
    shell::Shell,
    view,
};
use serde_json::{Value, json};
use tasker_shared::config::{self, Config, Setting, Sources};

pub(super) fn run(command: ConfigCommand, shell: &mut Shell) -> Result {
    match command {
        ConfigCommand::Show(args) => show(&args, shell),
        ConfigCommand::Check(args) => check(&args, shell),
    }
}

/// The configuration that a service would have in this shell.
///
/// # Errors
/// Exit code 2 with everything that is wrong.
pub(super) fn load(args: &ConfigArgs, shell: &Shell) -> Result<Config> {
    let mut sources = Sources { variables: shell.variables.clone().into_iter().collect() };
    if let Some(directory) = &args.config {
        sources = sources.with("TASKER_CONFIG_ROOT", &directory.display().to_string());
    }
    if let Some(environment) = &args.environment {
        sources = sources.with("TASKER_ENV", environment);
    }
    Ok(Config::load(&sources)?)
}

fn show(args: &ConfigArgs, shell: &mut Shell) -> Result {
    let config = load(args, shell)?;
    let settings: Vec<_> = config.describe().iter().map(object).collect();
    shell
        .print(&json!({"environment": config.environment, "settings": settings}), |look| view::config(&config, look))?;
    Ok(Exit::Ok)
}

fn check(args: &ConfigArgs, shell: &mut Shell) -> Result {
    let config = load(args, shell)?;
    shell.print(&json!({"valid": true, "environment": config.environment}), |_| {
        format!("✓ the configuration for the environment {} is valid", config.environment)
    })?;
    Ok(Exit::Ok)
}

fn object(setting: &Setting) -> Value {
    json!({"key": setting.key, "value": value(&setting.value), "origin": setting.origin.to_string()})
}

/// The value as JSON, from how it would be written in a file.
fn value(written: &str) -> Value {
    let table: Option<toml::Table> = toml::from_str(&format!("value = {written}")).ok();
    table.and_then(|table| serde_json::to_value(table.get("value")?).ok()).unwrap_or_else(|| written.into())
}

impl From<config::Error> for Error {
    fn from(error: config::Error) -> Self {
        let problems = error.problems.iter().map(ToString::to_string).collect();
        Self::new(Exit::Usage, "config_invalid", "the configuration is invalid").list(problems)
    }
}

#[cfg(test)]
mod tests {
    use super::value;
    use serde_json::json;

    #[test]
    fn values_keep_their_type() {
        assert_eq!(value("\"a\""), json!("a"));
        assert_eq!(value("250"), json!(250));
        assert_eq!(value("[\"a\", \"b\"]"), json!(["a", "b"]));
        assert_eq!(value("true"), json!(true));
    }
}
