//! What readers need of a run: its events, how it ended, and who is to be woken.
//!
//! A run's task fills it. Readers are cursors into its log; the log is freed when nobody may ask for
//! it any more, whatever still refers to the feed. It knows neither processes nor sessions nor
//! formats.

mod end;

pub use end::{Outcome, Reason, RunEnd, metadata_at_start};

use crate::{
    event_log::{EventLog, NewEntries},
    frames::{FrameLog, Kept, Protocol},
};
use std::{
    ops::AddAssign,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// How long a reader of bytes may stand still, when the run is forgotten, before its events go.
pub const STALLED: Duration = Duration::from_secs(4);

/// Somebody who wants to know when a run has news. Called without any lock held, from any thread;
/// must not block.
pub trait Watcher: Send + Sync {
    /// The run of this number has new events, is over, or has left the registry.
    fn wake(&self, run: u32);
}

/// What became of the lines of an agent's stdout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineCounts {
    /// Read as JSON and meant for this run.
    pub read: u64,
    /// Not JSON, or `null`.
    pub unreadable: u64,
    /// Meant for another session.
    pub other_session: u64,
    /// Longer than the limit.
    pub too_long: u64,
    /// When the last of them came, in milliseconds since 1970.
    pub last_at: Option<u64>,
}

impl AddAssign for LineCounts {
    fn add_assign(&mut self, other: Self) {
        self.read += other.read;
        self.unreadable += other.unreadable;
        self.other_session += other.other_session;
        self.too_long += other.too_long;
        self.last_at = self.last_at.max(other.last_at);
    }
}

/// A run as it is read.
pub struct Feed {
    run: u32,
    /// The most bytes that its events and frames may take together.
    most_bytes: usize,
    published: Mutex<Published>,
    frames: Mutex<Frames>,
    kept: Arc<Kept>,
    readers: Mutex<Readers>,
    /// A reader has gone.
    one_less: Notify,
}

#[derive(Default)]
struct Published {
    log: EventLog,
    end: Option<RunEnd>,
    has_left: bool,
    is_freed: bool,
    watchers: Vec<Weak<dyn Watcher>>,
    lines: LineCounts,
}

/// The run's frames by protocol: stretches of the run in order, each of which ends where the next one
/// begins. Made when somebody asks for them: most runs are read in one protocol, or in none.
#[derive(Default)]
struct Frames {
    module: Vec<Arc<FrameLog>>,
    ai_sdk: Vec<Arc<FrameLog>>,
}

impl Frames {
    fn of(&mut self, protocol: Protocol) -> &mut Vec<Arc<FrameLog>> {
        match protocol {
            Protocol::Module => &mut self.module,
            Protocol::AiSdk => &mut self.ai_sdk,
        }
    }

    fn all(&self) -> impl Iterator<Item = &Arc<FrameLog>> {
        self.module.iter().chain(&self.ai_sdk)
    }
}

/// Those who have not read to the end.
#[derive(Default)]
struct Readers {
    /// Who is told of events, and will be: they wait for nothing but their own thread.
    told: usize,
    /// Who pulls bytes at the pace of a connection, and when the last of them did.
    pulling: usize,
    last_pull: Option<Instant>,
}

/// Keeps the events of a feed while a reader has not come to their end.
pub struct Reading {
    feed: Arc<Feed>,
    is_pulling: bool,
}

impl Reading {
    /// Bytes were pulled: the reader does not stand still.
    pub fn pulled(&self) {
        self.feed.pulled();
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut readers = self.feed.readers();
        match self.is_pulling {
            true => readers.pulling -= 1,
            false => readers.told -= 1,
        }
        drop(readers);
        self.feed.one_less.notify_one();
    }
}

impl Feed {
    /// Of the run of this number, of which about `most_bytes` may be kept; nothing has happened yet.
    pub fn new(run: u32, most_bytes: usize) -> Self {
        Self {
            run,
            most_bytes,
            published: Mutex::default(),
            frames: Mutex::default(),
            kept: Arc::new(Kept::new(most_bytes)),
            readers: Mutex::default(),
            one_less: Notify::new(),
        }
    }

    /// How the run ended; none while it runs.
    pub fn end(&self) -> Option<RunEnd> {
        self.published().end.clone()
    }

    /// Whether the run is running.
    pub fn is_running(&self) -> bool {
        self.published().end.is_none()
    }

