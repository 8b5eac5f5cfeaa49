//! `tasker config …`.

use crate::{
    args::ConfigCommand,
    error::{Error, Result},
    exit::Exit,
    shell::Shell,
};

pub(super) fn run(command: ConfigCommand, shell: &mut Shell) -> Result {
    let _ = (command, shell);
    Err(Error::new(Exit::Broken, "not_built", "`tasker config` is not built yet"))
}
