//! Real processes, through the input alone.

use super::*;
use super::{family::signal_exactly, table::Entry};
use crate::command::AgentCommand;
use rustix::process::Signal;
use std::{path::Path, time::Duration};
use tokio::{sync::oneshot, time::sleep};

const LIMITS: Limits =
    Limits { pipe_grace: Duration::from_millis(2_000), max_stderr_bytes: 1 << 16 };

/// Starts `sh -c script`, with `$1` for the script.
async fn start(script: &str, arg: &str, startup: &Arc<Startup>) -> Result<Spawned, NotSpawned> {
    let args = ["-c", script, "sh", arg].map(Into::into).into();
    let command = AgentCommand {
        program: "/bin/sh".into(),
        args,
        cwd: "/".into(),
        env: vec![("PATH".into(), "/bin:/usr/bin".into())],
    };
    let (done, started) = oneshot::channel();
    spawner().unwrap().spawn(
        move || (command, None),
        new_mark(),
        Arc::clone(startup),
        |spawned| drop(done.send(spawned)),
    );
    started.await.unwrap()
}

async fn input(script: &str, arg: &str, limits: Limits) -> (ProcessInput, Arc<Startup>) {
    let startup = Arc::new(Startup::default());
    let spawned = start(script, arg, &startup).await.unwrap();
    (ProcessInput::new(spawned, Arc::clone(&startup), limits).unwrap(), startup)
}

/// Reads to the end.
async fn read(input: &mut ProcessInput) -> (String, End) {
    let mut bytes = Vec::new();
    loop {
        match input.ready().await {
            Ready::Bytes => input.read(&mut |more| bytes.extend_from_slice(more)),
            Ready::Ended(end) => return (String::from_utf8(bytes).unwrap(), end),
        }
    }
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        sleep(Duration::from_millis(2)).await;
    }
}

/// The number that a script wrote into a file.
async fn pid_in(path: &Path) -> i32 {
    let read = || std::fs::read_to_string(path).ok()?.trim().parse().ok();
    until(|| read().is_some()).await;
    read().unwrap()
}

fn is_alive(pid: i32) -> bool {
    table::entry(pid).is_some_and(|entry| !entry.is_zombie)
}

#[tokio::test]
async fn both_pipes_are_read_to_the_end() {
    let (mut input, startup) = input("echo out; echo why >&2; exit 3", "", LIMITS).await;
    assert!(startup.living_pid().is_some());
    let (out, end) = read(&mut input).await;
    assert_eq!((out.as_str(), end.explanation.as_str()), ("out\n", "why\n"));
    assert_eq!((end.exit, startup.living_pid()), (Exit::Code(3), None));
}

#[tokio::test]
async fn what_is_in_the_pipes_at_the_deadline_is_read() {
    let limits = Limits { pipe_grace: Duration::ZERO, ..LIMITS };
    let script = "sleep 30 & echo $! >&2; i=0; while [ $i -lt 2000 ]; do echo $i; i=$((i+1)); done";
    let startup = Arc::new(Startup::default());
    let spawned = start(script, "", &startup).await.unwrap();
    // All is written, and the agent has ended, before anything is read.
    let pid = spawned.family.leader.pid();
    until(|| table::entry(pid).is_some_and(|entry| entry.is_zombie)).await;
    let mut input = ProcessInput::new(spawned, startup, limits).unwrap();
    let (out, end) = read(&mut input).await;
    assert_eq!(out.lines().count(), 2_000);
    assert_eq!(end.exit, Exit::Code(0));
    let child: i32 = end.explanation.trim().parse().unwrap();
    assert!(is_alive(child), "an agent that ends by itself leaves its children alone");
    signal_exactly(&table::entry(child).unwrap(), Signal::KILL);
}

#[tokio::test]
async fn a_cancelled_start_executes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("executed");
    let startup = Arc::new(Startup::default());
    startup.cancel();
    let spawned = start(": > \"$1\"", mark.to_str().unwrap(), &startup).await;
    assert!(matches!(spawned, Err(NotSpawned::Cancelled)), "{spawned:?}");
    assert!(!mark.exists() && startup.pid().is_none());
    assert!(!startup.queue(2));
}

