//! A private cluster on the real programs: it starts, keeps its data, recovers, and never outlives its owner.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use nix::unistd::{Pid, geteuid};
use sqlx::{Connection as _, PgConnection, Row as _};
use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};
use tasker_postgres::{Cluster, Error, Options, testkit};
use tempfile::TempDir;

/// Names the directory in which [`an_owner_in_another_process`] starts a cluster.
const OWNER_ROOT: &str = "TASKER_TEST_OWNER_ROOT";
/// Names the temporary directory in which [`a_user_in_another_process`] joins a shared cluster.
const USER_ROOT: &str = "TASKER_TEST_USER_ROOT";

/// A directory that PostgreSQL's account can enter.
fn open_dir() -> TempDir {
    dir_with_mode(0o755)
}

fn dir_with_mode(mode: u32) -> TempDir {
    tempfile::Builder::new().permissions(fs::Permissions::from_mode(mode)).tempdir().unwrap()
}

fn options(root: &Path) -> Options {
    Options { durable: false, ..Options::new(root) }
}

/// Runs one statement and gives the first column of its first row, if it has one.
fn sql(url: &str, statement: &str) -> Option<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = PgConnection::connect(url).await.unwrap();
        let row = sqlx::query(statement).fetch_optional(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        row.map(|row| row.get(0))
    })
}

fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.contains("(postgres)") && !stat.contains(") Z ")
}

