//! `tasker db …`.

use crate::{
    args::DbCommand,
    error::{Error, Result},
    exit::Exit,
    shell::Shell,
};

pub(super) async fn run(command: DbCommand, shell: &mut Shell) -> Result {
    let _ = (command, shell);
    Err(Error::new(Exit::Broken, "not_built", "`tasker db` is not built yet"))
}
