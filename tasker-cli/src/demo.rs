//! `tasker demo`.

use crate::{
    args::DemoArgs,
    error::{Error, Result},
    exit::Exit,
    shell::Shell,
};

/// Says that it is not there.
///
/// # Errors
/// Always.
pub async fn run(args: DemoArgs, shell: &mut Shell) -> Result {
    let _ = (args, shell);
    Err(Error::new(Exit::Broken, "not_built", "`tasker demo` is not built yet"))
}
