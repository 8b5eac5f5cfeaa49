//! The exit codes: what scripts can tell apart.

use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It did what was asked.
    Ok = 0,
    /// A task failed, an action was refused, or a check found something.
    Failed = 1,
    /// The command line, a file or the configuration cannot be understood.
    Usage = 2,
    /// No such task, step or template.
    NotFound = 3,
    /// Nothing answers at the service's address, or at the database's.
    Unreachable = 4,
    /// It took too long; what was started goes on.
    Timeout = 5,
    /// The service failed at the request, or something else went wrong.
    Broken = 6,
    /// Ctrl-C.
    Interrupted = 130,
}

impl Exit {
    /// Every code.
    pub const ALL: &'static [Self] = &[
        Self::Ok,
        Self::Failed,
        Self::Usage,
        Self::NotFound,
        Self::Unreachable,
        Self::Timeout,
        Self::Broken,
        Self::Interrupted,
    ];

    /// The number.
    pub const fn code(self) -> u8 {
        self as u8
    }

    const fn meaning(self) -> &'static str {
        match self {
            Self::Ok => "done",
            Self::Failed => "a task failed, an action was refused, or a check found something",
            Self::Usage => "the command line, a file or the configuration cannot be understood",
            Self::NotFound => "no such task, step, template or worker",
            Self::Unreachable => "nothing answers at the address of the service or the database",
            Self::Timeout => "it took too long; tasks that were started go on",
            Self::Broken => "the service failed at the request, or the machine at the command",
            Self::Interrupted => "stopped with Ctrl-C; tasks that were started go on",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// The table for the help text.
pub fn help() -> String {
    let lines = Exit::ALL.iter().map(|exit| format!("\n  {:>3}  {}", exit.code(), exit.meaning()));
    format!("Exit codes:{}", lines.collect::<String>())
}
