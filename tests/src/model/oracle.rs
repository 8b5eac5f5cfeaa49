//! The reference: what tasks, steps, queues, timers and leases are to do, said as simply as possible.
//!
//! Nothing here is fast, shared or clever, and nothing is taken from the services: counters are counted, readiness is
//! looked up in the graph, and time is a number that grows with each operation.

use super::{
    operation::{Outcome, Queue, StepAction, Submit, TaskAction, Turn},
    shape::Shape,
};
use tasker_shared::{step::StepState as S, task::TaskState as T};

/// A place in the line before which nothing that was sent lies: released and hastened messages go there.
const FRONT: i64 = -200 * 60_000;

#[derive(Debug, Clone)]
pub(super) struct Oracle {
    pub(super) shapes: Vec<Shape>,
    pub(super) tasks: Vec<Task>,
    pub(super) messages: Vec<Message>,
    pub(super) timers: Vec<Timer>,
    /// Every claim that ever was.
    pub(super) runs: Vec<Run>,
    pub(super) dead: Vec<String>,
    now: i64,
}

#[derive(Debug, Clone)]
pub(super) struct Task {
    pub(super) shape: usize,
    key: Option<usize>,
    bad: bool,
    priority: i16,
    /// Its start is still to come.
    later: bool,
    pub(super) state: T,
    pub(super) steps: Vec<Step>,
    pub(super) history: Vec<(Option<T>, T)>,
}

#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) state: S,
    pub(super) attempt: i32,
    pub(super) failures: u32,
    pub(super) history: Vec<(S, S, i32)>,
    reported: Option<Outcome>,
    /// Its back-off is over.
    rested: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Message {
    pub(super) queue: Queue,
    pub(super) about: About,
    pub(super) read: i32,
    pub(super) visible: bool,
    /// When it is read: before all messages with a larger number.
    rank: i64,
    /// Its number in the real queue, once a claim has shown it.
    pub(super) id: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum About {
    Step { task: usize, step: usize },
    Outcome { task: usize, step: usize, attempt: i32 },
    Task(usize),
    Nothing,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Timer {
    pub(super) task: usize,
    pub(super) of: Of,
    pub(super) due: bool,
    /// Its task is paused.
    pub(super) held: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    Start,
    Retry(usize),
    Deadline,
}

impl About {
    fn is_like(self, other: Self) -> bool {
        match (self, other) {
            (Self::Outcome { task, step, .. }, Self::Outcome { task: of, step: other, .. }) => {
                (task, step) == (of, other)
            }
            _ => self == other,
        }
    }
}

/// One claim of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) task: usize,
    pub(crate) step: usize,
    pub(crate) attempt: i32,
    pub(crate) message: i64,
}

/// A message as a claim will read it: its number, what it is about, and how often it was read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Visible {
    pub(super) id: i64,
    pub(super) about: About,
    pub(super) read: i32,
}

/// What an operation answers.
pub(super) type Answer = Result<String, &'static str>;

const ILLEGAL: Answer = Err("illegal");
const UNKNOWN: Answer = Err("not found");

impl Oracle {
    pub(super) fn new(shapes: Vec<Shape>) -> Self {
        let (tasks, messages, timers) = (Vec::new(), Vec::new(), Vec::new());
        Self { shapes, tasks, messages, timers, runs: Vec::new(), dead: Vec::new(), now: 0 }
    }

    /// Time goes on.
    pub(super) const fn tick(&mut self) {
        self.now += 1;
    }

    pub(super) fn submit(&mut self, submit: &Submit) -> Answer {
        let shape = submit.template % self.shapes.len();
        let refused = submit.bad && !submit.by_sql;
        // the key decides, whatever the version; a refused input is a repeat of one that was taken, by SQL
        let same = |task: &Task| submit.key.is_some() && task.key == submit.key && task.shape == shape;
        match self.tasks.iter().position(same) {
            Some(existing) if !refused || self.tasks[existing].bad => return Ok(format!("t{existing}")),
            _ if refused => return Err("refused"),
            _ => {}
        }
        let task = self.tasks.len();
        self.tasks.push(Task {
            shape,
            key: submit.key,
            bad: submit.bad,
            priority: submit.priority,
            later: submit.delayed,
            state: T::Pending,
            steps: Vec::new(),
            history: vec![(None, T::Pending)],
        });
        if submit.by_sql {
            self.send(Queue::Requests, About::Task(task), 0);
        } else if submit.delayed {
            self.timers.push(Timer { task, of: Of::Start, due: false, held: false });
        } else {
            self.initialize(task);
        }
        Ok(format!("t{task}"))
    }

