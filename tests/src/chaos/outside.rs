//! The service that `http` steps call: it writes down who called, and answers.

use super::{effects::Journal, worker::result};
use anyhow::Result;
use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::post,
};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// Answers on a free port of this machine, as long as the runtime lives; its address.
///
/// # Errors
/// The machine refuses.
pub async fn serve(directory: &std::path::Path) -> Result<String> {
    let journal = Arc::new(Journal::open(directory, "outside")?);
    let router = Router::new().route("/work/{ms}", post(work)).route("/refuse/{ms}", post(refuse)).with_state(journal);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(url)
}

async fn work(State(journal): State<Arc<Journal>>, Path(ms): Path<u64>, Json(step): Json<Value>) -> Answer {
    let attempt = done(&journal, ms, &step).await?;
    Ok(Json(result(attempt, &step["parents"])))
}

async fn refuse(State(journal): State<Arc<Journal>>, Path(ms): Path<u64>, Json(step): Json<Value>) -> Answer {
    done(&journal, ms, &step).await?;
    Err((StatusCode::UNPROCESSABLE_ENTITY, Json(json!({"reason": "told to refuse"}))))
}

type Answer = Result<Json<Value>, (StatusCode, Json<Value>)>;

async fn done(journal: &Journal, ms: u64, step: &Value) -> Result<u64, (StatusCode, Json<Value>)> {
    let wrong = |reason: String| (StatusCode::BAD_REQUEST, Json(json!({ "reason": reason })));
    let id = step["step"]["id"].as_str().ok_or_else(|| wrong("no step.id".to_owned()))?;
    let attempt = step["attempt"].as_u64().ok_or_else(|| wrong("no attempt".to_owned()))?;
    let write = |what| journal.write(id, attempt, what).map_err(|error| wrong(error.to_string()));
    write("begin")?;
    tokio::time::sleep(Duration::from_millis(ms)).await;
    write("end")?;
    Ok(attempt)
}
