//! The `command` handler with real programs.

use super::{CommandHandler, CommandSettings};
use crate::handler::{HandlerError, Limits, StepContext, StepHandler, run};
use serde_json::{Value, json};
use std::{fs, path::Path, sync::Arc, time::Duration};
use tasker_shared::step::{Failure, FailureKind, Outcome};

fn handler() -> CommandHandler {
    CommandHandler::new(CommandSettings {
        enabled: true,
        allowed_programs: ["sh", "cat", "head", "/bin/echo"].map(str::to_owned).to_vec(),
        max_output_bytes: 100_000,
        allowed_step_environment: ["ORDER", "JOB_*"].map(str::to_owned).to_vec(),
        kill_grace_ms: 200,
        ..CommandSettings::default()
    })
}

fn step(initialization: Value) -> StepContext {
    let context = StepContext::for_test(json!({"n": 5, "text": "a; echo b"})).with_attempt(2);
    let context = context.with_run(|run| run.traceparent = Some("00-0af7-b7ad-01".to_owned()));
    context.with_parent("p", json!([1])).with_initialization(initialization)
}

fn sh(script: &str) -> Value {
    json!({"argv": ["sh", "-c", script]})
}

async fn call(initialization: Value) -> Result<Value, HandlerError> {
    handler().call(step(initialization)).await
}

async fn failure(context: &StepContext) -> Failure {
    match run(&handler(), context, &Limits::default(), None).await {
        Outcome::Failure(failure) => failure,
        Outcome::Success(result) => panic!("it succeeded with {result}"),
    }
}

#[tokio::test]
async fn a_program_reads_its_step_and_writes_its_result() {
    let result = call(json!({"argv": ["cat"]})).await.expect("cat copies");
    assert_eq!(result["input"]["n"], json!(5));
    assert_eq!(result["parents"], json!({"p": [1]}));
    assert_eq!((&result["attempt"], &result["step"]["name"]), (&json!(2), &json!("step")));
}

#[tokio::test]
async fn arguments_are_filled_and_never_seen_by_a_shell() {
    let result = call(json!({"argv": ["/bin/echo", "{{ input.text }} $HOME", "*"], "output": "text"})).await;
    assert_eq!(result.expect("it echoes"), json!({"stdout": "a; echo b $HOME *\n"}));
}

#[tokio::test]
async fn whatever_a_text_has_in_it_stays_one_argument_and_runs_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let trap = directory.path().join("trap");
    let touch = format!("touch {}", trap.display());
    let texts = [
        format!("; {touch}"),
        format!("| {touch} &"),
        format!("$({touch})"),
        format!("`{touch}`"),
        format!("\n{touch}\n"),
        format!("' ; {touch} ; '"),
        format!("\" ; {touch} ; \""),
        format!("&& {touch} || {touch}"),
        format!("> {}", trap.display()),
        "--version".to_owned(),
        "-n".to_owned(),
        "a b\tc  d".to_owned(),
        "* ? [a-z] ~ ${HOME} $0 %s \\ !".to_owned(),
        String::new(),
    ];
    let counts = ["sh", "-c", "printf '%s' $#; printf '|%s' \"$@\"", "sh"];
    for text in texts {
        let argv: Vec<_> = counts.iter().copied().chain(["{{ input.hostile }}", "end"]).collect();
        let context = StepContext::for_test(json!({ "hostile": text }));
        let context = context.with_initialization(json!({"argv": argv, "output": "text"}));
        let result = handler().call(context).await.expect("it prints");
        assert_eq!(result["stdout"], json!(format!("2|{text}|end")));
    }
    assert!(!trap.exists());
}

#[tokio::test]
async fn the_program_itself_cannot_be_smuggled_in_by_an_input() {
    for program in ["env", "/usr/bin/env", "sh -c true", "sh;env", "../bin/sh", "", " sh", "/bin/sh/../env"] {
        let context = StepContext::for_test(json!({ "program": program }));
        let context = context.with_initialization(json!({"argv": ["{{ input.program }}"]}));
        let error = handler().call(context).await.expect_err(program);
        assert!(!error.is_retryable(), "{program}: {error}");
    }
}

