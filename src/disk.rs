//! The threads that wait for the disk.
//!
//! The store blocks: a disk may be slow, far away or gone. Only the few threads made here call it. They
//! start when first needed and never end; if the system refuses more, those that exist do all the work, so
//! a run under way can be written to its end. [`disk`] fails while there is none; the next call tries
//! again.
//!
//! Two rules keep what is stuck from holding up the rest:
//! - Work on one file is done one after the other, in the order in which it came. However much of it
//!   there is, it takes one thread at a time.
//! - Work that has to wait for somebody else (a lock that another process holds) does not wait on its
//!   thread. It returns [`Turn::Again`] and is called again after that time; the thread does other work
//!   meanwhile, and the file's next work stays behind it. How long it has been trying, it reads in
//!   [`Attempt`], which counts from when it was handed over: work that has waited behind others has used
//!   up its patience there, and does not begin anew.
//!
//! Work that panics is an error of its caller's, and the thread goes on. Knows nothing of what is done.

use crate::{
    error::{Error, Result},
    panics,
    runtime::lower_priority,
};
use once_cell::sync::OnceCell;
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    path::PathBuf,
    pin::Pin,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    thread,
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// The most threads.
const THREADS: usize = 8;

static DISK: Disk = Disk::new(THREADS);

/// The threads, of which there is one at least.
///
/// # Errors
/// `NO_THREADS` when there is none and the system refuses one.
pub fn disk() -> Result<&'static Disk> {
    DISK.with_thread()
}

/// Threads, and the work that waits for them.
pub struct Disk {
    state: Mutex<State>,
    /// Something for an idle thread.
    more: Condvar,
    most: usize,
    /// Set when the first thread was started.
    has_thread: OnceCell<()>,
}

struct State {
    ready: VecDeque<Job>,
    /// To be called again, by the time for that and a number that tells them apart.
    later: BTreeMap<(Instant, u64), Job>,
    /// The files whose work is ready, under way or to be called again; with what comes after it.
    files: BTreeMap<PathBuf, VecDeque<Job>>,
    threads: usize,
    idle: usize,
    /// When the idle thread will wake up that keeps the time for `later`.
    kept_until: Option<Instant>,
    last_number: u64,
}

struct Job {
    file: Option<PathBuf>,
    attempt: Attempt,
    work: Box<dyn Work>,
}

/// What work is told when it is called.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// 0 at the first call.
    pub number: u32,
    /// When the work was handed over.
    pub since: Instant,
}

/// What a call has come to.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn<T> {
    /// It is done.
    Done(T),
    /// It is to be called again after this time.
    Again(Duration),
}

impl<T> Turn<T> {
    /// The same with another result.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Turn<U> {
        match self {
            Self::Done(done) => Turn::Done(change(done)),
            Self::Again(after) => Turn::Again(after),
        }
    }
}

/// What comes of work that was handed over; an error, `INTERNAL`, when it has panicked. The work is done
/// also when this is dropped.
#[derive(Debug)]
pub struct Pending<T>(oneshot::Receiver<Result<T>>);

impl<T> Future for Pending<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = Pin::new(&mut self.0).poll(context);
        outcome.map(|outcome| outcome.unwrap_or_else(|_| Err(Error::internal("work was dropped"))))
    }
}

trait Work: Send {
    /// Calls the work. None when it is done, else what is to be called again, and when.
    fn call(self: Box<Self>, attempt: &Attempt) -> Option<(Duration, Box<dyn Work>)>;
}

struct UntilDone<W, D> {
    work: W,
    done: D,
}

impl<T, W, D> Work for UntilDone<W, D>
where
    W: FnMut(&Attempt) -> Turn<T> + Send + 'static,
    D: FnOnce(Result<T>) + Send + 'static,
{
    fn call(mut self: Box<Self>, attempt: &Attempt) -> Option<(Duration, Box<dyn Work>)> {
        let outcome = match panics::caught("work on a disk thread", || (self.work)(attempt)) {
            Ok(Turn::Again(after)) => return Some((after, self)),
            Ok(Turn::Done(value)) => Ok(value),
            Err(error) => Err(error),
        };
        (self.done)(outcome);
        None
    }
}

struct Once<W> {
    delay: Duration,
    work: W,
}

impl<W: FnOnce() + Send + 'static> Work for Once<W> {
    fn call(self: Box<Self>, attempt: &Attempt) -> Option<(Duration, Box<dyn Work>)> {
        if attempt.number == 0 && !self.delay.is_zero() {
            return Some((self.delay, self));
        }
        (self.work)();
        None
    }
}