    /// The steps of a pending task come to be, unless its input is refused.
    fn initialize(&mut self, task: usize) {
        if self.tasks[task].bad {
            return self.end(task, T::Error);
        }
        let shape = self.shapes[self.tasks[task].shape].clone();
        self.move_task(task, T::InProgress);
        let new =
            Step { state: S::Pending, attempt: 0, failures: 0, history: Vec::new(), reported: None, rested: false };
        self.tasks[task].steps = vec![new; shape.steps.len()];
        if shape.deadline {
            self.timers.push(Timer { task, of: Of::Deadline, due: false, held: false });
        }
        self.enqueue_ready(task);
    }

    /// Reads these messages of the queue of steps, which stand in the order of their numbers.
    pub(super) fn claim(&mut self, limit: usize, read: &[Visible]) -> Result<String, String> {
        let places = self.places(limit, read)?;
        let chosen: Vec<Message> = places.iter().map(|place| self.messages[*place].clone()).collect();
        let mut gone = Vec::new();
        let mut answer = Vec::new();
        let (mut claims, mut withdrawals) = (Vec::new(), Vec::new());
        for (n, message) in chosen.iter().enumerate() {
            let best = |other: &Message| (-other.read, other.id);
            let About::Step { task, step } = message.about else {
                self.dead.push("unreadable worker_model".to_owned());
                gone.push(places[n]);
                continue;
            };
            let better = |other: &Message| other.about == message.about && best(other) < best(message);
            let (state, of_task) = (self.tasks[task].steps[step].state, self.tasks[task].state);
            let is_copy = chosen.iter().any(better) || state == S::InProgress && message.read == 0;
            match state {
                _ if is_copy => gone.push(places[n]),
                S::Enqueued if of_task == T::Paused => {
                    withdrawals.push((task, step));
                    gone.push(places[n]);
                }
                S::Enqueued if of_task != T::InProgress => gone.push(places[n]),
                S::Enqueued | S::InProgress => claims.push((places[n], task, step)),
                _ => gone.push(places[n]),
            }
        }
        for (place, task, step) in claims {
            self.tasks[task].steps[step].attempt += 1;
            self.move_step(task, step, S::InProgress);
            let attempt = self.tasks[task].steps[step].attempt;
            let message = &mut self.messages[place];
            (message.read, message.visible) = (message.read + 1, false);
            self.runs.push(Run { task, step, attempt, message: message.id.unwrap_or_default() });
            answer.push(format!("t{task}.s{step}@{attempt}"));
        }
        for (task, step) in withdrawals {
            self.move_step(task, step, S::Pending);
        }
        self.remove(gone);
        answer.sort();
        Ok(answer.join(" "))
    }

    /// Where the read messages stand here; an error when the queue must not be read in this order.
    fn places(&mut self, limit: usize, read: &[Visible]) -> Result<Vec<usize>, String> {
        let visible = |message: &Message| message.queue == Queue::Steps && message.visible;
        let all = self.messages.iter().filter(|message| visible(message)).count();
        if read.len() != limit.min(all) {
            return Err(format!("{} messages can be read, not {}", limit.min(all), read.len()));
        }
        let mut places: Vec<usize> = Vec::new();
        for real in read {
            let is_it = |(place, message): &(usize, &Message)| {
                visible(message)
                    && !places.contains(place)
                    && (message.about, message.read) == (real.about, real.read)
                    && message.id.is_none_or(|id| id == real.id)
            };
            let found = self.messages.iter().enumerate().filter(is_it);
            let Some((place, _)) = found.min_by_key(|(_, message)| (message.id.is_none(), message.rank)) else {
                return Err(format!("no such message: {real:?}"));
            };
            self.messages[place].id = Some(real.id);
            places.push(place);
        }
        let last = places.iter().map(|place| self.messages[*place].rank).max();
        let left = |(place, message): &(usize, &Message)| visible(message) && !places.contains(place);
        let first = self.messages.iter().enumerate().filter(left).map(|(_, message)| message.rank).min();
        match (last, first) {
            (Some(last), Some(first)) if first < last => Err(format!("rank {first} waits, and rank {last} is read")),
            _ => Ok(places),
        }
    }

