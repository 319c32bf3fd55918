//! When a run's answer is written: at once when there is something to keep, then at intervals, once
//! more before the end is announced, and again when somebody else's rewrite lost it.
//!
//! The store does the writing, on the `disk` threads; this decides when, sees that writes of one run do
//! not overlap, and says once when they fail.

use crate::{
    clock,
    deletion::Author,
    diagnostics::{self, Warning},
    disk::{Disk, Pending},
    error::Result,
    message::Message,
    session_id::SessionId,
    store::{Attempts, FIRST_PAUSE, GIVE_UP, LONGEST_PAUSE, LiveMessage, Store},
};
use once_cell::sync::Lazy;
use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, sleep_until, timeout},
};

/// A flush that takes long makes the next one wait this many times as long, so that writing never
/// takes more than this share of a disk thread's time.
const REST_FACTOR: u32 = 4;

/// The end of a run waits so long for others who are at work on the index.
const INDEX_PATIENCE: Duration = Duration::from_secs(1);

/// When, after its end, a run looks whether its message is still there: parts of the grace period.
const LOOKS: [f64; 4] = [1.0 / 30.0, 1.0 / 8.0, 1.0 / 2.0, 1.0];

/// Bytes that all messages may have together that wait for a better time.
static UNSAVED_BYTES: Semaphore = Semaphore::const_new(64 << 20);

/// Counts what is written to it.
struct Size(usize);

impl io::Write for Size {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The writing of one run's answer.
pub struct Persistence {
    disk: &'static Disk,
    store: Arc<Store>,
    session: SessionId,
    interval: Duration,
    /// There is something that the last flush did not have.
    is_dirty: bool,
    /// Not before this.
    next: Instant,
    in_flight: Option<(Instant, Pending<Result<()>>)>,
    /// The last write failed, and that was said.
    has_failed: bool,
    /// None once the session was deleted and the run is over: nothing will be written any more.
    author: Option<Author>,
    /// Says to other writers that the message's id is taken and its `_streaming` mark true.
    _claim: Option<LiveMessage>,
}

/// What became of the writes of answers in this process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlushCounts {
    /// That succeeded.
    pub written: u64,
    /// That did not.
    pub failed: u64,
    /// The failure that came last.
    pub last_failure: Option<FlushFailure>,
}

/// A write that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlushFailure {
    /// Whose answer it was.
    pub session: SessionId,
    /// Why.
    pub message: String,
    /// When, in milliseconds since 1970.
    pub at: u64,
}

static FLUSHES: Mutex<FlushCounts> =
    Mutex::new(FlushCounts { written: 0, failed: 0, last_failure: None });

/// The writes so far.
pub fn flushes() -> FlushCounts {
    FLUSHES.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// What [`Persistence::wait`] waited for.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// It is time for [`Persistence::start`].
    Due,
    /// A flush has ended; nothing to do.
    Ended,
}

impl Persistence {
    /// Nothing is written before something changed. `claim` is on the message.
    pub fn new(
        disk: &'static Disk,
        store: Arc<Store>,
        session: SessionId,
        author: Author,
        claim: Option<LiveMessage>,
        interval: Duration,
    ) -> Self {
        Self {
            disk,
            store,
            session,
            interval,
            is_dirty: false,
            next: Instant::now(),
            in_flight: None,
            has_failed: false,
            author: Some(author),
            _claim: claim,
        }
    }

    /// The message has something that is not on the disk.
    pub fn changed(&mut self) {
        self.is_dirty = true;
    }

    /// Waits for the next thing to happen; forever, while there is nothing to write. May be dropped
    /// and called again.
    pub async fn wait(&mut self) -> Step {
        if let Some((started, flush)) = &mut self.in_flight {
            let outcome = flush.await;
            let rest = started.elapsed() * REST_FACTOR;
            self.next = (*started + self.interval).max(Instant::now() + rest);
            self.in_flight = None;
            self.note(outcome);
            Step::Ended
        } else if self.is_dirty {
            sleep_until(self.next).await;
            Step::Due
        } else {
            std::future::pending().await
        }
    }

    /// Writes a snapshot of the running message, without waiting.
    pub fn start(&mut self, message: Message) {
        self.is_dirty = false;
        if self.is_discarded() {
            return;
        }
        self.in_flight = Some((Instant::now(), self.put(message, true)));
    }

    /// Writes the final message and waits until it is on the disk, or has failed.
    pub async fn finish(&mut self, message: Message) {
        if let Some((_, flush)) = self.in_flight.take() {
            let outcome = flush.await;
            self.note(outcome);
        }
        if !message.is_empty() {
            self.put_final(message).await;
        }
    }

    /// Looks after the message for the grace period: puts it back when a writer that had read the
    /// file before the last flush wrote it without the message, and writes it when it could not be
    /// written before.
    pub async fn look_after(&mut self, message: &Message, grace: Duration) {
        let ended = Instant::now();
        for part in LOOKS {
            let is_closing = self.rest_until(ended + grace.mul_f64(part)).await;
            if is_closing && !self.has_failed {
                return;
            }
            if message.is_empty() || self.is_discarded() {
                continue;
            }
            let id = message.id().to_owned();
            let session = self.session.clone();
            let has = move |store: &Store, attempts: &mut Attempts| {
                store.still_has(attempts, &session, &id)
            };
            let look = self.store.call(self.disk, Some(&self.session), has).await;
            if self.has_failed || matches!(look, Ok(Ok(false))) {
                self.put_final(message.clone()).await;
            }
            if is_closing {
                return;
            }
        }
    }

