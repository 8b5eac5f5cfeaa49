//! A service that answers as tests tell it to, and a shell that remembers what was printed.

use crate::{args::Args, exit::Exit, shell::Shell, view::fixed};
use axum::{
    Json, Router,
    body::Bytes,
    http::{Method, StatusCode, Uri},
    response::IntoResponse as _,
};
use clap::Parser as _;
use serde_json::Value;
use std::{
    collections::{HashMap, VecDeque},
    io::{self, Write},
    sync::{Arc, Mutex},
};

/// What was asked for: method and path with query, and the body.
pub(crate) type Asked = (String, Value);

/// A service on a port of its own.
pub(crate) struct Stub {
    /// Where it listens.
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Stub {
    /// A service with these answers to `METHOD /path`, each with a status and a body. Several answers to one request are
    /// given one after the other; the last stays.
    pub(crate) async fn start(answers: &[(&str, u16, Value)]) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let mut table: HashMap<String, VecDeque<(u16, Value)>> = HashMap::new();
        for (request, status, body) in answers {
            table.entry((*request).to_owned()).or_default().push_back((*status, body.clone()));
        }
        let (table, seen) = (Arc::new(Mutex::new(table)), Arc::clone(&asked));
        let router = Router::new().fallback(move |method: Method, uri: Uri, body: Bytes| {
            let (table, seen) = (Arc::clone(&table), Arc::clone(&seen));
            async move {
                seen.lock()
                    .unwrap()
                    .push((format!("{method} {uri}"), serde_json::from_slice(&body).unwrap_or_default()));
                let mut table = table.lock().unwrap();
                let answers = table.entry(format!("{method} {}", uri.path())).or_default();
                let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
                let missing = || (501, Value::String(format!("the stub has no answer to {method} {uri}")));
                let (status, body) = answer.unwrap_or_else(missing);
                (StatusCode::from_u16(status).unwrap(), Json(body)).into_response()
            }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, asked }
    }

    /// What was asked for so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Runs a command against this service.
    pub(crate) async fn run(&self, words: &[&str]) -> Ran {
        run(words, &[("TASKER_URL", &self.url), ("USER", "anna")], "").await
    }
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) exit: Exit,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// The one JSON object that was printed.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Runs `tasker` with `words` in a world of its own, at the fixed time.
pub(crate) async fn run(words: &[&str], variables: &[(&str, &str)], input: &str) -> Ran {
    let args = Args::try_parse_from(std::iter::once("tasker").chain(words.iter().copied())).unwrap();
    let (out, err) = (Memory::default(), Memory::default());
    let mut shell = Shell {
        global: args.global,
        variables: variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        out: Box::new(out.clone()),
        err: Box::new(err.clone()),
        input: Box::new(io::Cursor::new(input.to_owned())),
        terminal: false,
        clock: fixed::clock(),
    };
    let exit = crate::run(args.command, &mut shell).await;
    Ran { exit, out: out.text(), err: err.text() }
}

/// A stream that is kept.
#[derive(Debug, Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Memory {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