#[tokio::test]
async fn the_environment_has_what_is_allowed_and_nothing_else() {
    let mut initialization = sh("env; pwd");
    initialization["env"] = json!({"ORDER": "{{ input.n }}"});
    initialization["cwd"] = json!("/");
    initialization["output"] = json!("text");
    let result = call(initialization).await.expect("it lists");
    let lines: Vec<&str> = result["stdout"].as_str().expect("a text").lines().collect();
    for expected in ["ORDER=5", "TRACEPARENT=00-0af7-b7ad-01", "TASKER_ATTEMPT=2", "/"] {
        assert!(lines.contains(&expected), "{expected} in {lines:?}");
    }
    let by_shell = ["PWD", "OLDPWD", "SHLVL", "_"];
    let allowed = CommandSettings::default().allowed_environment;
    for name in lines.iter().filter_map(|line| Some(line.split_once('=')?.0)) {
        let is_own = name.starts_with("TASKER_") || ["ORDER", "TRACEPARENT"].contains(&name);
        assert!(is_own || by_shell.contains(&name) || allowed.iter().any(|allowed| allowed == name), "{name}");
    }
}

#[tokio::test]
async fn exit_codes_say_whether_another_attempt_may_help() {
    let with = |code: i32, more: Value| async move {
        let mut initialization = sh(&format!("echo first >&2; echo 'the reason' >&2; exit {code}"));
        let all = initialization.as_object_mut().expect("it is an object");
        all.extend(more.as_object().cloned().unwrap_or_default());
        call(initialization).await.expect_err("it fails")
    };
    let other = with(3, json!({})).await;
    assert!(other.is_retryable());
    assert_eq!(other.message(), "the program ended with exit code 3: the reason");
    let details = other.details().expect("it has details");
    assert_eq!((&details["exit_code"], &details["stderr"]), (&json!(3), &json!("first\nthe reason\n")));
    assert!(with(75, json!({"retryable_exit_codes": []})).await.is_retryable());
    assert!(!with(3, json!({"permanent_exit_codes": [3]})).await.is_retryable());
    assert!(!with(3, json!({"retryable_exit_codes": [4]})).await.is_retryable());
    assert!(with(4, json!({"retryable_exit_codes": [4]})).await.is_retryable());
}

#[tokio::test]
async fn a_program_killed_from_elsewhere_is_tried_again() {
    let error = call(sh("kill -9 $$")).await.expect_err("it is killed");
    assert!(error.is_retryable());
    assert_eq!(error.message(), "the program ended with signal 9 (SIGKILL)");
}

#[tokio::test]
async fn output_of_another_form_is_refused() {
    let error = call(sh("echo not json")).await.expect_err("it is no JSON");
    assert!(!error.is_retryable() && error.message().contains("`output: text`"), "{error}");
    assert_eq!(error.details().expect("it has details")["stdout"], json!("not json\n"));
    assert_eq!(call(sh("true")).await.expect("nothing is null"), Value::Null);
    let error = call(json!({"argv": ["sh", "-c", "printf '\\377'"], "output": "text"})).await.expect_err("no UTF-8");
    assert!(!error.is_retryable(), "{error}");
}

#[tokio::test]
async fn ten_megabytes_of_output_are_refused_and_the_program_is_killed() {
    let failure = failure(&step(sh("head -c 10000000 /dev/zero; sleep 1000"))).await;
    assert_eq!((failure.kind, failure.retryable), (FailureKind::ResultTooLarge, false));
    assert!(failure.message.contains("more than 100000 bytes"), "{failure:?}");
}