    pub(super) fn report(&mut self, run: Run, outcome: Outcome) -> Answer {
        let step = &mut self.tasks[run.task].steps[run.step];
        let ours = step.attempt == run.attempt;
        let accepted = ours && step.state == S::InProgress;
        if accepted {
            step.reported = Some(outcome);
            self.move_step(run.task, run.step, S::Reported);
            let about = About::Outcome { task: run.task, step: run.step, attempt: run.attempt };
            self.send(Queue::Results, about, 0);
        }
        if accepted || ours && self.tasks[run.task].steps[run.step].state.is_final() {
            self.messages.retain(|message| message.id != Some(run.message));
        }
        Ok(if accepted { "accepted" } else { "late" }.to_owned())
    }

    fn is_held(&self, run: Run) -> bool {
        let step = &self.tasks[run.task].steps[run.step];
        step.state == S::InProgress && step.attempt == run.attempt
    }

    pub(super) fn extend(&mut self, run: Run) -> Answer {
        let held = self.is_held(run);
        let lease = self.messages.iter_mut().find(|message| message.id == Some(run.message));
        Ok(match lease.filter(|_| held) {
            Some(lease) => {
                lease.visible = false;
                "ours"
            }
            None => "lost",
        }
        .to_owned())
    }

    pub(super) fn release(&mut self, run: Run) -> Answer {
        if !self.is_held(run) {
            return Ok("lost".to_owned());
        }
        self.move_step(run.task, run.step, S::Enqueued);
        let front = FRONT + self.now;
        for lease in self.messages.iter_mut().filter(|message| message.id == Some(run.message)) {
            (lease.visible, lease.read, lease.rank) = (true, (lease.read - 1).max(1), front);
        }
        Ok("ours".to_owned())
    }

    pub(super) fn expire(&mut self, message: usize) {
        let now = self.now;
        let message = &mut self.messages[message];
        (message.visible, message.rank) = (true, now);
    }

    pub(super) fn turn(&mut self, turn: Turn) -> Answer {
        match turn {
            Turn::Process => self.process(),
            Turn::Initialize => self.requests(),
            Turn::Timers => self.fire(),
            Turn::ExpiredLeases => self.hasten(),
            Turn::Repair => {
                self.stall();
                (0..self.tasks.len()).for_each(|task| self.repair(task));
            }
        }
        Ok(String::new())
    }

    fn take(&mut self, queue: Queue) -> Vec<About> {
        let (taken, left) = self.messages.drain(..).partition(|message: &Message| message.queue == queue);
        self.messages = left;
        let mut all = Vec::new();
        for message in taken {
            if message.about == About::Nothing {
                self.dead.push(format!("unreadable {}", queue.name()));
            } else if !all.contains(&message.about) {
                all.push(message.about);
            }
        }
        all
    }

    fn process(&mut self) {
        let mut touched = Vec::new();
        for about in self.take(Queue::Results) {
            let About::Outcome { task, step, attempt } = about else { continue };
            let reported = &self.tasks[task].steps[step];
            if reported.state == S::Reported && reported.attempt == attempt {
                self.judge(task, step);
                touched.push(task);
            }
        }
        for task in touched {
            self.enqueue_ready(task);
            self.finalize(task);
        }
    }

    /// The outcome of a step becomes its fate.
    fn judge(&mut self, task: usize, step: usize) {
        let policy = self.shapes[self.tasks[task].shape].steps[step].clone();
        let paused = self.tasks[task].state == T::Paused;
        let it = &mut self.tasks[task].steps[step];
        let outcome = it.reported.unwrap_or(Outcome::Success);
        if outcome == Outcome::Success {
            return self.move_step(task, step, S::Complete);
        }
        let tried = outcome != Outcome::NotTried;
        it.failures += u32::from(tried);
        let hopeless = matches!(outcome, Outcome::Permanent | Outcome::Poison);
        if tried && (hopeless || !policy.retryable || it.failures >= policy.max_attempts) {
            if outcome == Outcome::Poison {
                self.dead.push("poison worker_model".to_owned());
            }
            return self.move_step(task, step, S::Error);
        }
        it.rested = !matches!(outcome, Outcome::RetryLater | Outcome::NotTried);
        let due = it.rested;
        self.timers.push(Timer { task, of: Of::Retry(step), due, held: paused });
        self.move_step(task, step, S::WaitingForRetry);
    }

