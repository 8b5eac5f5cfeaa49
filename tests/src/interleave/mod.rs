//! The orders in which transactions can meet, tried one after the other.
//!
//! Actors are real stations, each with connections of its own. A turnstile holds each before every statement; the
//! explorer lets one at a time pass, and knows from PostgreSQL when one waits for a lock. Every order with at most so many
//! preemptions is tried: switches away from an actor that could have gone on. After each, the work is brought to its
//! end, and what must hold is checked before and after.

mod explorer;
mod scene;
mod stage;
mod turnstile;

use anyhow::{Context as _, Result, bail};
use std::{
    fmt,
    time::{Duration, Instant},
};

/// Which orders are tried.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// The most preemptions of an order.
    #[arg(long, default_value_t = 3)]
    pub preemptions: usize,
    /// Only scenes with this in their name.
    #[arg(long)]
    pub scene: Option<String>,
    /// Of so many equal parts of the scenes, which one; such as 0/2.
    #[arg(long, default_value = "0/1")]
    pub part: Part,
}

/// A part of the scenes.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// Which, from 0.
    pub number: usize,
    /// Of how many.
    pub of: usize,
}

impl std::str::FromStr for Part {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('/').and_then(|(n, of)| Some((n.parse().ok()?, of.parse().ok()?)));
        match parsed {
            Some((number, of)) if number < of => Ok(Self { number, of }),
            _ => Err(format!("`{text}` is no part; expected such as 0/2")),
        }
    }
}

/// What was tried.
#[derive(Debug, Default)]
pub struct Report {
    /// Scenes.
    pub scenes: usize,
    /// Orders of statements.
    pub orders: usize,
    /// Statements that were let pass.
    pub statements: usize,
    /// Statements that waited for another actor's lock.
    pub waits: usize,
    /// How often PostgreSQL ended a transaction because two waited for each other.
    pub deadlocks: usize,
    took: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scenes, orders, statements, waits, deadlocks, took } = self;
        write!(
            f,
            "{scenes} scenes, {orders} orders, {statements} statements, {waits} waits for a lock, {deadlocks} deadlocks; {:.0} s",
            took.as_secs_f64()
        )
    }
}

/// Tries the orders of all scenes.
///
/// # Errors
/// In one of them something does not hold; the message tells the scene, the order and what.
pub async fn run(options: &Options) -> Result<Report> {
    let started = Instant::now();
    let (mut stage, mut report) = (stage::Stage::start().await?, Report::default());
    let fits = |name: &str| options.scene.as_ref().is_none_or(|part| name.contains(part));
    let scenes = scene::all().into_iter().filter(|scene| fits(scene.name)).enumerate();
    for (_, scene) in scenes.filter(|(n, _)| n % options.part.of == options.part.number) {
        report.scenes += 1;
        explorer::explore(&mut stage, &scene, options.preemptions, &mut report)
            .await
            .with_context(|| format!("scene: {}", scene.name))?;
    }
    if report.scenes == 0 {
        bail!("no scene has this in its name");
    }
    report.deadlocks = stage.close().await?;
    report.took = started.elapsed();
    Ok(report)
}
