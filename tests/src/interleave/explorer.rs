//! Tries the orders of one scene: depth first, each order played from the beginning.

use super::{
    Report,
    scene::Scene,
    stage::{Met, Stage},
    turnstile::{Place, Turnstile},
};
use anyhow::{Context as _, Result, ensure};
use std::{sync::Arc, time::Duration};
use tokio::{sync::Notify, time::timeout};

/// How long an actor may be on its way without waiting for a lock.
const PATIENCE: Duration = Duration::from_secs(20);

/// One moment at which somebody was let pass.
#[derive(Debug, Clone)]
struct Choice {
    /// Who could.
    able: Vec<usize>,
    who: usize,
    doing: &'static str,
}

/// Plays every order with at most so many preemptions.
pub(super) async fn explore(stage: &mut Stage, scene: &Scene, preemptions: usize, report: &mut Report) -> Result<()> {
    let mut open: Vec<Vec<usize>> = vec![Vec::new()];
    while let Some(order) = open.pop() {
        stage.set(scene).await.context("what was before")?;
        let choices = play(stage, scene, &order, report).await.with_context(|| format!("order {order:?}"))?;
        report.orders += 1;
        let told: Vec<String> = choices.iter().map(|c| format!("{}: {}", c.who, c.doing)).collect();
        stage.check(scene).await.with_context(|| format!("order: {}", told.join(", ")))?;
        for at in order.len()..choices.len() {
            let before: Vec<usize> = choices[..at].iter().map(|choice| choice.who).collect();
            for other in choices[at].able.iter().filter(|who| **who != choices[at].who) {
                let order = [before.as_slice(), &[*other]].concat();
                if preempted(&choices, &order) <= preemptions {
                    open.push(order);
                }
            }
        }
    }
    Ok(())
}

/// How often the order leaves an actor that could have gone on.
fn preempted(choices: &[Choice], order: &[usize]) -> usize {
    (1..order.len()).filter(|at| order[*at] != order[*at - 1] && choices[*at].able.contains(&order[*at - 1])).count()
}

async fn play(stage: &Stage, scene: &Scene, order: &[usize], report: &mut Report) -> Result<Vec<Choice>> {
    let (moved, stiles) = (stage.moved(), stage.turnstiles());
    let actors = stage.enter(scene);
    let mut choices: Vec<Choice> = Vec::new();
    loop {
        let able = settled(stage, &moved, stiles).await?;
        if able.is_empty() {
            if stiles.iter().all(|stile| stile.place() == Place::Ended) {
                break;
            }
            // all wait for locks; PostgreSQL ends one of them
            let _ = timeout(Duration::from_millis(5), moved.notified()).await;
            continue;
        }
        let last = choices.last().map(|choice| choice.who);
        let who = match order.get(choices.len()) {
            Some(who) if able.contains(who) => *who,
            _ => last.filter(|last| able.contains(last)).unwrap_or(able[0]),
        };
        let Place::Before(doing) = stiles[who].place() else { continue };
        report.statements += 1;
        report.waits += stiles.iter().filter(|stile| stile.place() == Place::Away).count();
        choices.push(Choice { able, who, doing });
        stiles[who].let_pass();
    }
    let mut met = Vec::new();
    for actor in actors {
        met.push(actor.await?.context("an actor failed")?);
        ensure!(!met.contains(&Met::Lost), "a deadlock: {choices:?}");
    }
    let told: Vec<_> = choices.iter().map(|choice| (choice.who, choice.doing)).collect();
    stage.check_acknowledged(scene, &met).await.with_context(|| format!("order: {told:?}"))?;
    Ok(choices)
}

/// Waits until every actor stands before a statement, waits for a lock, or has ended; answers with the first.
async fn settled(stage: &Stage, moved: &Notify, stiles: &[Arc<Turnstile>]) -> Result<Vec<usize>> {
    let settle = async {
        loop {
            let news = moved.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            let away = of(stiles, |place| place == Place::Away);
            if away.is_empty() {
                return anyhow::Ok(());
            }
            if timeout(Duration::from_millis(2), news).await.is_ok() {
                continue;
            }
            let waiting = stage.waiting_for_locks().await?;
            if of(stiles, |place| place == Place::Away).iter().all(|who| waiting.contains(who)) {
                return Ok(());
            }
        }
    };
    timeout(PATIENCE, settle).await.context("an actor neither works nor waits for a lock")??;
    Ok(of(stiles, |place| matches!(place, Place::Before(_))))
}

fn of(stiles: &[Arc<Turnstile>], is_so: impl Fn(Place) -> bool) -> Vec<usize> {
    (0..stiles.len()).filter(|who| is_so(stiles[*who].place())).collect()
}