    fn requests(&mut self) {
        for about in self.take(Queue::Requests) {
            let About::Task(task) = about else { continue };
            if self.tasks[task].state != T::Pending {
                continue;
            }
            if self.tasks[task].later && !self.tasks[task].bad {
                if !self.timers.iter().any(|timer| timer.task == task && timer.of == Of::Start) {
                    self.timers.push(Timer { task, of: Of::Start, due: false, held: false });
                }
            } else {
                self.initialize(task);
            }
        }
    }

    fn fire(&mut self) {
        let (due, left) = self.timers.drain(..).partition(|timer: &Timer| timer.due && !timer.held);
        self.timers = left;
        let due: Vec<Timer> = due;
        for timer in &due {
            if timer.of == Of::Start && self.tasks[timer.task].state == T::Pending {
                self.initialize(timer.task);
            }
        }
        for timer in &due {
            if let Of::Retry(step) = timer.of
                && self.tasks[timer.task].state == T::InProgress
                && self.tasks[timer.task].steps[step].state == S::WaitingForRetry
            {
                self.enqueue(timer.task, step);
            }
        }
        for timer in &due {
            if timer.of == Of::Deadline && !self.tasks[timer.task].state.is_final() {
                self.stop(timer.task);
                self.end(timer.task, T::Error);
            }
        }
    }

    /// Leases that ran out come first, in their order. A message with another priority may lie further back than they are looked for.
    fn hasten(&mut self) {
        let fresh = self.now - 100 * 60_000;
        let lapsed = |message: &&mut Message| {
            message.queue == Queue::Steps && message.visible && message.read > 0 && message.rank > fresh
        };
        self.messages.iter_mut().filter(lapsed).for_each(|message| message.rank += FRONT);
    }

    /// Claimed steps whose lease ran out, and that nobody took, go back to their queue before all others.
    fn stall(&mut self) {
        for index in 0..self.messages.len() {
            let message = self.messages[index].clone();
            let About::Step { task, step } = message.about else { continue };
            let of_step = |other: &&Message| other.queue == Queue::Steps && other.about == message.about;
            let leased = self.messages.iter().filter(of_step).any(|other| !other.visible);
            let is_open = !self.tasks[task].state.is_final();
            if is_open && self.tasks[task].steps[step].state == S::InProgress && message.read > 0 && !leased {
                self.move_step(task, step, S::Enqueued);
                self.messages[index].rank = FRONT + self.now;
            }
        }
    }

    /// What a task lacks is made again.
    fn repair(&mut self, task: usize) {
        let state = self.tasks[task].state;
        // an outcome of an earlier attempt is good enough: when it is taken, the next look finds what is missing
        let rings = |oracle: &Self, of: About| oracle.messages.iter().any(|message| message.about.is_like(of));
        let ticks = |oracle: &Self, of: Of| oracle.timers.iter().any(|timer| timer.task == task && timer.of == of);
        if state == T::Pending && !ticks(self, Of::Start) && !rings(self, About::Task(task)) {
            if self.tasks[task].later {
                self.timers.push(Timer { task, of: Of::Start, due: false, held: false });
            } else {
                self.send(Queue::Requests, About::Task(task), 0);
            }
        }
        if state.is_final() {
            return;
        }
        let reopened = self.tasks[task].history.iter().any(|(from, _)| *from == Some(T::Error));
        let is_limited = self.shapes[self.tasks[task].shape].deadline && !reopened;
        if state != T::Pending && is_limited && !ticks(self, Of::Deadline) {
            self.timers.push(Timer { task, of: Of::Deadline, due: false, held: false });
        }
        for step in 0..self.tasks[task].steps.len() {
            let it = self.tasks[task].steps[step].clone();
            let outcome = About::Outcome { task, step, attempt: it.attempt };
            match it.state {
                S::Reported if !rings(self, outcome) => self.send(Queue::Results, outcome, 0),
                S::WaitingForRetry if !ticks(self, Of::Retry(step)) => {
                    let held = state == T::Paused;
                    self.timers.push(Timer { task, of: Of::Retry(step), due: it.rested, held });
                }
                S::Enqueued | S::InProgress if !rings(self, About::Step { task, step }) => {
                    if it.state == S::InProgress {
                        self.move_step(task, step, S::Enqueued);
                    }
                    self.send(Queue::Steps, About::Step { task, step }, 0);
                }
                _ => {}
            }
        }
    }

