//! `tasker dev`.

use crate::{
    args::DevArgs,
    error::{Error, Result},
    exit::Exit,
    shell::Shell,
};

/// Says that it is not there.
///
/// # Errors
/// Always.
pub async fn run(args: DevArgs, shell: &mut Shell) -> Result {
    let _ = (args, shell);
    Err(Error::new(Exit::Broken, "not_built", "`tasker dev` is not built yet"))
}
