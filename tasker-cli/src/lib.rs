//! The `tasker` command as a library, so that tests can call it.
//!
//! [`args`] is what can be written, [`command`] what it does, [`view`] how it looks. A command gets the world
//! through a [`shell::Shell`] and ends with an [`exit::Exit`] or an [`error::Error`].

pub mod args;
pub mod bench;
pub mod command;
pub mod demo;
pub mod dev;
pub mod error;
pub mod examples;
pub mod exit;
pub mod local;
pub mod profile;
pub mod shell;
#[cfg(test)]
mod stub;
pub mod view;

use args::Command;
use exit::Exit;
use shell::Shell;

/// Runs a command; its failure is told on the shell's error stream.
pub async fn run(command: Command, shell: &mut Shell) -> Exit {
    match command::run(command, shell).await {
        Ok(exit) => exit,
        Err(error) => {
            shell.fail(&error);
            error.exit()
        }
    }
}