impl Disk {
    const fn new(most: usize) -> Self {
        let state = State {
            ready: VecDeque::new(),
            later: BTreeMap::new(),
            files: BTreeMap::new(),
            threads: 0,
            idle: 0,
            kept_until: None,
            last_number: 0,
        };
        Self { state: Mutex::new(state), more: Condvar::new(), most, has_thread: OnceCell::new() }
    }

    fn with_thread(&'static self) -> Result<&'static Self> {
        let first = self.has_thread.get_or_try_init(|| {
            self.lock().threads += 1;
            self.start_thread()
        });
        first.map(|()| self).map_err(Error::no_threads)
    }

    /// Does `work`; on a file, after what was handed over for that before.
    pub fn run<T: Send + 'static>(
        &'static self,
        file: Option<PathBuf>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Pending<T> {
        let (done, pending) = oneshot::channel();
        #[cfg(test)]
        let clock = tests::stop_paused_clock();
        let work = move || {
            // Nobody waits for it any more when it cannot be sent.
            let _ = done.send(panics::caught("work on a disk thread", work));
            #[cfg(test)]
            drop(clock);
        };
        self.add(file, Once { delay: Duration::ZERO, work });
        Pending(pending)
    }

    /// Calls `work` until it is done, as [`Disk::run`] does.
    pub fn run_until_done<T: Send + 'static>(
        &'static self,
        file: Option<PathBuf>,
        work: impl FnMut(&Attempt) -> Turn<T> + Send + 'static,
    ) -> Pending<T> {
        let (done, pending) = oneshot::channel();
        #[cfg(test)]
        let clock = tests::stop_paused_clock();
        self.run_then(file, work, move |outcome| {
            drop(done.send(outcome));
            #[cfg(test)]
            drop(clock);
        });
        Pending(pending)
    }