    /// Whether the run is no longer to be found by its session.
    pub fn has_left(&self) -> bool {
        self.published().has_left
    }

    /// Whether the events are gone.
    pub fn is_freed(&self) -> bool {
        self.published().is_freed
    }

    /// What became of the agent's lines so far.
    pub fn lines(&self) -> LineCounts {
        self.published().lines
    }

    /// Calls `read` with the log, and with whether nothing will be added to it. The log is locked
    /// meanwhile: to be short.
    pub fn with_log<R>(&self, read: impl FnOnce(&EventLog, bool) -> R) -> R {
        let published = self.published();
        read(&published.log, published.end.is_some())
    }

    /// The frames that event number `event` belongs to, shared by all who read them in this protocol.
    /// None but a few are encoded before it: who begins somewhere in the run does not wait for what is
    /// before.
    pub fn frames_from(&self, protocol: Protocol, event: u64) -> Arc<FrameLog> {
        let mut frames = self.frames();
        let stretches = frames.of(protocol);
        let behind = stretches.partition_point(|stretch| stretch.first() <= event);
        let end = stretches.get(behind).map(|next| next.first());
        let before = behind.checked_sub(1).map(|index| &stretches[index]);
        let begin = self.with_log(|log, _| {
            let begin = log.cursor_near(event);
            let is_near = before.is_some_and(|before| !before.end_before(log, &begin));
            (!is_near).then_some(begin)
        });
        if let (Some(before), None) = (before, &begin) {
            return Arc::clone(before);
        }
        let (begin, kept) = (begin.unwrap_or_default(), Arc::clone(&self.kept));
        let made = Arc::new(FrameLog::new(protocol, stretches.len(), begin, end, kept));
        stretches.insert(behind, Arc::clone(&made));
        made
    }

    /// The frames among which this offset is; none when they are gone.
    pub fn frames_at(&self, protocol: Protocol, offset: usize) -> Option<Arc<FrameLog>> {
        self.frames().of(protocol).iter().find(|stretch| stretch.has(offset)).cloned()
    }

    /// How many events have been encoded as frames, in all protocols together.
    pub fn frames_encoded(&self) -> u64 {
        self.frames().all().map(|stretch| stretch.encoded().0 - stretch.first()).sum()
    }

    /// Encodes more of these frames. `run` is the run's stamp. False when there was nothing to encode.
    pub fn encode_more(&self, frames: &FrameLog, run: u64) -> bool {
        let is_more = self.with_log(|log, _| frames.encode_more(log, run));
        self.free_frames();
        is_more
    }

    /// Appends these frames from `offset` on to `out`, until that has `limit` bytes or all that is encoded
    /// is read. Returns the offset behind them.
    pub fn read_frames(
        &self,
        frames: &FrameLog,
        run: u64,
        mut offset: usize,
        limit: usize,
        out: &mut Vec<u8>,
    ) -> usize {
        while out.len() < limit {
            let before = offset;
            offset = match frames.is_gone(offset) {
                true => self.with_log(|log, _| frames.read_again(offset, limit, log, run, out)),
                false => frames.read(offset, limit, out),
            };
            // Unless it has just gone, it is all.
            if offset == before && (self.is_freed() || !frames.is_gone(offset)) {
                break;
            }
        }
        offset
    }

    /// The memory that the frames take, in bytes.
    pub fn frame_bytes(&self) -> usize {
        self.kept.bytes()
    }

    /// Frees the frames that were encoded first, until no more are kept than may be.
    fn free_frames(&self) {
        while self.kept.is_too_much() {
            let oldest = {
                let frames = self.frames();
                let times = frames.all().filter_map(|stretch| Some((stretch.oldest()?, stretch)));
                times.min_by_key(|(time, _)| *time).map(|(_, stretch)| Arc::clone(stretch))
            };
            let Some(oldest) = oldest else { break };
            // Here no lock is held: it takes the system a while.
            oldest.free_first();
        }
    }

    /// How many bytes the frames may take, next to the events.
    fn most_frames(&self, log: &EventLog) -> usize {
        self.most_bytes.saturating_sub(log.bytes())
    }

    /// Has `watcher` woken by whatever is published from now on.
    pub fn watch(&self, watcher: &Arc<dyn Watcher>) {
        let watcher = Arc::downgrade(watcher);
        let mut published = self.published();
        published.watchers.retain(|known| known.strong_count() > 0);
        if !published.watchers.iter().any(|known| known.ptr_eq(&watcher)) {
            published.watchers.push(watcher);
        }
    }