#[tokio::test]
async fn a_gate_that_closes_at_the_last_moment_holds() {
    // The look before `execve` is the child's: here the gate is shut without the spawner's knowing.
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("executed");
    let startup = Arc::new(Startup::default());
    assert!(startup.wanted(), "passed by another");
    let spawned = start(": > \"$1\"", mark.to_str().unwrap(), &startup).await;
    assert!(matches!(spawned, Err(NotSpawned::Cancelled)), "{spawned:?}");
    assert!(!mark.exists());
}

#[tokio::test]
async fn signals_that_wait_are_delivered_at_the_start() {
    let startup = Arc::new(Startup::default());
    assert!(startup.queue(Signal::KILL.as_raw()));
    let spawned = start("sleep 30", "", &startup).await.unwrap();
    let mut input = ProcessInput::new(spawned, startup, LIMITS).unwrap();
    assert_eq!(read(&mut input).await.1.exit, Exit::Signal(9));
}

#[tokio::test]
async fn a_stop_reaches_descendants_in_sessions_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pid");
    let script = "setsid sh -c 'echo $$ > \"$0\"; exec sleep 60' \"$1\" & wait";
    let (mut input, _) = input(script, path.to_str().unwrap(), LIMITS).await;
    let child = pid_in(&path).await;
    input.stop(Duration::from_secs(30));
    let (_, end) = read(&mut input).await;
    assert_eq!(end.exit, Exit::Signal(15));
    until(|| !is_alive(child)).await;
}

/// Only Linux shows every environment.
#[cfg(linux)]
#[tokio::test]
async fn a_stop_reaches_who_has_lost_its_parents_and_ignores_the_polite_signal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pid");
    let script = "(setsid sh -c 'trap \"\" TERM; echo $$ > \"$0\"; while :; do sleep 1; done' \"$1\" \
                  >/dev/null 2>&1 &); exec sleep 60";
    let (mut input, _) = input(script, path.to_str().unwrap(), LIMITS).await;
    let child = pid_in(&path).await;
    input.stop(Duration::from_millis(200));
    read(&mut input).await;
    drop(input);
    until(|| remaining().contains(&child)).await;
    until(|| !is_alive(child) && !remaining().contains(&child)).await;
}

#[tokio::test]
async fn a_stop_reaches_who_is_in_the_group_of_an_agent_that_ends_at_once() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..10 {
        let path = folder.path().join(format!("pid-{round}"));
        // Without a parent and without the mark, the group is all that tells.
        let script = "(env -i /bin/sh -c 'echo $$ > \"$0\"; exec sleep 60' \"$1\" >/dev/null 2>&1 &); \
                      exec sleep 60";
        let (mut input, _) = input(script, path.to_str().unwrap(), LIMITS).await;
        let child = pid_in(&path).await;
        input.stop(Duration::from_secs(30));
        assert_eq!(read(&mut input).await.1.exit, Exit::Signal(15));
        until(|| !is_alive(child)).await;
    }
}

#[tokio::test]
async fn a_number_that_is_another_processes_now_is_not_signalled() {
    let (mut input, startup) = input("exec sleep 60", "", LIMITS).await;
    let now = table::entry(startup.pid().unwrap()).unwrap();
    signal_exactly(&Entry { start: now.start + 1, ..now }, Signal::KILL);
    assert!(is_alive(now.pid));
    signal_exactly(&now, Signal::KILL);
    assert_eq!(read(&mut input).await.1.exit, Exit::Signal(9));
    // Reaped: the number may be anybody's.
    input.signal(9);
}

#[tokio::test]
async fn an_agent_that_somebody_else_reaps_has_ended_in_an_unknown_way() {
    let (mut input, startup) = input("exit 7", "", LIMITS).await;
    let pid = rustix::process::Pid::from_raw(startup.pid().unwrap()).unwrap();
    until(|| !is_alive(pid.as_raw_nonzero().get())).await;
    let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
    assert_eq!(read(&mut input).await.1.exit, Exit::Unknown);
}

/// Only Linux shows every environment.
#[cfg(linux)]
#[tokio::test]
async fn what_a_dead_server_left_is_found_by_its_mark() {
    let startup = Arc::new(Startup::default());
    let script = "(setsid sleep 60 >/dev/null 2>&1 &); echo $ACTIVE_RUNS_RUN";
    let spawned = start(script, "", &startup).await.unwrap();
    let mut input = ProcessInput::new(spawned, startup, LIMITS).unwrap();
    let (mark, _) = read(&mut input).await;
    let ended = end_marked(vec![mark.trim().to_owned()], Duration::from_secs(5)).await;
    assert_eq!((ended.gone.len(), ended.living.len()), (1, 0), "{mark:?}");
    assert!(!is_alive(ended.gone[0]));
}

