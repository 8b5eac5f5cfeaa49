//! `tasker template …`.

use super::template_file::{self, Checked};
use crate::{
    args::{Format, GraphFormat, ImportArgs, TemplateCommand, TemplateRef},
    error::{Error, Result},
    exit::Exit,
    shell::Shell,
    view,
};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};
use tasker_client::Client;
use tasker_shared::{
    api::{Applied, ApplyTemplate, TemplateDetail},
    template::{Template, graph, parse, to_yaml, wfformat},
};

pub(super) async fn run(command: TemplateCommand, shell: &mut Shell) -> Result {
    match command {
        TemplateCommand::Apply { paths } => apply(&paths, shell).await,
        TemplateCommand::Check { paths } => check(&paths, shell),
        TemplateCommand::List => list(shell).await,
        TemplateCommand::Show { template } => show(&template, shell).await,
        TemplateCommand::Graph { template, format } => draw(&template, format, shell).await,
        TemplateCommand::Import(args) => import(args, shell).await,
    }
}

async fn apply(paths: &[PathBuf], shell: &mut Shell) -> Result {
    let files = template_file::check_all(paths, shell)?;
    let wrong: Vec<_> = files.iter().filter_map(|file| file.template.as_ref().err()).flatten().cloned().collect();
    if !wrong.is_empty() {
        return Err(
            Error::new(Exit::Failed, "template_invalid", "nothing was registered: templates are invalid").list(wrong)
        );
    }
    let client = shell.client()?;
    let (mut applied, mut refused) = (Vec::new(), Vec::new());
    for Checked { file, source, .. } in files {
        match register(&client, source, Some(&file)).await {
            Ok(done) => applied.push(done),
            Err(error) if error.exit() == Exit::Failed => refused.push((file, error)),
            Err(error) => return Err(error),
        }
    }
    let exit = if refused.is_empty() { Exit::Ok } else { Exit::Failed };
    let refusals: Vec<Value> =
        refused.iter().map(|(file, error)| json!({"file": file, "error": error.to_json()["error"]})).collect();
    shell.print(&json!({"applied": applied, "refused": refusals}), |_| {
        let refused = refused.iter().map(|(file, error)| format!("✗ {}: {error}", file.display()));
        applied.iter().map(applied_line).chain(refused).collect::<Vec<_>>().join("\n")
    })?;
    Ok(exit)
}

/// Registers all templates of files and directories, or the first that is refused says why.
///
/// # Errors
/// A file cannot be read, or a template is refused.
pub async fn register_files(client: &Client, paths: &[PathBuf], shell: &mut Shell) -> Result<()> {
    for Checked { file, source, .. } in template_file::check_all(paths, shell)? {
        register(client, source, Some(&file)).await?;
    }
    Ok(())
}

async fn register(client: &Client, source: String, file: Option<&Path>) -> Result<Applied> {
    let file = file.map(|file| file.display().to_string());
    Ok(client.apply(&ApplyTemplate { source, file }).await?)
}

fn applied_line(applied: &Applied) -> String {
    let what = if applied.changed { "registered" } else { "unchanged" };
    format!("✓ {}  {what}", view::template_name(&applied.template))
}

fn check(paths: &[PathBuf], shell: &mut Shell) -> Result {
    let files = template_file::check_all(paths, shell)?;
    let valid = files.iter().all(|file| file.template.is_ok());
    let findings: Vec<_> = files.iter().map(finding).collect();
    shell.print(&json!({"valid": valid, "files": findings}), |_| {
        files.iter().map(finding_text).collect::<Vec<_>>().join("\n")
    })?;
    Ok(if valid { Exit::Ok } else { Exit::Failed })
}

fn finding(checked: &Checked) -> Value {
    match &checked.template {
        Ok(template) => json!({
            "file": checked.file, "valid": true, "namespace": template.namespace, "name": template.name,
            "version": template.version, "steps": template.steps.len(), "errors": [],
        }),
        Err(errors) => json!({"file": checked.file, "valid": false, "errors": errors}),
    }
}

fn finding_text(checked: &Checked) -> String {
    match &checked.template {
        Ok(Template { namespace, name, version, steps, .. }) => {
            format!("✓ {}: {namespace}/{name}@{version}, {} steps", checked.file.display(), steps.len())
        }
        Err(errors) => format!("✗ {}\n  {}", checked.file.display(), errors.join("\n  ")),
    }
}

async fn list(shell: &mut Shell) -> Result {
    let list = shell.client()?.templates().await?;
    shell.print(&list, |look| view::templates(&list, look))?;
    Ok(Exit::Ok)
}

async fn show(template: &TemplateRef, shell: &mut Shell) -> Result {
    let detail = fetch(template, shell).await?;
    shell.print(&detail, |look| view::template(&detail, look))?;
    Ok(Exit::Ok)
}

async fn fetch(template: &TemplateRef, shell: &Shell) -> Result<TemplateDetail> {
    let TemplateRef { namespace, name, version } = template;
    Ok(shell.client()?.template(namespace, name, version.as_deref()).await?)
}

async fn draw(template: &str, format: GraphFormat, shell: &mut Shell) -> Result {
    let template = resolve(template, shell).await?;
    let (word, drawing) = match format {
        GraphFormat::Text => ("text", graph::text(&template)),
        GraphFormat::Mermaid => ("mermaid", graph::mermaid(&template)),
    };
    shell.print(&json!({"format": word, "graph": drawing}), |_| drawing.clone())?;
    Ok(Exit::Ok)
}

/// A file where there is one, else a registered template.
async fn resolve(template: &str, shell: &mut Shell) -> Result<Template> {
    let file = Path::new(template);
    let looks_like_a_file = file.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
    if template == "-" || looks_like_a_file || file.is_file() {
        return template_file::check(file.to_owned(), shell)?.template.map_err(|errors| {
            Error::new(Exit::Failed, "template_invalid", format!("{template} is not a valid template")).list(errors)
        });
    }
    let reference: TemplateRef = template
        .parse()
        .map_err(|reason| Error::usage(format!("`{template}` is neither a file nor a template: {reason}")))?;
    let detail = fetch(&reference, shell).await?;
    parse(&detail.source, None).map_err(|invalid| {
        let title = format!("the registered text of {reference} is not understood by this version of tasker");
        Error::new(Exit::Broken, "template_invalid", title).list(vec![invalid.to_string()])
    })
}

async fn import(args: ImportArgs, shell: &mut Shell) -> Result {
    let text = shell.read(&args.file)?;
    let template = match args.format {
        Format::Wfformat => {
            let options =
                wfformat::Options { namespace: args.namespace.to_string(), time_scale: args.time_scale, name: None };
            wfformat::import(&text, &options)
        }
    };
    let template = template.map_err(|error| {
        Error::new(Exit::Failed, "import_refused", format!("failed to import {}: {error}", args.file.display()))
    })?;
    let yaml = to_yaml(&template);
    if args.apply {
        let applied = register(&shell.client()?, yaml, Some(&args.file)).await?;
        shell.print(&applied, |_| applied_line(&applied))?;
        return Ok(Exit::Ok);
    }
    let Some(output) = args.output else {
        shell.print(&json!({"template": yaml}), |_| yaml.clone())?;
        return Ok(Exit::Ok);
    };
    fs::write(&output, &yaml)
        .map_err(|error| Error::usage(format!("failed to write {}: {error}", output.display())))?;
    shell.print(&json!({"file": output, "steps": template.steps.len()}), |_| {
        format!("{} has {} steps; register it with `tasker template apply {0}`", output.display(), template.steps.len())
    })?;
    Ok(Exit::Ok)
}
