//! The program of this package starts. Having this test makes `cargo test` build the program, which the tests of the
//! whole system run.

use std::process::Command;

#[test]
fn the_program_tells_its_version() {
    let output = Command::new(env!("CARGO_BIN_EXE_tasker")).arg("--version").output().expect("it starts");
    assert!(output.status.success());
    let version = format!("tasker {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(String::from_utf8_lossy(&output.stdout), version);
}
