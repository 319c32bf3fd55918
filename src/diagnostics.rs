//! What the server's operator should see: warnings, and what agents write to stderr.
//!
//! One thread writes it to the process' stderr, so that a terminal or pipe that is slow to take it
//! holds up neither JavaScript nor the engine. It is started by the first line that needs it.

use once_cell::sync::OnceCell;
use std::{
    io::{self, Write},
    sync::mpsc::{SyncSender, sync_channel},
    thread,
    time::Duration,
};
use tokio::sync::mpsc::{Sender, channel};

/// Chunks that may wait for the writer; one is at most a pipe's worth.
const QUEUE: usize = 64;

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

/// Says what went wrong, once, in a line of its own. Never waits: behind a stuck terminal, the line
/// is dropped.
pub fn warn(message: &str) {
    if let Some(writer) = writer() {
        drop(writer.try_send(Item::Text(prefixed("[active-runs] ", message))));
    }
}

/// Passes on lines that an agent wrote to stderr. Waits while the server's own stderr is stuck, which in
/// turn holds up the agent's stderr and nothing else.
pub async fn agent_stderr(text: &str) {
    if let Some(writer) = writer() {
        // The writer thread never ends, so neither does its channel.
        drop(writer.send(Item::Text(prefixed("[active-runs stderr] ", text))).await);
    }
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

fn write_out(mut text: &[u8]) {
    let mut stderr = io::stderr().lock();
    while !text.is_empty() {
        match stderr.write(text) {
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
    use rustix::event::{PollFd, PollFlags, poll};
    let stderr = rustix::stdio::stderr();
    let mut fds = [PollFd::new(&stderr, PollFlags::OUT)];
    if poll(&mut fds, None).is_err() {
        thread::sleep(Duration::from_millis(5));
    }
}