    /// Goes on trying to write a message that could not be written, when its run is no longer looked
    /// at: a disk that is full stays so for longer than a grace period. As the store does with users'
    /// messages.
    pub async fn keep_trying(mut self, message: Message) {
        let until = Instant::now() + GIVE_UP;
        let mut size = Size(0);
        if !self.has_failed || message.write_line(&mut size, "", false).is_err() {
            return;
        }
        let size = u32::try_from(size.0).unwrap_or(u32::MAX);
        let mut is_closing = false;
        if let Ok(_memory) = UNSAVED_BYTES.try_acquire_many(size) {
            let mut pause = FIRST_PAUSE;
            while self.has_failed && Instant::now() < until && !is_closing {
                is_closing = self.rest_until(Instant::now() + pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
                self.put_final(message.clone()).await;
            }
        }
        if self.has_failed {
            tell_lost(&self.session);
        }
    }

    /// Returns what it was before.
    fn set_failed(&mut self, has_failed: bool) -> bool {
        let before = std::mem::replace(&mut self.has_failed, has_failed);
        if before != has_failed {
            let mut unsaved = lock_unsaved();
            match has_failed {
                true => unsaved.push(self.session.clone()),
                false => {
                    let ours = unsaved.iter().position(|session| *session == self.session);
                    ours.map(|at| unsaved.swap_remove(at));
                }
            }
            ONE_LESS.notify_all();
        }
        before
    }

    /// Whether the session was deleted: nothing is to be written any more.
    fn is_discarded(&self) -> bool {
        self.author.as_ref().is_none_or(Author::is_discarded)
    }

    /// Waits for a time, or for the end of the process; says whether it is that. With nothing being
    /// written, it lets go of an author whose session is deleted.
    async fn rest_until(&mut self, time: Instant) -> bool {
        let mut closing = CLOSING.subscribe();
        loop {
            tokio::select! {
                () = sleep_until(time) => return false,
                // The sender is never dropped.
                _ = closing.wait_for(|is_closing| *is_closing) => return true,
                () = discarded(self.author.as_ref()) => {
                    self.author = None;
                    self.set_failed(false);
                }
            }
        }
    }

    async fn put_final(&mut self, message: Message) {
        if self.is_discarded() {
            return;
        }
        let outcome = self.put(message, false).await;
        self.note(outcome);
        // Whoever hears of the run's end finds the index as it should be, unless others are at it.
        let write = |store: &Store, attempts: &mut Attempts| Ok(store.write_index(attempts));
        let _ = timeout(INDEX_PATIENCE, self.store.call(self.disk, None, write)).await;
    }

    fn put(&self, message: Message, is_streaming: bool) -> Pending<Result<()>> {
        let session = self.session.clone();
        let put = move |store: &Store, attempts: &mut Attempts| {
            let now = clock::now_ms();
            let timestamp = clock::iso(now);
            let mut write =
                |out: &mut dyn io::Write| message.write_line(out, &timestamp, is_streaming);
            let id = message.id();
            store.put_message(attempts, &session, id, &mut write, !is_streaming, now)
        };
        self.store.call(self.disk, Some(&self.session), put)
    }

    fn note(&mut self, outcome: Result<Result<()>>) {
        let Err(error) = outcome.and_then(|written| written) else {
            self.set_failed(false);
            FLUSHES.lock().unwrap_or_else(PoisonError::into_inner).written += 1;
            return;
        };
        let failure = error.to_string();
        {
            let mut flushes = FLUSHES.lock().unwrap_or_else(PoisonError::into_inner);
            flushes.failed += 1;
            let (session, message) = (self.session.clone(), failure.clone());
            flushes.last_failure = Some(FlushFailure { session, message, at: clock::now_ms() });
        }
        // What is still to be written is written with the next flush.
        self.is_dirty = true;
        if !self.set_failed(true) {
            let session = &self.session;
            diagnostics::warn(&Warning {
                code: "STORE_FAILED",
                message: format!("The answer of session {session} is not saved: {failure}"),
                session: Some(session.clone()),
            });
        }
    }
}

impl Drop for Persistence {
    fn drop(&mut self) {
        self.set_failed(false);
    }
}

/// The sessions of answers whose last write has failed.
static UNSAVED: Mutex<Vec<SessionId>> = Mutex::new(Vec::new());
static ONE_LESS: Condvar = Condvar::new();
/// Set when the process ends: whoever waits to try again does so for the last time.
static CLOSING: Lazy<watch::Sender<bool>> = Lazy::new(|| watch::Sender::new(false));

/// How many answers there are whose last write has failed.
pub fn unsaved() -> usize {
    lock_unsaved().len()
}

fn tell_lost(session: &SessionId) {
    diagnostics::warn(&Warning {
        code: "ANSWER_LOST",
        message: format!("The answer of session {session} is lost"),
        session: Some(session.clone()),
    });
}

fn lock_unsaved() -> MutexGuard<'static, Vec<SessionId>> {
    UNSAVED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The process ends: answers that could not be written are tried for the last time. Waits for that,
/// but no longer than `patience`. Those that are not written then are told as lost.
pub fn save_unsaved(patience: Duration) {
    if unsaved() == 0 {
        return;
    }
    CLOSING.send_replace(true);
    let until = std::time::Instant::now() + patience;
    let mut left = lock_unsaved();
    while !left.is_empty() {
        let time = until.saturating_duration_since(std::time::Instant::now());
        if time.is_zero() {
            break;
        }
        left = ONE_LESS.wait_timeout(left, time).unwrap_or_else(PoisonError::into_inner).0;
    }
    // Of those that are being tried still; the others have told it themselves.
    let lost = left.clone();
    drop(left);
    lost.iter().for_each(tell_lost);
    // Should the process go on after all (only its threads with this package have ended).
    CLOSING.send_replace(false);
}

async fn discarded(author: Option<&Author>) {
    match author {
        Some(author) => author.discarded().await,
        None => std::future::pending().await,
    }
}