    /// As [`Disk::run_until_done`], and calls `done` with what has come of it, on the thread.
    pub fn run_then<T: 'static>(
        &'static self,
        file: Option<PathBuf>,
        work: impl FnMut(&Attempt) -> Turn<T> + Send + 'static,
        done: impl FnOnce(Result<T>) + Send + 'static,
    ) {
        self.add(file, UntilDone { work, done });
    }

    /// Does `work` after a time.
    pub fn run_later(&'static self, delay: Duration, work: impl FnOnce() + Send + 'static) {
        self.add(None, Once { delay, work });
    }

    fn add(&'static self, file: Option<PathBuf>, work: impl Work + 'static) {
        let attempt = Attempt { number: 0, since: Instant::now() };
        let mut state = self.lock();
        state.add(Job { file, attempt, work: Box::new(work) });
        self.call_help(state);
    }

    /// Has another thread take what is ready, or keep the time: an idle one, or a new one. Gives the lock
    /// back: the JavaScript thread, which takes it too, waits for no longer than the queue is changed.
    fn call_help(&'static self, mut state: MutexGuard<'_, State>) {
        if state.ready.is_empty() && state.next_due().is_none() {
            return;
        }
        if state.idle > 0 {
            drop(state);
            self.more.notify_one();
        } else if state.threads < self.most {
            state.threads += 1;
            drop(state);
            // Where the system refuses, those that are there come to it in time.
            let _ = self.start_thread();
        }
    }

    /// Starts a thread that is counted already.
    fn start_thread(&'static self) -> io::Result<()> {
        let thread = thread::Builder::new().name("active-runs-disk".into());
        let started = thread.spawn(|| self.work());
        if started.is_err() {
            self.lock().threads -= 1;
        }
        started.map(drop)
    }

    fn work(&'static self) {
        lower_priority();
        let mut state = self.lock();
        loop {
            state.end_waits(Instant::now());
            let Some(Job { file, mut attempt, work }) = state.ready.pop_front() else {
                state = self.rest(state);
                continue;
            };
            self.call_help(state);
            // What work does with its own outcome may panic, too.
            let again = panics::caught("a disk thread", || work.call(&attempt)).unwrap_or_default();
            attempt.number = attempt.number.saturating_add(1);
            state = self.lock();
            match again {
                Some((after, work)) => state.put_off(after, Job { file, attempt, work }),
                None => state.done(file),
            }
        }
    }

    /// Waits until there is something to do.
    fn rest<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let due = state.next_due();
        state.idle += 1;
        if let Some(due) = due {
            state.kept_until = Some(due);
            let time = due.saturating_duration_since(Instant::now());
            state = self.more.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0;
            if state.kept_until == Some(due) {
                state.kept_until = None;
            }
        } else {
            state = self.more.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.idle -= 1;
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add(&mut self, job: Job) {
        if let Some(file) = &job.file {
            if let Some(behind) = self.files.get_mut(file) {
                behind.push_back(job);
                return;
            }
            self.files.insert(file.clone(), VecDeque::new());
        }
        self.ready.push_back(job);
    }

    /// The work on this file is done: the next one's turn.
    fn done(&mut self, file: Option<PathBuf>) {
        let Some(file) = file else { return };
        match self.files.get_mut(&file).and_then(VecDeque::pop_front) {
            Some(next) => self.ready.push_back(next),
            None => drop(self.files.remove(&file)),
        }
    }

    fn put_off(&mut self, after: Duration, job: Job) {
        self.last_number += 1;
        self.later.insert((Instant::now() + after, self.last_number), job);
    }

    fn end_waits(&mut self, now: Instant) {
        while let Some(first) = self.later.first_entry().filter(|first| first.key().0 <= now) {
            self.ready.push_back(first.remove());
        }
    }

    /// When the next work is to be called again, unless somebody keeps that time.
    fn next_due(&self) -> Option<Instant> {
        let due = self.later.first_key_value()?.0.0;
        self.kept_until.is_none_or(|until| due < until).then_some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{self, Receiver, Sender},
    };

    /// The paused clock of a test goes on when all its tasks wait, unless one of tokio's own blocking
    /// threads is at work. It stands still until the result is dropped.
    pub(super) fn stop_paused_clock() -> Option<Sender<()>> {
        let runtime = tokio::runtime::Handle::try_current().ok()?;
        let (clock, until_dropped) = mpsc::channel::<()>();
        drop(runtime.spawn_blocking(move || until_dropped.recv()));
        Some(clock)
    }

    fn disk_of(threads: usize) -> &'static Disk {
        // Its threads never end.
        let disk: &Disk = Box::leak(Box::new(Disk::new(threads)));
        disk.with_thread().unwrap()
    }

    fn file(name: &str) -> Option<PathBuf> {
        Some(name.into())
    }

    /// Work that lasts until the test lets it end.
    fn stuck() -> (impl FnOnce() + Send, Sender<()>) {
        let (go_on, wait) = mpsc::channel::<()>();
        (move || _ = wait.recv(), go_on)
    }

    fn until(condition: impl Fn() -> bool) {
        while !condition() {
            thread::yield_now();
        }
    }

    fn heard<T>(receiver: &Receiver<T>) -> T {
        receiver.recv_timeout(Duration::from_secs(30)).unwrap()
    }

    #[tokio::test]
    async fn work_gives_what_it_returns() {
        let disk = disk_of(2);
        assert_eq!(disk.run(None, || 7).await.unwrap(), 7);
        assert_eq!(disk.run(file("a"), || 8).await.unwrap(), 8);
    }

    #[tokio::test]
    async fn work_that_panics_is_an_error_and_the_thread_goes_on() {
        let disk = disk_of(1);
        let error = disk.run(file("a"), || -> () { panic!("out of {}", "ideas") }).await;
        let error = error.unwrap_err();
        assert_eq!(error.code(), "INTERNAL");
        assert!(error.to_string().contains("out of ideas"), "{error}");
        let again = disk.run_until_done(None, |_| -> Turn<()> { panic!("static") }).await;
        assert!(again.unwrap_err().to_string().contains("static"));
        disk.run_then(file("a"), |_| Turn::Done(()), |_| panic!("in what follows"));
        assert_eq!(disk.run(file("a"), || 9).await.unwrap(), 9);
        assert_eq!(disk.lock().threads, 1);
    }

    #[tokio::test]
    async fn work_on_one_file_is_done_in_order_and_takes_one_thread() {
        let disk = disk_of(4);
        let order = Arc::new(Mutex::new(Vec::new()));
        let busy = Arc::new(AtomicUsize::new(0));
        let mut pending = Vec::new();
        for number in 0..200 {
            let (order, busy) = (Arc::clone(&order), Arc::clone(&busy));
            pending.push(disk.run(file("a"), move || {
                assert_eq!(busy.fetch_add(1, Ordering::SeqCst), 0);
                order.lock().unwrap().push(number);
                thread::yield_now();
                busy.fetch_sub(1, Ordering::SeqCst);
            }));
        }
        for pending in pending {
            pending.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), (0..200).collect::<Vec<_>>());
        until(|| disk.lock().files.is_empty());
    }

    #[test]
    fn stuck_work_on_one_file_leaves_the_other_threads_to_others() {
        let disk = disk_of(2);
        let (work, go_on) = stuck();
        let _first = disk.run(file("stuck"), work);
        for _ in 0..50 {
            drop(disk.run(file("stuck"), || {}));
        }
        let (sender, done) = mpsc::channel();
        drop(disk.run(file("free"), move || sender.send(()).unwrap()));
        heard(&done);
        drop(go_on);
    }

    #[test]
    fn work_that_waits_for_others_occupies_nothing() {
        let disk = disk_of(1);
        let is_free = Arc::new(AtomicBool::new(false));
        let (sender, done) = mpsc::channel();
        for number in 0..50 {
            let (is_free, sender) = (Arc::clone(&is_free), sender.clone());
            let work = move |attempt: &Attempt| match is_free.load(Ordering::SeqCst) {
                true => Turn::Done(attempt.number),
                false => Turn::Again(Duration::from_millis(1)),
            };
            disk.run_then(file(&format!("{}", number % 10)), work, move |outcome| {
                sender.send((number, outcome.unwrap())).unwrap();
            });
        }
        let (free_sender, free) = mpsc::channel();
        for _ in 0..20 {
            let free_sender = free_sender.clone();
            drop(disk.run(file("free"), move || free_sender.send(()).unwrap()));
            heard(&free);
        }
        assert!(done.try_recv().is_err());
        is_free.store(true, Ordering::SeqCst);
        let mut numbers: Vec<(i32, u32)> = (0..50).map(|_| heard(&done)).collect();
        // Of each file in order; who came behind another was called once.
        for number in 0..10 {
            let of_file: Vec<_> = numbers.iter().filter(|(of, _)| of % 10 == number).collect();
            assert!(of_file.is_sorted());
            assert!(of_file[1..].iter().all(|(_, attempts)| *attempts == 0));
        }
        numbers.sort_unstable();
        assert!(numbers.iter().map(|(number, _)| *number).eq(0..50));
        until(|| disk.lock().files.is_empty() && disk.lock().later.is_empty());
    }

    #[tokio::test]
    async fn patience_counts_from_when_the_work_was_handed_over() {
        let disk = disk_of(1);
        let patience = Duration::from_millis(50);
        let try_for = move |attempt: &Attempt| match attempt.since.elapsed() < patience {
            true => Turn::Again(Duration::from_millis(5)),
            false => Turn::Done(attempt.number),
        };
        let first = disk.run_until_done(file("a"), try_for);
        let second = disk.run_until_done(file("a"), |attempt: &Attempt| Turn::Done(*attempt));
        let handed_over = Instant::now();
        assert!(first.await.unwrap() > 0);
        let Attempt { number, since } = second.await.unwrap();
        assert_eq!(number, 0);
        assert!(since <= handed_over, "not from its first call, which came after the first work");
    }

    #[test]
    fn what_is_put_off_is_called_though_all_other_threads_are_busy() {
        let disk = disk_of(2);
        let (sender, done) = mpsc::channel();
        let (work, go_on) = stuck();
        // An idle thread keeps the time, and is woken for other work.
        disk.run_later(Duration::from_millis(20), move || sender.send(()).unwrap());
        let _stuck = disk.run(None, work);
        heard(&done);
        drop(go_on);
    }

    #[test]
    fn there_are_no_more_threads_than_allowed() {
        let disk = disk_of(3);
        let stuck: Vec<_> = (0..10).map(|_| stuck()).collect();
        let (sender, done) = mpsc::channel();
        let mut ends = Vec::new();
        for (work, go_on) in stuck {
            let sender = sender.clone();
            drop(disk.run(None, move || {
                work();
                sender.send(()).unwrap();
            }));
            ends.push(go_on);
        }
        drop(ends);
        (0..10).for_each(|_| heard(&done));
        assert!(disk.lock().threads <= 3);
    }

    #[test]
    fn time_is_kept_though_the_only_thread_is_busy_and_more_may_be_made() {
        let disk = disk_of(4);
        let (sender, done) = mpsc::channel();
        let (work, go_on) = stuck();
        until(|| disk.lock().idle == 1);
        disk.run_later(Duration::from_millis(100), move || sender.send(()).unwrap());
        until(|| disk.lock().later.len() == 1);
        let _stuck = disk.run(None, work);
        heard(&done);
        drop(go_on);
    }
}
