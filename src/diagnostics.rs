//! What the server's operator should see: warnings, and what agents write to stderr.
//!
//! Warnings go to whoever listens for them, else to the process' stderr. One thread writes there, so
//! that a terminal or pipe that is slow to take it holds up neither JavaScript nor the engine. It is
//! started by the first line that needs it.

use crate::session_id::SessionId;
use once_cell::sync::OnceCell;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    io::{self, Write},
    panic,
    sync::{
        Arc, Mutex, Once, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};
use tokio::sync::mpsc::{Permit, Sender, channel};

/// Chunks that may wait for the writer; one is at most a pipe's worth.
const QUEUE: usize = 64;

#[derive(Debug)]
enum Item {
    Text(Vec<u8>),
    Flush(SyncSender<()>),
}

static WRITER: OnceCell<Sender<Item>> = OnceCell::new();

/// None while the system refuses the thread; the next line tries again.
fn writer() -> Option<&'static Sender<Item>> {
    let start = || {
        let (sender, mut receiver) = channel(QUEUE);
        let writer = move || {
            while let Some(item) = receiver.blocking_recv() {
                match item {
                    Item::Text(text) => write_out(&text),
                    // A caller that stopped waiting does not mind.
                    Item::Flush(done) => drop(done.try_send(())),
                }
            }
        };
        thread::Builder::new().name("active-runs-log".into()).spawn(writer)?;
        Ok::<_, io::Error>(sender)
    };
    WRITER.get_or_try_init(start).ok()
}

/// Something that went wrong and stopped nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// A stable word for its kind.
    pub code: &'static str,
    /// A sentence for people, without line ends.
    pub message: String,
    /// The session that it is about.
    pub session: Option<SessionId>,
}

/// Who wants to be told of warnings. Called from any thread, without a lock held; must not block.
pub trait WarningListener: Send + Sync {
    /// Takes the warning. False when it cannot.
    fn warned(&self, warning: &Warning) -> bool;
}

static LISTENERS: Mutex<Vec<Weak<dyn WarningListener>>> = Mutex::new(Vec::new());

/// Adds a listener, which is asked for as long as it exists.
pub fn listen(listener: &Arc<dyn WarningListener>) {
    let listener = Arc::downgrade(listener);
    let mut listeners = LISTENERS.lock().unwrap_or_else(PoisonError::into_inner);
    listeners.retain(|known| known.strong_count() > 0 && !known.ptr_eq(&listener));
    listeners.push(listener);
}

/// Says what went wrong, once: to all listeners, or on stderr where none takes it.
pub fn warn(warning: &Warning) {
    let listeners: Vec<_> = {
        let listeners = LISTENERS.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.iter().filter_map(Weak::upgrade).collect()
    };
    let taken = listeners.iter().filter(|listener| listener.warned(warning)).count();
    if taken == 0 {
        print(warning);
    }
}

/// Writes the warning to stderr, in a line of its own. Never waits: behind a stuck terminal, the
/// line is dropped.
pub fn print(warning: &Warning) {
    if let Some(writer) = writer() {
        drop(writer.try_send(Item::Text(prefixed("[active-runs] ", &warning.message))));
    }
}

/// Bytes of agents' stderr that were dropped.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Room for some lines of an agent's stderr.
#[derive(Debug)]
pub struct StderrRoom(Permit<'static, Item>);

/// Waits until there is room for more of an agent's stderr. None when the system refuses the thread
/// that writes.
pub async fn room_for_stderr() -> Option<StderrRoom> {
    // The writer thread never ends, so neither does its channel.
    writer()?.reserve().await.ok().map(StderrRoom)
}

/// Passes on lines that an agent wrote to stderr. Never waits: where no room was kept for them, and
/// there is none, they are dropped and counted.
pub fn agent_stderr(lines: &[u8], room: Option<StderrRoom>) {
    let item = Item::Text(prefixed("[active-runs stderr] ", &String::from_utf8_lossy(lines)));
    let is_sent = match room {
        Some(StderrRoom(permit)) => {
            permit.send(item);
            true
        }
        None => writer().is_some_and(|writer| writer.try_send(item).is_ok()),
    };
    if !is_sent {
        DROPPED.fetch_add(lines.len() as u64, Ordering::Relaxed);
    }
}

/// How many bytes of agents' stderr were dropped, because nobody read the server's own.
pub fn dropped_stderr() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Waits until all that was said is written, but no longer than `patience`.
pub fn flush(patience: Duration) {
    let Some(writer) = WRITER.get() else { return };
    let (done, written) = sync_channel(1);
    if writer.try_send(Item::Flush(done)).is_ok() {
        let _ = written.recv_timeout(patience);
    }
}

fn prefixed(prefix: &str, text: &str) -> Vec<u8> {
    text.lines().flat_map(|line| [prefix, line, "\n"]).collect::<String>().into_bytes()
}

/// Since when the writer has been waiting until stderr takes what it writes.
static WAITING_SINCE: Mutex<Option<Instant>> = Mutex::new(None);

fn set_waiting(since: Option<Instant>) {
    *WAITING_SINCE.lock().unwrap_or_else(PoisonError::into_inner) = since;
}

/// How long stderr has taken nothing; zero while it does, or nobody writes to it.
pub fn stderr_stuck_for() -> Duration {
    let since = *WAITING_SINCE.lock().unwrap_or_else(PoisonError::into_inner);
    since.map_or(Duration::ZERO, |since| since.elapsed())
}

fn write_out(text: &[u8]) {
    set_waiting(Some(Instant::now()));
    write_all(text);
    set_waiting(None);
}

fn write_all(mut text: &[u8]) {
    let mut stderr = io::stderr().lock();
    while !text.is_empty() {
        let written = stderr.write(text);
        if written.is_ok() {
            set_waiting(Some(Instant::now()));
        }
        match written {
            Ok(0) => return,
            Ok(written) => text = &text[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Node makes a pipe or terminal on stderr non-blocking; ours is the thread that waits.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait_until_writable(),
            // Nobody is left to tell.
            Err(_) => return,
        }
    }
}

fn wait_until_writable() {
    if poll_stderr(None).is_err() {
        thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until stderr takes something; whether it does after this time.
fn poll_stderr(time: Option<&Timespec>) -> io::Result<bool> {
    let stderr = rustix::stdio::stderr();
    let mut fds = [PollFd::new(&stderr, PollFlags::OUT)];
    Ok(poll(&mut fds, time)? > 0)
}

/// Has panics told on stderr only where that takes them at once: the thread that panics may be one that
/// must not wait, and what tells them usually would.
pub fn tell_panics_without_waiting() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        panic::set_hook(Box::new(|info| {
            let thread = thread::current();
            let thread = thread.name().unwrap_or("a thread of Node.js");
            let mut text = prefixed("[active-runs] ", &format!("{thread} {info}"));
            // A pipe that has room for anything has room for so much.
            text.truncate(4_096);
            // Not by the writer: a panic in a panic ends the process when this returns.
            if poll_stderr(Some(&Timespec::default())).unwrap_or(false) {
                let _ = rustix::io::write(rustix::stdio::stderr(), &text);
            }
        }));
    });
}