#[tokio::test]
async fn an_endless_error_output_is_read_and_its_end_kept() {
    let error = call(sh("head -c 3000000 /dev/zero | tr '\\0' x >&2; echo end >&2; exit 1")).await.expect_err("fails");
    let stderr = error.details().expect("it has details")["stderr"].as_str().expect("a text").to_owned();
    assert!(stderr.len() == 4 * 1024 && stderr.ends_with("xend\n"));
}

#[tokio::test]
async fn a_program_that_ignores_a_large_input_is_no_error() {
    let context = step(sh("echo 1")).with_run(|run| run.input = Arc::new(json!("x".repeat(1_000_000))));
    assert_eq!(handler().call(context).await.expect("it need not read"), json!(1));
}

#[tokio::test]
async fn what_the_run_took_is_known() {
    let context = step(sh("x=$(head -c 80000000 /dev/zero | tr '\\0' x); sleep 0.6; echo ${#x}"));
    assert_eq!(handler().call(context.clone()).await.expect("it counts"), json!(80_000_000));
    let usage = context.usage().expect("it was measured");
    assert!(usage.memory_bytes.is_some_and(|bytes| (80_000_000..1_000_000_000).contains(&bytes)), "{usage:?}");
    assert!(usage.cpu_time > Duration::ZERO, "{usage:?}");
}

#[tokio::test]
async fn a_small_program_is_not_charged_with_the_memory_of_the_worker() {
    let ballast = vec![1_u8; 100_000_000];
    let context = step(sh("sleep 0.1; echo 1"));
    handler().call(context.clone()).await.expect("it runs");
    let memory = context.usage().expect("it was measured").memory_bytes;
    assert!(memory.is_some_and(|bytes| bytes < 50_000_000), "{memory:?} beside {}", ballast.len());
}

/// Starts `sh`, which starts `sleep` and writes down its id, and then waits.
fn family(directory: &Path, prelude: &str) -> StepContext {
    let file = directory.join("grandchild");
    step(sh(&format!("{prelude} sleep 1000 & echo $! > '{}'; wait", file.display())))
}

/// The id that the family wrote down; polls, for it takes an unknown time to start.
async fn grandchild(directory: &Path) -> u32 {
    for _ in 0..3_000 {
        let written = fs::read_to_string(directory.join("grandchild")).unwrap_or_default();
        if let Some(id) = written.strip_suffix('\n').and_then(|id| id.parse().ok()) {
            return id;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the program did not start")
}

/// Gone, or dead and waiting for a parent that does not care.
fn is_dead(process: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, fields)| fields.starts_with(['Z', 'X']))
}

async fn dies(process: u32) -> bool {
    for _ in 0..3_000 {
        if is_dead(process) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}

#[tokio::test]
async fn a_program_is_killed_with_its_children_at_the_deadline() {
    let directory = tempfile::tempdir().expect("a directory");
    // A slow machine may not have started the program at a short deadline.
    for seconds in [1, 4, 16, 64] {
        let context = family(directory.path(), "").with_timeout(Duration::from_secs(seconds));
        let failure = failure(&context).await;
        assert_eq!(failure.kind, FailureKind::Timeout, "{failure:?}");
        assert!(failure.message.ends_with("the program was stopped (signal 15 (SIGTERM))"), "{failure:?}");
        assert!(context.usage().is_some());
        if directory.path().join("grandchild").exists() {
            break;
        }
    }
    assert!(dies(grandchild(directory.path()).await).await);
}

#[tokio::test]
async fn a_program_that_ignores_the_signal_is_killed_after_the_grace() {
    let directory = tempfile::tempdir().expect("a directory");
    let context = family(directory.path(), "trap '' TERM;");
    let (failure, grandchild) = tokio::join!(failure(&context), async {
        let id = grandchild(directory.path()).await;
        context.cancel("an operator cancelled the task");
        id
    });
    assert_eq!(failure.kind, FailureKind::Cancelled);
    assert!(failure.message.contains("an operator cancelled the task"), "{failure:?}");
    assert!(failure.message.ends_with("the program was stopped (signal 9 (SIGKILL))"), "{failure:?}");
    assert!(dies(grandchild).await);
}

#[tokio::test]
async fn a_program_dies_with_the_run_that_is_dropped() {
    let directory = tempfile::tempdir().expect("a directory");
    let context = family(directory.path(), "trap '' TERM;");
    let running = tokio::spawn(async move { handler().call(context).await });
    let grandchild = grandchild(directory.path()).await;
    assert!(!is_dead(grandchild));
    running.abort();
    assert!(dies(grandchild).await);
}

#[tokio::test]
async fn what_a_program_leaves_running_is_killed_and_holds_up_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("grandchild");
    let result = call(sh(&format!("sleep 1000 & echo $! > '{}'; echo 7", file.display()))).await;
    assert_eq!(result.expect("it ends by itself"), json!(7));
    assert!(dies(grandchild(directory.path()).await).await);
}

