//! `tasker dev`: the whole system on this machine, until Ctrl-C.

use crate::{
    args::DevArgs,
    command::register_files,
    error::Result,
    examples,
    exit::Exit,
    local::{Local, Settings, hints},
    shell::Shell,
};
use serde_json::json;
use tasker_shared::runtime::Signals;

/// Starts PostgreSQL, orchestration and a worker, and stays until it is told to stop.
///
/// # Errors
/// What cannot be started, with what to do about it.
pub async fn run(args: DevArgs, shell: &mut Shell) -> Result {
    let shutdown = Signals::listen()?;
    let mut settings = Settings::new(args.data_dir, args.database_url)
        .with("TASKER__ORCHESTRATION__HTTP_ADDRESS", args.listen)
        .with("TASKER__WORKER__HTTP_ADDRESS", args.worker_listen);
    if let Some(concurrency) = args.concurrency {
        settings = settings.with("TASKER__WORKER__MAX_CONCURRENT_STEPS", concurrency);
    }
    settings.log = "info,sqlx=warn,sqlx_core=error,opentelemetry_sdk=warn";
    let data_dir = settings.data_dir.clone();
    let local = Local::start(settings, shutdown.clone()).await?;
    let ready = ready(&local, &args.templates, shell).await;
    if ready.is_ok() {
        let (url, pages) = (local.url(), format!("http://{}", local.worker_pages));
        let database = local.database_url.clone();
        let hint = hints(&shell.variables, &url).map(|h| format!("  {h}\n")).unwrap_or_default();
        let value = json!({ "url": url, "worker": pages, "database_url": database, "data_dir": data_dir });
        shell.print(&value, |_| {
            let database = match &database {
                Some(url) => format!("  PostgreSQL   {url}\n  data         {}\n", data_dir.display()),
                None => "  PostgreSQL   the one of DATABASE_URL\n".to_owned(),
            };
            format!(
                "Tasker is running. Ctrl-C stops it; the data stays.\n\n  HTTP API     {url}   (documentation: {url}/docs)\n  \
                 worker       {pages}/metrics\n{database}\nTry, in another terminal:\n{hint}  \
                 tasker template list\n  \
                 tasker task submit rust_e2e_linear/mathematical_sequence --input '{{\"even_number\": 6}}' --wait\n"
            )
        })?;
        tokio::select! { () = shutdown.cancelled() => {}, () = local.broken() => {} }
        shell.remark("stopping")?;
    }
    let stopped = local.stop().await;
    ready?;
    stopped?;
    Ok(Exit::Ok)
}

async fn ready(local: &Local, templates: &[std::path::PathBuf], shell: &mut Shell) -> Result<()> {
    examples::register(&local.orchestration).await?;
    if templates.is_empty() {
        return Ok(());
    }
    let client = shell.client_of(local.url())?;
    register_files(&client, templates, shell).await
}
