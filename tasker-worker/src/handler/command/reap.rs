//! Waiting for one child so that its process group can be ended safely, and learning what the child took.
//!
//! The standard library's `wait` throws the child's resource usage away, and reaps the child at once: from then on its
//! id, which is also the id of its group, may belong to someone else. So the end is awaited without reaping, the rest
//! of the group is killed, and only then `wait4` reaps the child and tells what it took.

use nix::{
    errno::Errno,
    libc,
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use std::{
    io, mem,
    os::unix::process::ExitStatusExt,
    process::ExitStatus,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// A child that leads its own process group, until it is reaped.
#[derive(Debug, Clone)]
pub(super) struct Group {
    leader: Pid,
    is_reaped: Arc<Mutex<bool>>,
}

/// What a child left.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reaped {
    pub(super) status: ExitStatus,
    /// User and system time, its reaped descendants included.
    pub(super) cpu_time: Duration,
    /// The largest resident memory, in bytes, of the child, of one of its reaped descendants, or of the worker's copy
    /// that became the child.
    pub(super) max_resident_bytes: u64,
}

impl Group {
    pub(super) fn led_by(child: u32) -> Option<Self> {
        let leader = i32::try_from(child).ok().filter(|id| *id > 1).map(Pid::from_raw)?;
        Some(Self { leader, is_reaped: Arc::default() })
    }

    /// Sends `signal` to every process of the group; does nothing once the leader is reaped.
    pub(super) fn signal(&self, signal: Signal) {
        self.while_it_exists(|leader| {
            // The only failure is that no process is left, which is what is wanted.
            let _ = killpg(leader, signal);
        });
    }

    /// Calls `look` with the leader's id unless that may belong to another process by now.
    pub(super) fn while_it_exists<T>(&self, look: impl FnOnce(Pid) -> T) -> Option<T> {
        let is_reaped = self.is_reaped.lock().unwrap_or_else(PoisonError::into_inner);
        (!*is_reaped).then(|| look(self.leader))
    }

    /// Waits for the leader to end, kills what is left of the group, and reaps the leader. Blocks the thread.
    ///
    /// # Errors
    /// When the operating system does not know the child.
    pub(super) fn wait(&self) -> io::Result<Reaped> {
        let ended = await_end(self.leader);
        let mut is_reaped = self.is_reaped.lock().unwrap_or_else(PoisonError::into_inner);
        *is_reaped = true;
        ended?;
        let _ = killpg(self.leader, Signal::SIGKILL);
        reap(self.leader)
    }
}

#[expect(unsafe_code, reason = "the safe binding of waitid exists on some systems only")]
fn await_end(child: Pid) -> io::Result<()> {
    let id = libc::id_t::try_from(child.as_raw()).map_err(io::Error::other)?;
    again(|| {
        let mut info = mem::MaybeUninit::<libc::siginfo_t>::zeroed();
        // SAFETY: `info` is valid for writing a `siginfo_t`, and is not read.
        unsafe { libc::waitid(libc::P_PID, id, info.as_mut_ptr(), libc::WEXITED | libc::WNOWAIT) }
    })
}

#[expect(unsafe_code, reason = "wait4 alone tells what one child took, and has no safe binding")]
fn reap(child: Pid) -> io::Result<Reaped> {
    let mut status = 0;
    // SAFETY: `rusage` is made of integers, for which zero is a value.
    let mut usage = unsafe { mem::zeroed::<libc::rusage>() };
    // SAFETY: both pointers are to local values that live until the call returns.
    again(|| unsafe { libc::wait4(child.as_raw(), &raw mut status, 0, &raw mut usage) })?;
    Ok(Reaped {
        status: ExitStatus::from_raw(status),
        cpu_time: duration(usage.ru_utime) + duration(usage.ru_stime),
        max_resident_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0) * RESIDENT_UNIT,
    })
}

/// The unit of `ru_maxrss`.
const RESIDENT_UNIT: u64 = if cfg!(target_vendor = "apple") { 1 } else { 1024 };

fn again(mut call: impl FnMut() -> libc::c_int) -> io::Result<()> {
    loop {
        match Errno::result(call()) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn duration(time: libc::timeval) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or(0))
}
