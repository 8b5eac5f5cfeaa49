//! Tasks while they run: a picture that is redrawn on a terminal, one line per change elsewhere.

use super::{Look, frame::frame, news::Told};
use crate::error::Result;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use std::{
    collections::HashMap,
    io::{self, Write},
    time::{Duration, Instant},
};
use tasker_client::Client;
use tasker_shared::{api::TaskDetail, id::TaskId};

/// How often the service is asked.
const EVERY: Duration = Duration::from_millis(150);
/// How long a service that answered before may be away: a restart.
const AWAY: Duration = Duration::from_secs(20);
/// How many requests are open at once.
const AT_ONCE: usize = 8;

/// Shows tasks as they go on.
#[derive(Debug)]
pub struct Live {
    look: Look,
    redraws: bool,
    drawn: Vec<String>,
    told: Told,
}

impl Live {
    /// A view that has shown nothing yet. `redraws` is for terminals.
    pub fn new(look: Look, redraws: bool) -> Self {
        Self { look, redraws, drawn: Vec::new(), told: Told::default() }
    }

    /// Shows where the tasks stand now. Give the same tasks every time.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn update(&mut self, out: &mut dyn Write, tasks: &[TaskDetail]) -> io::Result<()> {
        if self.redraws { self.redraw(out, tasks) } else { self.tell(out, tasks) }
    }

    /// Shows what was held back: nothing more is asked.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn end(&mut self, out: &mut dyn Write) -> io::Result<()> {
        self.told.rest(&self.look).iter().try_for_each(|line| writeln!(out, "{line}"))?;
        out.flush()
    }

    fn redraw(&mut self, out: &mut dyn Write, tasks: &[TaskDetail]) -> io::Result<()> {
        let size = crossterm::terminal::size().ok().filter(|(columns, rows)| *columns > 0 && *rows > 1);
        let look = Look { width: size.map(|(columns, _)| usize::from(columns) - 1).or(self.look.width), ..self.look };
        let lines = frame(tasks, &look, size.map(|(_, rows)| usize::from(rows) - 1));
        if lines == self.drawn {
            return Ok(());
        }
        out.write_all(over(self.drawn.len(), &lines).as_bytes())?;
        self.drawn = lines;
        out.flush()
    }

    fn tell(&mut self, out: &mut dyn Write, tasks: &[TaskDetail]) -> io::Result<()> {
        self.told.news(tasks, &self.look).iter().try_for_each(|line| writeln!(out, "{line}"))?;
        out.flush()
    }
}

/// Writes `lines` over the last `drawn` ones, without a moment in which they are gone.
fn over(drawn: usize, lines: &[String]) -> String {
    let up = if drawn > 0 { format!("\x1b[{drawn}A\r") } else { String::new() };
    let lines: String = lines.iter().map(|line| format!("{line}\x1b[K\n")).collect();
    format!("\x1b[?2026h{up}{lines}\x1b[J\x1b[?2026l")
}

/// Why following ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Every task has ended.
    Ended,
    /// The time was over.
    Timeout,
    /// Ctrl-C.
    Interrupted,
}

/// What following came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Follow {
    /// The tasks as they were seen last, in the order asked for.
    pub tasks: Vec<TaskDetail>,
    /// Why it ended.
    pub verdict: Verdict,
}

/// Asks for the tasks until all of them have ended, `timeout` is over, or a person interrupts; shows each answer in
/// `live`. A service that goes away for a moment is waited for.
///
/// # Errors
/// When the service refuses, does not come back, or `out` cannot be written.
pub async fn follow(
    client: &Client,
    ids: &[TaskId],
    timeout: Option<Duration>,
    mut live: Option<&mut Live>,
    out: &mut dyn Write,
) -> Result<Follow> {
    let mut tasks = fetch(client, ids).await?;
    let interrupted = tokio::signal::ctrl_c();
    let over = async {
        match timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(interrupted, over);
    loop {
        if let Some(live) = &mut live {
            live.update(out, &tasks)?;
        }
        if tasks.iter().all(|task| task.summary.state.is_final()) {
            return Ok(Follow { tasks, verdict: Verdict::Ended });
        }
        let next = async {
            tokio::time::sleep(EVERY).await;
            refresh(client, &tasks).await
        };
        let verdict = tokio::select! {
            fresh = next => {
                tasks = fresh?;
                continue;
            }
            () = &mut over => Verdict::Timeout,
            _ = &mut interrupted => Verdict::Interrupted,
        };
        if let Some(live) = &mut live {
            live.end(out)?;
        }
        return Ok(Follow { tasks, verdict });
    }
}

async fn refresh(client: &Client, tasks: &[TaskDetail]) -> Result<Vec<TaskDetail>, tasker_client::Error> {
    let open: Vec<_> = tasks.iter().filter(|t| !t.summary.state.is_final()).map(|t| t.summary.task_id).collect();
    let asked = Instant::now();
    let fresh = loop {
        match fetch(client, &open).await {
            Err(tasker_client::Error::Unreachable { .. }) if asked.elapsed() < AWAY => tokio::time::sleep(EVERY).await,
            other => break other?,
        }
    };
    let mut fresh: HashMap<_, _> = fresh.into_iter().map(|task| (task.summary.task_id, task)).collect();
    Ok(tasks.iter().map(|old| fresh.remove(&old.summary.task_id).unwrap_or_else(|| old.clone())).collect())
}

async fn fetch(client: &Client, ids: &[TaskId]) -> Result<Vec<TaskDetail>, tasker_client::Error> {
    stream::iter(ids.iter().map(|id| client.task(*id))).buffered(AT_ONCE).try_collect().await
}