    /// Keeps the events for somebody who is told of them, until the result is dropped.
    pub fn reading(self: &Arc<Self>) -> Reading {
        self.readers().told += 1;
        Reading { feed: Arc::clone(self), is_pulling: false }
    }

    /// Keeps the events for somebody who pulls them as bytes, until the result is dropped or, when
    /// the run is forgotten, has stood still for [`STALLED`].
    pub fn pulling(self: &Arc<Self>) -> Reading {
        let mut readers = self.readers();
        readers.pulling += 1;
        readers.last_pull = Some(Instant::now());
        Reading { feed: Arc::clone(self), is_pulling: true }
    }

    /// Bytes were pulled: those who pull do not stand still.
    pub fn pulled(&self) {
        self.readers().last_pull = Some(Instant::now());
    }

    /// Adds events to the log, if there are any, with the counts of the lines that they came from.
    pub(crate) fn append(&self, new: &mut NewEntries, lines: LineCounts) {
        if new.is_empty() {
            // Skipped lines are nobody's news.
            self.published().lines = lines;
            return;
        }
        self.publish(|published| {
            published.log.append(new);
            published.lines = lines;
            self.kept.set_most(self.most_frames(&published.log));
        });
        self.free_frames();
    }

    /// The run is over.
    pub(crate) fn finish(&self, end: RunEnd) {
        self.publish(|published| published.end = Some(end));
    }

    /// The run is no longer to be found by its session.
    pub(crate) fn leave(&self) {
        self.publish(|published| published.has_left = true);
    }

    /// Waits until all who read the events have read them, or stand still, and frees the events.
    /// Returns the bytes that were freed.
    pub(crate) async fn free(&self) -> usize {
        let log = loop {
            let until = match self.take_log() {
                Ok(log) => break log,
                Err(until) => until,
            };
            tokio::select! {
                () = self.one_less.notified() => {}
                () = sleep_until(until) => {}
            }
        };
        let frames = std::mem::take(&mut *self.frames());
        let bytes = log.bytes() + self.kept.bytes();
        frames.all().for_each(|stretch| stretch.free());
        self.kept.forget();
        bytes
    }

    /// Takes the events away, unless they are kept for a reader: then it says when to try again.
    fn take_log(&self) -> Result<EventLog, Instant> {
        // Held until the events count as gone: whoever begins to read keeps them or knows.
        let readers = self.readers();
        let now = Instant::now();
        if readers.told > 0 {
            return Err(now + STALLED);
        }
        let stalls_at = readers.last_pull.filter(|_| readers.pulling > 0).map(|at| at + STALLED);
        if let Some(until) = stalls_at.filter(|&until| until > now) {
            return Err(until);
        }
        let mut published = self.published();
        published.is_freed = true;
        Ok(std::mem::take(&mut published.log))
    }

    fn publish(&self, change: impl FnOnce(&mut Published)) {
        let watchers: Vec<_> = {
            let mut published = self.published();
            change(&mut published);
            published.watchers.iter().filter_map(Weak::upgrade).collect()
        };
        for watcher in watchers {
            watcher.wake(self.run);
        }
    }

    fn published(&self) -> MutexGuard<'_, Published> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn frames(&self) -> MutexGuard<'_, Frames> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn readers(&self) -> MutexGuard<'_, Readers> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn events_are_kept_for_who_is_told_of_them() {
        let feed = Arc::new(Feed::new(1, usize::MAX));
        let reading = feed.reading();
        let freed = tokio::spawn({
            let feed = Arc::clone(&feed);
            async move { feed.free().await }
        });
        tokio::time::sleep(STALLED * 20).await;
        assert!(!feed.is_freed());
        drop(reading);
        freed.await.unwrap();
        assert!(feed.is_freed());
    }

    #[tokio::test(start_paused = true)]
    async fn events_are_kept_for_who_pulls_them_but_not_for_who_stands_still() {
        let feed = Arc::new(Feed::new(1, usize::MAX));
        let pulling = feed.pulling();
        let freed = tokio::spawn({
            let feed = Arc::clone(&feed);
            async move { feed.free().await }
        });
        for _ in 0..10 {
            tokio::time::sleep(STALLED / 2).await;
            pulling.pulled();
        }
        assert!(!feed.is_freed());
        tokio::time::sleep(STALLED * 2).await;
        assert!(feed.is_freed());
        freed.await.unwrap();
    }
}
