//! `tasker bench`.

use crate::{
    args::BenchArgs,
    error::{Error, Result},
    exit::Exit,
    shell::Shell,
};

/// Says that it is not there.
///
/// # Errors
/// Always.
pub async fn run(args: BenchArgs, shell: &mut Shell) -> Result {
    let _ = (args, shell);
    Err(Error::new(Exit::Broken, "not_built", "`tasker bench` is not built yet"))
}