#[tokio::test]
async fn programs_that_are_not_allowed_are_refused() {
    let error = call(json!({"argv": ["env"]})).await.expect_err("env is not allowed");
    assert!(!error.is_retryable() && error.message().contains("`worker.command.allowed_programs`"), "{error}");
    let off = CommandHandler::new(CommandSettings::default());
    let error = off.call(step(sh("true"))).await.expect_err("it is off");
    assert!(!error.is_retryable() && error.message().contains("`worker.command.enabled`"), "{error}");
}

#[tokio::test]
async fn a_step_sets_only_the_variables_that_the_worker_allows() {
    for name in [
        "LD_PRELOAD",
        "BASH_ENV",
        "BASH_FUNC_ls%%",
        "PATH",
        "PYTHONPATH",
        "PYTHONWARNINGS",
        "BROWSER",
        "GIT_CONFIG_COUNT",
        "GIT_SSH_COMMAND",
        "LUA_INIT",
        "OPENSSL_CONF",
        "CLASSPATH",
        "DOTNET_STARTUP_HOOKS",
        "PHP_INI_SCAN_DIR",
        "HOME",
        "IFS",
        "TASKER_STEP_ID",
        "order",
        "ORDE",
    ] {
        let error = call(json!({"argv": ["sh", "-c", "true"], "env": {name: "x"}})).await.expect_err(name);
        assert!(!error.is_retryable() && error.message().contains(&format!("`env` has `{name}`")), "{error}");
        assert!(error.message().contains("`worker.command.allowed_step_environment`"), "{error}");
    }
    let listed = json!({"argv": ["sh", "-c", "echo \"[$ORDER,$JOB_A]\""], "env": {"ORDER": "1", "JOB_A": "2"}});
    assert_eq!(call(listed).await.expect("both are allowed"), json!([1, 2]));
}

#[tokio::test]
async fn mistakes_in_the_step_are_permanent_and_named() {
    for (initialization, reason) in [
        (json!({}), "missing field `argv`"),
        (json!({"argv": "sh -c true"}), "at `argv`"),
        (json!({"argv": []}), "`argv` is empty"),
        (json!({"argv": ["sh"], "shell": true}), "unknown field `shell`"),
        (json!({"argv": ["sh", "{{ input.nothing }}"]}), "`argv[1]` of step `step` cannot be filled"),
        (json!({"argv": ["sh", "a\0b"]}), "could not be started"),
        (json!({"argv": ["sh"], "cwd": "relative"}), "`cwd` is `relative`"),
        (json!({"argv": ["sh"], "env": {"A=B": "x"}}), "`env` has `A=B`"),
        (json!({"argv": ["sh"], "output": "xml"}), "at `output`"),
    ] {
        let error = call(initialization).await.expect_err(reason);
        assert!(!error.is_retryable(), "{error}");
        assert!(error.message().contains(reason), "{error}");
    }
}