#[cfg(linux)]
#[tokio::test]
async fn a_process_in_the_middle_of_execve_bears_its_mark() {
    let script = r#"echo $$ >"$1.new"; mv "$1.new" "$1"; exec sh -c 'exec sh -c "$0" "$0"' 'exec sh -c "$0" "$0"'"#;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pid");
    let (input, _startup) = input(script, path.to_str().unwrap(), LIMITS).await;
    let pid = pid_in(&path).await;
    let mark = table::marks_of(pid);
    assert_eq!(mark.len(), 1);
    for look in 0..5_000 {
        assert_eq!(table::marks_of(pid), mark, "look {look}");
    }
    drop(input);
}

#[tokio::test]
async fn an_agent_is_stopped_whose_task_panics() {
    let (input, startup) = input("trap '' TERM; sleep 60 & wait", "", LIMITS).await;
    let pid = startup.pid().unwrap();
    let task = tokio::spawn(async move {
        let _input = input;
        panic!("at the wrong moment");
    });
    assert!(task.await.is_err());
    until(|| !is_alive(pid)).await;
}

/// Starts `true` and waits until it is started.
async fn starts(spawner: &'static Spawner) {
    let command =
        AgentCommand { program: "/bin/true".into(), args: vec![], cwd: "/".into(), env: vec![] };
    let (done, started) = oneshot::channel();
    let startup = Arc::new(Startup::default());
    spawner.spawn(move || (command, None), new_mark(), startup, |spawned| drop(done.send(spawned)));
    abandon(started.await.unwrap().unwrap()).await;
}

#[tokio::test]
async fn starts_that_hang_hold_up_no_other() {
    let spawner = Spawner::with_own_threads();
    starts(spawner).await;
    let mut hanging = Vec::new();
    for _ in 0..3 {
        let (go_on, wait) = std::sync::mpsc::channel::<()>();
        let startup = Arc::new(Startup::default());
        let prepare = move || {
            // As a look at a file system that does not answer.
            let _ = wait.recv();
            panic!("it goes on at last");
        };
        let (done, ended) = oneshot::channel();
        spawner.spawn(prepare, new_mark(), startup, |spawned| drop(done.send(spawned)));
        hanging.push((go_on, ended));
        // Behind it, and before anybody knows that it hangs.
        starts(spawner).await;
    }
    assert!(spawner.stuck().is_none());
    for (go_on, ended) in hanging {
        drop(go_on);
        assert!(ended.await.is_err(), "whoever waits for a start that panics learns it");
    }
    starts(spawner).await;
}

#[tokio::test]
async fn a_start_is_given_up_when_all_threads_hang() {
    let spawner = Spawner::with_own_threads();
    let mut hanging = Vec::new();
    for _ in 0..=spawn::THREADS {
        let (go_on, wait) = std::sync::mpsc::channel::<()>();
        let prepare = move || {
            let _ = wait.recv();
            panic!("it goes on at last");
        };
        spawner.spawn(prepare, new_mark(), Arc::default(), drop);
        hanging.push(go_on);
    }
    until(|| spawner.stuck() == Some(spawn::THREADS)).await;
    drop(hanging);
    until(|| spawner.stuck().is_none()).await;
}

#[tokio::test]
async fn an_agent_is_killed_whose_pipes_cannot_be_watched() {
    for is_stdout in [true, false] {
        let startup = Arc::new(Startup::default());
        let script = "trap '' TERM PIPE; sleep 60 & wait";
        let mut spawned = start(script, "", &startup).await.unwrap();
        // Refused as the system refuses when a user has too many watches.
        let no_pipe: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
        match is_stdout {
            true => spawned.stdout = no_pipe,
            false => spawned.stderr = no_pipe,
        }
        let pid = startup.pid().unwrap();
        assert!(ProcessInput::new(spawned, Arc::clone(&startup), LIMITS).is_err());
        assert!(startup.has_ended());
        until(|| !is_alive(pid)).await;
    }
}