fn wait_until_gone(pid: u32) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while runs(pid) {
        assert!(Instant::now() < deadline, "process {pid} still runs");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// One test of this file that runs in a process of its own, says a server's process number and then waits.
struct Other {
    process: Child,
    server: u32,
    _stdout: BufReader<ChildStdout>,
}

impl Other {
    fn run(test: &str, variable: &str, value: &Path) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(variable, value)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        let mut lines = (&mut stdout).lines().map_while(Result::ok);
        let server = lines.find_map(|line| line.split_once("said: ")?.1.parse().ok()).unwrap();
        Self { process, server, _stdout: stdout }
    }

    /// Lets the process end by itself.
    fn end(mut self) {
        drop(self.process.stdin.take());
        assert!(self.process.wait().unwrap().success());
    }

    fn kill9(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

fn say_and_wait(what: &str) {
    println!("said: {what}");
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

#[test]
fn an_owner_in_another_process() {
    if let Some(root) = std::env::var_os(OWNER_ROOT) {
        // On a thread that ends, as callers on thread pools do.
        let cluster = std::thread::spawn(move || Cluster::start(&options(Path::new(&root))).unwrap()).join().unwrap();
        sql(&cluster.url("postgres"), "create table kept as select 7 as n");
        say_and_wait(&cluster.pid().unwrap().to_string());
    }
}

#[test]
fn a_user_in_another_process() {
    if let Some(temporary) = std::env::var_os(USER_ROOT) {
        let shared = testkit::Shared::get_in(Path::new(&temporary)).unwrap();
        let data = sql(&shared.admin_url(), "show data_directory").unwrap();
        let pid = fs::read_to_string(Path::new(&data).join("postmaster.pid")).unwrap();
        say_and_wait(pid.lines().next().unwrap());
    }
}

#[test]
fn data_survives_a_stop_a_restart_and_a_crash() {
    let dir = open_dir();
    let mut cluster = Cluster::start(&options(dir.path())).unwrap();
    sql(&cluster.url("postgres"), "create table kept (n int)");
    sql(&cluster.url("postgres"), "insert into kept values (1)");
    let url = cluster.url("postgres");
    cluster.restart().unwrap();
    assert_eq!(cluster.url("postgres"), url, "clients find the server again under the same address");
    sql(&url, "insert into kept values (2)");
    cluster.kill9().unwrap();
    assert_eq!(cluster.pid(), None);
    cluster.restart().unwrap();
    assert_eq!(cluster.url("postgres"), url);
    sql(&url, "insert into kept values (3)");
    let pid = cluster.pid().unwrap();
    drop(cluster);
    assert!(!runs(pid), "dropping the cluster stops the server");
    let cluster = Cluster::start(&options(dir.path())).unwrap();
    assert_eq!(sql(&cluster.url("postgres"), "select sum(n)::text from kept").as_deref(), Some("6"));
}

#[test]
fn the_server_is_reached_by_socket_without_and_by_tcp_only_with_the_password() {
    let dir = open_dir();
    let cluster = Cluster::start(&options(dir.path())).unwrap();
    assert!(cluster.url("postgres").contains("?host=/"));
    assert_eq!(sql(&cluster.url("postgres"), "select (inet_server_addr() is null)::text").as_deref(), Some("true"));
    assert_eq!(sql(&cluster.tcp_url("postgres"), "select host(inet_server_addr())").as_deref(), Some("127.0.0.1"));
    let wrong = cluster.tcp_url("postgres").replace(&cluster.endpoint().password, "wrong");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let refused = runtime.block_on(PgConnection::connect(&wrong)).unwrap_err().to_string();
    assert!(refused.contains("password authentication failed"), "{refused}");
    for (path, mode) in [("password", 0o600), ("socket", 0o700), ("data", 0o700)] {
        let found = fs::metadata(dir.path().join(path)).unwrap().permissions().mode();
        assert_eq!(found & 0o777, mode, "{path}");
    }
}

#[test]
fn a_second_start_in_the_same_directory_names_the_owner() {
    let dir = open_dir();
    let cluster = Cluster::start(&options(dir.path())).unwrap();
    let error = Cluster::start(&options(dir.path())).err().unwrap();
    assert_eq!(
        error.to_string(),
        format!(
            "{} is already in use: process {} runs a PostgreSQL (process {}) there; stop that process or choose another \
             directory",
            dir.path().display(),
            std::process::id(),
            cluster.pid().unwrap()
        )
    );
    assert_eq!(sql(&cluster.url("postgres"), "select 'alive'").as_deref(), Some("alive"));
}

#[test]
fn a_pid_file_left_by_a_crash_does_not_hinder_the_next_start() {
    let dir = open_dir();
    let mut cluster = Cluster::start(&options(dir.path())).unwrap();
    let pid_file = dir.path().join("data/postmaster.pid");
    let left = fs::read_to_string(&pid_file).unwrap();
    cluster.kill9().unwrap();
    drop(cluster);
    // The number now belongs to another program: this one.
    let rest = left.split_once('\n').unwrap().1;
    fs::write(&pid_file, format!("{}\n{rest}", std::process::id())).unwrap();
    let cluster = Cluster::start(&options(dir.path())).unwrap();
    assert_eq!(sql(&cluster.url("postgres"), "select 'alive'").as_deref(), Some("alive"));
}

#[cfg(target_os = "linux")]
#[test]
fn a_killed_owner_takes_the_server_with_it_and_leaves_the_data() {
    let dir = open_dir();
    let owner = Other::run("an_owner_in_another_process", OWNER_ROOT, dir.path());
    let pid = owner.server;
    assert!(runs(pid), "the server outlives the thread that started it");
    owner.kill9();
    let cluster = Cluster::start(&options(dir.path())).unwrap();
    assert!(!runs(pid));
    assert_eq!(sql(&cluster.url("postgres"), "select n::text from kept").as_deref(), Some("7"));
}

#[test]
fn a_signal_to_the_owners_process_group_does_not_reach_the_server() {
    let dir = open_dir();
    let cluster = Cluster::start(&options(dir.path())).unwrap();
    let pid = Pid::from_raw(cluster.pid().unwrap().cast_signed());
    assert_eq!(nix::unistd::getpgid(Some(pid)).unwrap(), pid);
}

#[test]
fn a_directory_with_a_long_name_still_gets_a_socket() {
    let dir = open_dir();
    let root = dir.path().join("a-directory-with-a-long-name/".repeat(4));
    let cluster = Cluster::start(&options(&root)).unwrap();
    let socket_dir = cluster.endpoint().socket_dir.clone().unwrap();
    assert!(!socket_dir.starts_with(dir.path()), "{}", socket_dir.display());
    assert_eq!(sql(&cluster.url("postgres"), "select 'alive'").as_deref(), Some("alive"));
    drop(cluster);
    assert!(!socket_dir.exists());
}

#[test]
fn settings_of_the_caller_win() {
    let dir = open_dir();
    let settings = vec![("max_connections".to_owned(), "37".to_owned())];
    let cluster = Cluster::start(&Options { settings, ..options(dir.path()) }).unwrap();
    assert_eq!(sql(&cluster.url("postgres"), "show max_connections").as_deref(), Some("37"));
    assert_eq!(sql(&cluster.url("postgres"), "show fsync").as_deref(), Some("off"));
}

#[test]
fn a_durable_cluster_syncs() {
    let dir = open_dir();
    let cluster = Cluster::start(&Options::new(dir.path())).unwrap();
    assert_eq!(sql(&cluster.url("postgres"), "show fsync").as_deref(), Some("on"));
    assert_eq!(sql(&cluster.url("postgres"), "show synchronous_commit").as_deref(), Some("on"));
}

#[test]
fn data_of_another_major_version_is_refused_naming_the_needed_one() {
    let dir = open_dir();
    fs::create_dir(dir.path().join("data")).unwrap();
    fs::write(dir.path().join("data/PG_VERSION"), "13\n").unwrap();
    let mut options = options(dir.path());
    options.download.enabled = false;
    let message = Cluster::start(&options).err().unwrap().to_string();
    let data = dir.path().join("data");
    let expected = format!("the data directory {} was created by PostgreSQL 13, but only ", data.display());
    assert!(message.starts_with(&expected), "{message}");
    assert!(message.contains("install PostgreSQL 13, or set TASKER_PG_BIN"), "{message}");
}

#[test]
fn a_setting_that_postgres_refuses_is_reported_with_its_words() {
    let dir = open_dir();
    let settings = vec![("no_such_setting".to_owned(), "1".to_owned())];
    let error = Cluster::start(&Options { settings, ..options(dir.path()) }).err().unwrap();
    assert!(matches!(error, Error::Start { .. }));
    assert!(error.to_string().contains("unrecognized configuration parameter \"no_such_setting\""), "{error}");
}

#[test]
fn root_is_told_which_directory_is_closed_to_the_servers_account() {
    if !geteuid().is_root() {
        return;
    }
    let closed = dir_with_mode(0o700);
    let error = Cluster::start(&options(&closed.path().join("cluster"))).err().unwrap();
    assert!(matches!(&error, Error::Unreachable { blocked_by, .. } if blocked_by == closed.path()), "{error}");
}

#[test]
fn the_shared_cluster_serves_all_processes_and_stops_after_the_last() {
    let temporary = open_dir();
    let user = || Other::run("a_user_in_another_process", USER_ROOT, temporary.path());
    let (first, second) = (user(), user());
    let server = first.server;
    assert_eq!(server, second.server);
    first.end();
    assert!(runs(server), "the second process still uses it");
    second.kill9();
    wait_until_gone(server);
    let third = user();
    let another = third.server;
    assert_ne!(server, another);
    third.end();
    wait_until_gone(another);
}