    pub(super) fn due(&mut self, timer: usize) {
        let (task, of) = (self.timers[timer].task, self.timers[timer].of);
        self.timers[timer].due = true;
        match of {
            Of::Start => self.tasks[task].later = false,
            Of::Retry(step) => self.tasks[task].steps[step].rested = true,
            Of::Deadline => {}
        }
    }

    pub(super) fn operate(&mut self, task: usize, action: TaskAction) -> Answer {
        match (action, self.tasks[task].state) {
            (TaskAction::Cancel, T::Pending | T::InProgress | T::Paused) => {
                self.stop(task);
                self.end(task, T::Cancelled);
            }
            (TaskAction::Pause, T::InProgress) => {
                self.move_task(task, T::Paused);
                self.hold(task, true);
            }
            (TaskAction::Resume, T::Paused) => {
                self.move_task(task, T::InProgress);
                self.hold(task, false);
                self.enqueue_ready(task);
            }
            (TaskAction::Retry, T::Error) => {
                let steps = &self.tasks[task].steps;
                let failed: Vec<usize> = (0..steps.len()).filter(|step| steps[*step].state == S::Error).collect();
                if failed.is_empty() {
                    return ILLEGAL;
                }
                failed.into_iter().for_each(|step| self.reopen(task, step));
                self.move_task(task, T::InProgress);
            }
            (TaskAction::Resolve, T::Error) => self.end(task, T::ResolvedManually),
            _ => return ILLEGAL,
        }
        Ok(self.tasks[task].state.to_string())
    }

    pub(super) fn operate_step(&mut self, task: usize, step: usize, action: StepAction) -> Answer {
        let state = self.tasks[task].state;
        let stops = matches!(action, StepAction::Cancel | StepAction::Park);
        if state.is_final() && (state != T::Error || stops && !self.tasks[task].steps.is_empty()) {
            return ILLEGAL;
        }
        let Some(it) = self.tasks[task].steps.get(step) else { return UNKNOWN };
        match (action, it.state) {
            (StepAction::Retry, S::Error) => self.reopen(task, step),
            (StepAction::Cancel, _) if !it.state.is_final() => self.stop_step(task, step, S::Cancelled),
            (StepAction::Park, S::Enqueued | S::InProgress | S::WaitingForRetry) => {
                self.messages
                    .retain(|message| message.queue != Queue::Steps || message.about != About::Step { task, step });
                self.stop_step(task, step, S::Error);
                self.dead.push("manual worker_model".to_owned());
            }
            (StepAction::Resolve, S::Pending | S::Enqueued | S::InProgress | S::WaitingForRetry | S::Error) => {
                self.stop_step(task, step, S::ResolvedManually);
            }
            _ => return ILLEGAL,
        }
        if state == T::Error {
            self.move_task(task, T::InProgress);
        }
        self.enqueue_ready(task);
        self.finalize(task);
        Ok(self.tasks[task].state.to_string())
    }

    /// Of the messages that look like this one, the first that is read.
    pub(super) fn first_like(&self, message: usize) -> usize {
        let it = &self.messages[message];
        let like = |other: &Message| {
            (other.queue, other.about, other.read, other.visible) == (it.queue, it.about, it.read, it.visible)
        };
        let all = (0..self.messages.len()).filter(|other| like(&self.messages[*other]));
        all.min_by_key(|other| self.messages[*other].rank).unwrap_or(message)
    }

    pub(super) fn duplicate(&mut self, message: usize) {
        let Message { queue, about, .. } = self.messages[message];
        let rank = self.now;
        self.messages.push(Message { queue, about, read: 0, visible: true, rank, id: None });
    }

