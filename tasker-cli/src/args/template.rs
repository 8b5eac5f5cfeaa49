//! `tasker template …`.

use super::TemplateRef;
use clap::{Subcommand, ValueEnum};
use std::path::PathBuf;
use tasker_shared::name::Name;

/// Check, register, show, draw and import templates.
#[derive(Debug, Subcommand)]
pub enum TemplateCommand {
    /// Register templates in the running system
    #[command(after_help = "\
Examples:
  tasker template apply order.yaml
  tasker template apply workflows/

Directories are searched for *.yaml and *.yml. All files are checked first; nothing is registered when one is invalid.")]
    Apply {
        /// Files and directories
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
    /// Check templates here, without a service
    Check {
        /// Files and directories
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
    /// List the registered templates
    List,
    /// Show a registered template
    Show {
        /// NAMESPACE/NAME, or NAMESPACE/NAME@VERSION
        template: TemplateRef,
    },
    /// Draw a template's steps
    #[command(after_help = "\
Examples:
  tasker template graph shop/order
  tasker template graph order.yaml --format mermaid")]
    Graph {
        /// NAMESPACE/NAME, NAMESPACE/NAME@VERSION, or a file
        template: String,
        /// How to draw
        #[arg(long, value_enum, default_value_t)]
        format: GraphFormat,
    },
    /// Turn a workflow of another format into a template
    Import(ImportArgs),
}

/// How to draw.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum GraphFormat {
    /// For a terminal.
    #[default]
    Text,
    /// A Mermaid flowchart.
    Mermaid,
}

/// `tasker template import`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  tasker template import montage.json --format wfformat -o montage.yaml
  tasker template import montage.json --format wfformat --time-scale 0.01 --apply

Each task of the workflow becomes a step that sleeps for its recorded runtime times --time-scale.")]
pub struct ImportArgs {
    /// The workflow, or - for standard input
    pub file: PathBuf,
    /// Its format
    #[arg(long, value_enum)]
    pub format: Format,
    /// What the recorded runtimes are multiplied by
    #[arg(long, value_name = "NUMBER", default_value_t = 0.0, value_parser = scale)]
    pub time_scale: f64,
    /// The template's namespace
    #[arg(long, default_value = "wfformat")]
    pub namespace: Name,
    /// Write the template to this file instead of standard output
    #[arg(long, short, value_name = "FILE", conflicts_with = "apply")]
    pub output: Option<PathBuf>,
    /// Register the template in the running system
    #[arg(long)]
    pub apply: bool,
}

/// Formats that can be imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// WfFormat 1.5, as WfCommons publishes it.
    Wfformat,
}

fn scale(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number >= 0.0 => Ok(number),
        Ok(_) => Err("must be 0 or more".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
