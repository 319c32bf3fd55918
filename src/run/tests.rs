//! Whole runs, driven through an input without a process.

use super::*;
use crate::{
    deletion::{self, Author},
    disk::disk,
    feed::{Reason, RunEnd, Watcher},
    input::{
        Exit,
        scripted::{Asked, Script, Scripted, scripted},
    },
    persistence::Persistence,
    store::Store,
};
use lifecycle::{Host, Start, drive};
use std::{
    ops::ControlFlow,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{sync::mpsc::UnboundedReceiver, task::JoinHandle, time::sleep};

/// What the run told its host.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<&'static str>>>);

impl Host for Told {
    fn unfinished(&mut self, _runs: &[crate::json::JsonString]) {}

    fn over(&mut self) {
        self.0.lock().unwrap().push("over");
    }

    fn forgotten(&mut self) {
        self.0.lock().unwrap().push("forgotten");
    }
}

/// A run in a store of its own.
struct Stage {
    run: Arc<Run>,
    store: Arc<Store>,
    folder: tempfile::TempDir,
    told: Told,
    commands: Option<UnboundedReceiver<Command>>,
}

fn stage(change: impl FnOnce(&mut Settings)) -> Stage {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = Settings { persist_interval: Duration::ZERO, ..Settings::default() };
    settings.cleanup_grace = Duration::from_secs(30);
    change(&mut settings);
    let session = SessionId::new("s").unwrap();
    let (run, commands) = Run::new(1, session, None, 5, 5, Arc::new(settings));
    Stage {
        run: Arc::new(run),
        store: Store::at(folder.path()),
        folder,
        told: Told::default(),
        commands: Some(commands),
    }
}

impl Stage {
    fn drive(&mut self, start: Start<Scripted>) -> JoinHandle<()> {
        self.drive_when(async { start })
    }

    fn drive_when(
        &mut self,
        start: impl Future<Output = Start<Scripted>> + Send + 'static,
    ) -> JoinHandle<()> {
        let question = Question {
            format: FormatName::default(),
            prompt: Prompt::default(),
            errors: Errors::Full,
            earlier_runs: Vec::new(),
        };
        let settings = &self.run.settings;
        let session = self.run.session.clone();
        let (disk, store) = (disk().unwrap(), Arc::clone(&self.store));
        let author = Author::new(self.run.id, &store, &session);
        let persistence =
            Persistence::new(disk, store, session, author, None, settings.persist_interval);
        let commands = self.commands.take().unwrap();
        let (run, told) = (Arc::clone(&self.run), self.told.clone());
        tokio::spawn(drive(run, question, start, commands, persistence, told))
    }

    /// Drives the run on an input of the test's.
    fn play(&mut self, is_obedient: bool) -> (Script, JoinHandle<()>) {
        let (input, script) = scripted(is_obedient);
        assert!(self.run.startup.wanted(), "it has been started");
        (script, self.drive(Start::Started(input)))
    }

    async fn end(&self) -> RunEnd {
        loop {
            if let Some(end) = self.run.feed.end() {
                return end;
            }
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// The texts of the stream, joined.
    fn text(&self) -> String {
        let mut text = String::new();
        self.run.feed.with_log(|log, _| {
            log.read(&mut log.cursor_at(0), |entry, _| {
                if entry.kind == crate::event_log::Kind::TextDelta {
                    text.push_str(std::str::from_utf8(entry.payload).unwrap());
                }
                ControlFlow::Continue(())
            });
        });
        text
    }

    fn stored(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("s.jsonl")).unwrap_or_default()
    }

    async fn until(&self, condition: impl Fn(&Self) -> bool) {
        while !condition(self) {
            sleep(Duration::from_millis(1)).await;
        }
    }
}

fn text(delta: &str) -> String {
    format!("{{\"event\":\"agent\",\"stream\":\"assistant\",\"data\":{{\"delta\":\"{delta}\"}}}}\n")
}

const TOOL: &str = "{\"event\":\"agent\",\"stream\":\"tool\",\"data\":{\"phase\":\"start\",\"toolCallId\":\"t\",\"name\":\"x\"}}\n";
const RESULT: &str = "{\"event\":\"agent\",\"stream\":\"tool\",\"data\":{\"phase\":\"result\",\"toolCallId\":\"t\",\"result\":\"r\"}}\n";

#[tokio::test]
async fn an_input_that_ends_well_completes_the_run() {
    let mut stage = stage(|_| {});
    let (script, _) = stage.play(true);
    let line = text("a");
    script.print(&line.as_bytes()[..20]);
    script.print(&line.as_bytes()[20..]);
    script.print(text("b"));
    script.end(Exit::Code(0), "a warning: no error");
    let end = stage.end().await;
    assert_eq!((end.reason, end.exit_code, end.error), (Reason::Completed, Some(0), None));
    assert_eq!(stage.text(), "ab");
    assert!(stage.stored().contains(r#""content":"ab""#), "stored before the end is told");
    assert!(!stage.stored().contains("_streaming"));
    stage.until(|stage| *stage.told.0.lock().unwrap() == ["over"]).await;
}

#[tokio::test]
async fn a_run_whose_session_is_deleted_writes_no_more_and_stays_readable() {
    let mut stage = stage(|_| {});
    let (script, _) = stage.play(true);
    script.print(text("a"));
    stage.until(|stage| stage.stored().contains(r#""content":"a""#)).await;
    let discarded = deletion::discard(&stage.store, &stage.run.session);
    assert!(discarded.has(stage.run.id) && !discarded.has(stage.run.id + 1));
    script.print(text("b"));
    script.end(Exit::Code(0), "");
    // Not before the run is over and its last write has ended.
    discarded.gone().await;
    assert_eq!(*stage.told.0.lock().unwrap(), ["over"]);
    assert_eq!(stage.text(), "ab");
    assert!(stage.stored().contains(r#""content":"a""#) && stage.stored().contains("_streaming"));
    assert!(deletion::discard(&stage.store, &stage.run.session).is_empty());
}

#[tokio::test]
async fn who_deletes_a_session_means_the_runs_of_that_store() {
    let mut stage = stage(|_| {});
    let (script, _) = stage.play(true);
    let other = tempfile::tempdir().unwrap();
    assert!(deletion::discard(&Store::at(other.path()), &stage.run.session).is_empty());
    script.print(text("a"));
    script.end(Exit::Code(0), "");
    stage.end().await;
    assert!(stage.stored().contains(r#""content":"a""#));
}

#[tokio::test]
async fn the_reason_says_how_an_input_ended() {
    for (exit, reason, code, signal) in [
        (Exit::Code(7), Reason::Failed, Some(7), None),
        (Exit::Signal(9), Reason::Killed, None, Some(9)),
        (Exit::Unknown, Reason::Failed, None, None),
    ] {
        let mut stage = stage(|_| {});
        let (script, _) = stage.play(true);
        script.print(text("a"));
        script.end(exit, "Error: the reason");
        let end = stage.end().await;
        assert_eq!((end.reason, end.exit_code, end.signal), (reason, code, signal));
        assert_eq!(end.error.as_deref(), Some("the reason"));
        assert_eq!(stage.text(), "a[error] the reason");
    }
}

#[tokio::test]
async fn a_start_that_fails_is_told() {
    let mut stage = stage(|_| {});
    stage.drive(Start::Failed { error: "spawn x ENOENT".into(), exit_code: -2 });
    let end = stage.end().await;
    assert_eq!((end.reason, end.exit_code), (Reason::StartFailed, Some(-2)));
    assert_eq!(stage.text(), "[error] Failed to start agent: spawn x ENOENT");
    assert!(end.is_error());
}

#[tokio::test]
async fn a_start_that_is_cancelled_ends_the_run_for_its_reason() {
    for is_server_ending in [false, true] {
        let mut stage = stage(|_| {});
        match is_server_ending {
            true => stage.run.hurry(),
            false => assert!(stage.run.abort()),
        }
        assert!(!stage.run.startup.wanted(), "it never passes the gate");
        stage.run.startup.ended();
        stage.drive(Start::Cancelled);
        let end = stage.end().await;
        let reason = if is_server_ending { Reason::Interrupted } else { Reason::Aborted };
        assert_eq!((end.reason, end.exit_code, end.error), (reason, None, None));
        assert!(!stage.run.abort(), "there is nothing to abort");
        assert!(!stage.run.signal(2));
    }
}

#[tokio::test]
async fn a_run_whose_start_hangs_can_be_aborted() {
    let mut stage = stage(|_| {});
    let task = stage.drive_when(std::future::pending());
    assert!(stage.run.signal(10), "it waits for the start");
    assert!(stage.run.abort());
    assert_eq!(stage.end().await.reason, Reason::Aborted);
    assert!(!stage.run.startup.wanted());
    task.abort();
}

#[tokio::test]
async fn a_stop_that_comes_behind_the_gate_reaches_the_input() {
    let mut stage = stage(|_| {});
    let (input, script) = scripted(true);
    let (started, start) = tokio::sync::oneshot::channel();
    assert!(stage.run.startup.wanted());
    stage.drive_when(async { start.await.unwrap() });
    assert!(stage.run.abort());
    sleep(Duration::from_millis(20)).await;
    assert!(stage.run.feed.is_running());
    started.send(Start::Started(input)).ok().unwrap();
    assert_eq!(stage.end().await.reason, Reason::Aborted);
    assert_eq!(script.asked().len(), 1);
}

#[tokio::test]
async fn a_last_line_may_be_the_one_that_is_too_much() {
    let mut stage = stage(|settings| settings.max_run_bytes = 100);
    let (script, _) = stage.play(true);
    script.print(text(&"x".repeat(200)).trim_end());
    script.end(Exit::Code(0), "");
    let end = stage.end().await;
    assert_eq!((end.reason, end.is_error()), (Reason::TooLarge, true));
}

#[tokio::test]
async fn an_abort_stops_the_input_and_is_the_reason_whatever_the_exit() {
    let mut stage = stage(|settings| settings.kill_after = Duration::from_secs(7));
    let (script, _) = stage.play(false);
    stage.run.startup.started(4711);
    script.print(text("a"));
    stage.until(|stage| stage.text() == "a").await;
    assert!(stage.run.signal(10) && stage.run.signal(0));
    assert!(stage.run.abort());
    let expected = [Asked::Signal(10), Asked::Stop(Duration::from_secs(7))];
    stage.until(|_| script.asked() == expected).await;
    script.print(text("b"));
    script.end(Exit::Code(143), "Error: terminated");
    let end = stage.end().await;
    assert_eq!((end.reason, end.exit_code, end.error), (Reason::Aborted, Some(143), None));
    assert_eq!(stage.text(), "ab", "a stopped agent's stderr is no error");
}

#[tokio::test]
async fn the_first_reason_stays_and_the_sooner_kill_counts() {
    let mut stage = stage(|settings| settings.kill_after = Duration::from_secs(7));
    let (script, _) = stage.play(false);
    stage.run.abort();
    stage.run.hurry();
    let expected = [Asked::Stop(Duration::from_secs(7)), Asked::Stop(HURRIED_KILL), Asked::Hurry];
    stage.until(|_| script.asked() == expected).await;
    script.end(Exit::Signal(9), "");
    assert_eq!(stage.end().await.reason, Reason::Aborted);
}

#[tokio::test]
async fn a_run_that_grows_too_large_is_stopped_once() {
    let mut stage = stage(|settings| settings.max_run_bytes = 100);
    let (script, _) = stage.play(true);
    script.print(text(&"x".repeat(90)) + &text(&"y".repeat(90)) + &text("z"));
    let end = stage.end().await;
    assert_eq!(end.reason, Reason::TooLarge);
    assert!(end.error.unwrap().contains("100 bytes (maxRunBytes)"));
    assert_eq!(script.asked().len(), 1);
    assert!(!stage.text().contains('z'));
}

#[tokio::test(start_paused = true)]
async fn silence_stops_a_run_but_not_while_a_tool_is_at_work() {
    let mut stage = stage(|settings| settings.max_silence = Duration::from_millis(500));
    let (script, _) = stage.play(true);
    for _ in 0..5 {
        sleep(Duration::from_millis(400)).await;
        script.print("not even JSON\n");
    }
    script.print(TOOL);
    sleep(Duration::from_secs(60)).await;
    assert!(stage.run.feed.is_running(), "a tool may be silent");
    script.print(RESULT);
    let resulted = tokio::time::Instant::now();
    let end = stage.end().await;
    assert!(resulted.elapsed() >= Duration::from_millis(500));
    assert_eq!(end.reason, Reason::TimedOut);
    let error = "The agent printed nothing for 500 ms (maxSilenceMs) and was stopped";
    assert_eq!(end.error.as_deref(), Some(error));
    assert_eq!(stage.text(), format!("[error] {error}"));
    assert!(stage.run.feed.lines().last_at.is_some());
}

#[tokio::test(start_paused = true)]
async fn bytes_without_a_line_end_are_silence() {
    let mut stage = stage(|settings| settings.max_silence = Duration::from_millis(300));
    let (script, _) = stage.play(true);
    let began = tokio::time::Instant::now();
    while stage.run.feed.is_running() && began.elapsed() < Duration::from_secs(5) {
        script.print("x");
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(stage.end().await.reason, Reason::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn a_tool_is_no_excuse_for_silence_behind_the_end_of_its_turn() {
    let mut stage = stage(|settings| settings.max_silence = Duration::from_millis(300));
    let (script, _) = stage.play(true);
    script.print(TOOL);
    script.print("{\"event\":\"agent\",\"stream\":\"lifecycle\",\"data\":{\"phase\":\"end\"}}\n");
    assert_eq!(stage.end().await.reason, Reason::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_takes_too_long_is_stopped_however_much_it_prints() {
    let mut stage = stage(|settings| settings.max_run = Duration::from_secs(3));
    let (script, _) = stage.play(true);
    let began = tokio::time::Instant::now();
    while stage.run.feed.is_running() {
        script.print(text("a"));
        sleep(Duration::from_millis(100)).await;
    }
    assert!(began.elapsed() >= Duration::from_secs(3));
    let end = stage.end().await;
    assert_eq!(end.reason, Reason::TimedOut);
    assert!(end.error.unwrap().contains("3000 ms (maxRunMs)"));
}

#[tokio::test]
async fn an_end_that_is_not_stopped_but_was_asked_for_is_an_abort() {
    let mut stage = stage(|_| {});
    let (input, script) = scripted(false);
    stage.run.abort();
    script.end(Exit::Code(0), "");
    stage.drive(Start::Started(input));
    assert_eq!(stage.end().await.reason, Reason::Aborted);
}

#[tokio::test(start_paused = true)]
async fn the_events_go_when_the_grace_is_over_whoever_holds_the_run() {
    let mut stage = stage(|_| {});
    let (script, task) = stage.play(true);
    script.print(text("a"));
    script.end(Exit::Code(0), "");
    let end = stage.end().await;
    assert_eq!(stage.text(), "a");
    task.await.unwrap();
    assert_eq!(*stage.told.0.lock().unwrap(), ["over", "forgotten"]);
    stage.until(|stage| stage.run.feed.is_freed()).await;
    assert_eq!(stage.text(), "");
    assert_eq!(stage.run.feed.end(), Some(end), "how it ended is still known");
}

#[tokio::test]
async fn a_watcher_is_woken_by_what_is_new() {
    struct Count(AtomicUsize);
    impl Watcher for Count {
        fn wake(&self, run: u32) {
            assert_eq!(run, 1);
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let mut stage = stage(|_| {});
    let count = Arc::new(Count(AtomicUsize::new(0)));
    stage.run.feed.watch(&(Arc::clone(&count) as Arc<dyn Watcher>));
    let (script, _) = stage.play(true);
    script.print("no news\n");
    script.print(text("a"));
    script.end(Exit::Code(0), "");
    stage.end().await;
    let news = count.0.load(Ordering::Relaxed);
    assert!((3..=4).contains(&news), "the text, its end and the run's: {news}");
}