    pub(super) fn lose(&mut self, message: usize) {
        self.messages.remove(message);
    }

    pub(super) fn lose_timer(&mut self, timer: usize) {
        self.timers.remove(timer);
    }

    pub(super) fn garbage(&mut self, queue: Queue) {
        self.send(queue, About::Nothing, 0);
    }

    /// How many parents of a step are not done.
    pub(super) fn waiting_on(&self, task: usize, step: usize) -> usize {
        let steps = &self.tasks[task].steps;
        let parents = &self.shapes[self.tasks[task].shape].steps[step].parents;
        parents.iter().filter(|parent| !is_done(steps[**parent].state)).count()
    }

    pub(super) fn remaining(&self, task: usize) -> usize {
        self.tasks[task].steps.iter().filter(|step| !is_done(step.state)).count()
    }

    pub(super) fn active(&self, task: usize) -> usize {
        let steps = &self.tasks[task].steps;
        let active = |step: &usize| match steps[*step].state {
            S::Pending => self.waiting_on(task, *step) == 0,
            state => !state.is_final(),
        };
        (0..steps.len()).filter(active).count()
    }

    fn enqueue_ready(&mut self, task: usize) {
        for step in 0..self.tasks[task].steps.len() {
            let ready = self.tasks[task].steps[step].state == S::Pending && self.waiting_on(task, step) == 0;
            if ready && self.tasks[task].state == T::InProgress {
                self.enqueue(task, step);
            }
        }
    }

    fn enqueue(&mut self, task: usize, step: usize) {
        self.move_step(task, step, S::Enqueued);
        self.send(Queue::Steps, About::Step { task, step }, -60_000 * (i64::from(self.tasks[task].priority) + 100));
    }

    fn reopen(&mut self, task: usize, step: usize) {
        self.tasks[task].steps[step].failures = 0;
        self.enqueue(task, step);
    }

    fn finalize(&mut self, task: usize) {
        match self.tasks[task].state {
            state if state.is_final() => {}
            _ if self.remaining(task) == 0 => self.end(task, T::Complete),
            _ if self.active(task) == 0 => self.end(task, T::Error),
            _ => {}
        }
    }

    fn stop(&mut self, task: usize) {
        for step in 0..self.tasks[task].steps.len() {
            if !self.tasks[task].steps[step].state.is_final() {
                self.stop_step(task, step, S::Cancelled);
            }
        }
    }

    fn stop_step(&mut self, task: usize, step: usize, to: S) {
        self.timers.retain(|timer| !(timer.task == task && timer.of == Of::Retry(step)));
        let its = |message: &Message| message.queue == Queue::Steps && message.about == About::Step { task, step };
        self.messages.retain(|message| !(message.visible && its(message)));
        self.move_step(task, step, to);
    }

    fn end(&mut self, task: usize, to: T) {
        self.timers.retain(|timer| timer.task != task);
        self.move_task(task, to);
    }

    fn hold(&mut self, task: usize, held: bool) {
        let retry = |timer: &&mut Timer| timer.task == task && matches!(timer.of, Of::Retry(_));
        self.timers.iter_mut().filter(retry).for_each(|timer| timer.held = held);
    }

    fn move_task(&mut self, task: usize, to: T) {
        let task = &mut self.tasks[task];
        task.history.push((Some(task.state), to));
        task.state = to;
    }

    fn move_step(&mut self, task: usize, step: usize, to: S) {
        let step = &mut self.tasks[task].steps[step];
        step.history.push((step.state, to, step.attempt));
        step.state = to;
    }

    fn send(&mut self, queue: Queue, about: About, head_start: i64) {
        let rank = self.now + head_start;
        self.messages.push(Message { queue, about, read: 0, visible: true, rank, id: None });
    }

    fn remove(&mut self, places: Vec<usize>) {
        let mut place = 0;
        self.messages.retain(|_| {
            place += 1;
            !places.contains(&(place - 1))
        });
    }
}

/// Whether those that depend on a step in this state may go on.
const fn is_done(state: S) -> bool {
    matches!(state, S::Complete | S::Skipped | S::ResolvedManually)
}

impl Queue {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Steps => "worker_model",
            Self::Results => "step_results",
            Self::Requests => "task_requests",
        }
    }
}
