//! One run of one program: its streams, its end, its cost.

use super::reap::{Group, Reaped};
use crate::handler::Usage;
use nix::sys::signal::Signal;
use std::{
    collections::VecDeque,
    fs, io,
    os::unix::process::CommandExt,
    pin::pin,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{ChildStderr, ChildStdin, ChildStdout},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// How much of the end of standard error is kept, in bytes.
const KEPT_STDERR: usize = 4 * 1024;

/// How long to read on after the end, in case a process that left the group holds a stream open.
const DRAIN: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) max_output_bytes: usize,
    pub(super) kill_grace: Duration,
}

/// What a run left.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) end: End,
    pub(super) status: ExitStatus,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
    pub(super) usage: Usage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    ByItself,
    Stopped,
    TooMuchOutput,
}

/// Runs `command` in a process group of its own until it ends, or is stopped through `stop`.
///
/// Dropping the future kills the group.
///
/// # Errors
/// When the program cannot be started or waited for.
pub(super) async fn run(
    mut command: Command,
    stdin: Vec<u8>,
    limits: Limits,
    stop: &CancellationToken,
) -> io::Result<Ran> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn()?;
    let group = Group::led_by(child.id()).ok_or_else(|| io::Error::other("the child has no id"))?;
    let _kill = KillOnDrop(group.clone());
    let streams = Streams::of(&mut child)?;
    let overflow = CancellationToken::new();
    let (mut stdout, mut stderr) = (Vec::new(), VecDeque::new());
    let mut peak = 0;
    let (end, reaped) = {
        let mut io = pin!(streams.carry(stdin, &mut stdout, &mut stderr, limits.max_output_bytes, &overflow));
        let mut supervised = pin!(supervise(&group, limits.kill_grace, stop, &overflow));
        let mut sampling = pin!(sample_memory(&group, &mut peak));
        let mut is_drained = false;
        let ended = loop {
            tokio::select! {
                ended = &mut supervised => break ended,
                () = &mut io, if !is_drained => is_drained = true,
                () = &mut sampling => {}
            }
        };
        if !is_drained {
            let _ = timeout(DRAIN, io).await;
        }
        ended?
    };
    // The end and an overflow may come together.
    let end = if overflow.is_cancelled() { End::TooMuchOutput } else { end };
    let usage = Usage { memory_bytes: memory(reaped.max_resident_bytes, peak), cpu_time: reaped.cpu_time };
    Ok(Ran { end, status: reaped.status, stdout, stderr: stderr.into(), usage })
}

/// A program must not outlive its step, however that ends.
struct KillOnDrop(Group);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.0.signal(Signal::SIGKILL);
    }
}

/// Waits for the end, and brings it about when asked to.
async fn supervise(
    group: &Group,
    grace: Duration,
    stop: &CancellationToken,
    overflow: &CancellationToken,
) -> io::Result<(End, Reaped)> {
    let waiting = group.clone();
    let mut waiting = tokio::task::spawn_blocking(move || waiting.wait());
    let end = tokio::select! {
        biased;
        reaped = &mut waiting => return Ok((End::ByItself, reaped.map_err(io::Error::other)??)),
        () = overflow.cancelled() => End::TooMuchOutput,
        () = stop.cancelled() => End::Stopped,
    };
    group.signal(if end == End::Stopped { Signal::SIGTERM } else { Signal::SIGKILL });
    tokio::select! {
        reaped = &mut waiting => return Ok((end, reaped.map_err(io::Error::other)??)),
        () = sleep(grace) => group.signal(Signal::SIGKILL),
    }
    Ok((end, waiting.await.map_err(io::Error::other)??))
}

struct Streams {
    stdin: ChildStdin,
    stdout: ChildStdout,
    stderr: ChildStderr,
}

impl Streams {
    fn of(child: &mut Child) -> io::Result<Self> {
        let missing = || io::Error::other("a stream of the child is missing");
        Ok(Self {
            stdin: ChildStdin::from_std(child.stdin.take().ok_or_else(missing)?)?,
            stdout: ChildStdout::from_std(child.stdout.take().ok_or_else(missing)?)?,
            stderr: ChildStderr::from_std(child.stderr.take().ok_or_else(missing)?)?,
        })
    }

    /// Writes standard input and reads the other two to their ends. A program need not read its input.
    async fn carry(
        mut self,
        input: Vec<u8>,
        stdout: &mut Vec<u8>,
        stderr: &mut VecDeque<u8>,
        max: usize,
        overflow: &CancellationToken,
    ) {
        let write = async move {
            let _ = self.stdin.write_all(&input).await;
            drop(self.stdin);
        };
        tokio::join!(write, read_all(self.stdout, stdout, max, overflow), read_end(self.stderr, stderr));
    }
}

async fn read_all(mut from: impl AsyncRead + Unpin, into: &mut Vec<u8>, max: usize, overflow: &CancellationToken) {
    let mut chunk = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut chunk).await {
        if into.len() + read > max {
            overflow.cancel();
            return;
        }
        into.extend_from_slice(&chunk[..read]);
    }
}

async fn read_end(mut from: impl AsyncRead + Unpin, into: &mut VecDeque<u8>) {
    let mut chunk = vec![0; 4 * 1024];
    while let Ok(read @ 1..) = from.read(&mut chunk).await {
        into.extend(&chunk[..read]);
        into.drain(..into.len().saturating_sub(KEPT_STDERR));
    }
}

/// Follows the program's own peak of resident memory while it runs; never completes.
async fn sample_memory(group: &Group, peak: &mut u64) {
    let mut pause = Duration::from_millis(5);
    loop {
        let now = group.while_it_exists(|leader| peak_resident(&leader.to_string())).flatten();
        *peak = (*peak).max(now.unwrap_or(0));
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}

/// The largest resident memory of the run, as far as it can be told.
///
/// What `wait4` says is exact where it is above the worker's own peak. Below that it is the worker's: the kernel counts
/// the memory of the copy that became the program. The sampled peak of the program itself holds then, which misses what
/// grew after the last sample.
fn memory(reaped: u64, sampled: u64) -> Option<u64> {
    let own = peak_resident("self")?;
    if reaped > own { Some(reaped) } else { Some(sampled).filter(|bytes| *bytes > 0) }
}

/// `VmHWM` of a process, in bytes; only Linux tells.
fn peak_resident(process: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}
