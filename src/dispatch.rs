//! The one way into JavaScript: a doorbell for each copy of the JavaScript that has runs to watch.
//!
//! The thread-safe function carries nothing. It says that there is something to fetch, once until it
//! is answered; what there is lies in the runs' logs, so a slow JavaScript thread costs a cursor and
//! not a queue, and nothing is lost or leaked when a thread ends. It knows nothing of what a run is
//! made of. Written on Node-API itself: it needs a weak reference to its callback (a Jest realm or a
//! hot-reloaded copy must stay collectable) and to hold the event loop only while a run is running.

use crate::{
    diagnostics::{self, Warning, WarningListener},
    engine,
    feed::Watcher,
    panics, persistence, registry, signals, store,
};
use napi::sys;
use once_cell::sync::Lazy;
use std::{
    ffi::c_void,
    mem::ManuallyDrop,
    ptr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

/// Wakes one copy of the JavaScript on its own thread.
pub struct Doorbell {
    state: Mutex<State>,
    is_main_thread: bool,
}

struct State {
    /// None once the environment has ended or the JavaScript was collected.
    function: Option<ThreadsafeFunction>,
    /// Runs with news, in the order in which it came.
    ready: Vec<u32>,
    /// Rung, and not answered yet.
    is_rung: bool,
    /// Runs that this copy started: it keeps the process alive for them.
    owned: Vec<u32>,
    /// Whether this copy wants the event loop, and its own callback, kept alive; whether the runs of
    /// workers need it; and whether it is.
    is_wanted: bool,
    is_needed_by_workers: bool,
    is_held: bool,
    /// Warnings to be fetched; none while nobody there wants them.
    warnings: Option<Vec<Warning>>,
}

/// Warnings that may wait for a JavaScript thread that is busy; more go to stderr.
const MOST_WARNINGS: usize = 1_000;

struct ThreadsafeFunction {
    raw: sys::napi_threadsafe_function,
    /// Of the JavaScript function to call; counts 0 while the bell is not held, so that it may be
    /// collected.
    callback: sys::napi_ref,
    env: sys::napi_env,
}

// SAFETY: `raw` may be called from any thread as long as it is not released, which the lock around
// it sees to; `callback` and `env` are used on the thread of `env` only.
unsafe impl Send for ThreadsafeFunction {}

/// Every bell of the process that may still be open.
static BELLS: Lazy<Mutex<Vec<Weak<Doorbell>>>> = Lazy::new(Mutex::default);

impl Doorbell {
    /// A bell that calls `callback` (without arguments) on the thread of `env`. It keeps neither the
    /// callback nor the event loop alive before [`Doorbell::hold`].
    ///
    /// # Safety
    /// To be called on the thread of `env`, with a function of it.
    pub unsafe fn new(
        env: sys::napi_env,
        callback: sys::napi_value,
        is_main_thread: bool,
    ) -> napi::Result<Arc<Self>> {
        let state = State {
            function: None,
            ready: Vec::new(),
            is_rung: false,
            owned: Vec::new(),
            is_wanted: false,
            is_needed_by_workers: false,
            is_held: false,
            warnings: None,
        };
        let bell = Arc::new(Self { state: Mutex::new(state), is_main_thread });
        let context = Weak::into_raw(Arc::downgrade(&bell));
        let mut raw = ptr::null_mut();
        let mut weak = ptr::null_mut();
        // SAFETY: `env` and `callback` are alive; `context` is given back by `forget`.
        unsafe {
            let env_ref = napi::Env::from_raw(env);
            let name = napi::JsValue::raw(&env_ref.create_string("active-runs")?);
            check(sys::napi_create_reference(env, callback, 0, &mut weak))?;
            let created = sys::napi_create_threadsafe_function(
                env,
                ptr::null_mut(),
                ptr::null_mut(),
                name,
                1,
                1,
                context.cast_mut().cast(),
                Some(forget),
                context.cast_mut().cast(),
                Some(answer),
                &mut raw,
            );
            if let Err(error) = check(created) {
                drop(Weak::from_raw(context));
                return Err(error);
            }
            check(sys::napi_unref_threadsafe_function(env, raw))?;
            // Hooks run last in, first out: this one, which closes the bell, comes before the one
            // with which Node ends the thread-safe function itself (nodejs/node#55706).
            check(sys::napi_add_env_cleanup_hook(
                env,
                Some(environment_ends),
                context.cast_mut().cast(),
            ))?;
        }
        bell.lock().function = Some(ThreadsafeFunction { raw, callback: weak, env });
        bells().push(Arc::downgrade(&bell));
        Ok(bell)
    }

    /// Whether it is a bell of the process' main thread.
    pub fn is_main_thread(&self) -> bool {
        self.is_main_thread
    }

    /// Takes the runs that have news and answers the ring: the next news rings again.
    pub fn take(&self) -> Vec<u32> {
        let mut state = self.lock();
        state.is_rung = false;
        std::mem::take(&mut state.ready)
    }

    /// Has warnings kept for this copy, or no longer. Those that it has not fetched then go to
    /// stderr.
    pub fn hear_warnings(self: &Arc<Self>, hear: bool) {
        let mut state = self.lock();
        if hear && state.warnings.is_none() {
            state.warnings = Some(Vec::new());
            drop(state);
            diagnostics::listen(&(Arc::clone(self) as _));
        } else if !hear {
            let unheard = state.warnings.take();
            drop(state);
            unheard.into_iter().flatten().for_each(|warning| diagnostics::print(&warning));
        }
    }

    /// Takes the warnings that have come for this copy.
    pub fn take_warnings(&self) -> Vec<Warning> {
        self.lock().warnings.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// This copy started the run, or takes it over: should its thread end first, another one does. False
    /// when its thread has ended.
    pub fn own(&self, run: u32) -> bool {
        let mut state = self.lock();
        state.owned.retain(|&owned| registry::find_running(owned).is_some());
        state.owned.push(run);
        state.function.is_some()
    }

    /// Whether this copy has started the run or taken it over.
    pub fn owns(&self, run: u32) -> bool {
        self.lock().owned.contains(&run)
    }

    /// Keeps the event loop and the callback alive, or no longer. On the bell's own thread only.
    pub fn hold(&self, hold: bool) {
        self.lock().is_wanted = hold;
        self.update_hold();
    }

    /// On the main thread: also keeps it alive for the runs of workers. When a worker ends, its runs are
    /// this thread's, and it must not have ended before it hears of that.
    pub fn hold_for_workers(&self) {
        let has_others = bells().len() > 1;
        let is_needed =
            has_others && open_bells().any(|bell| !bell.is_main_thread && bell.has_running());
        if is_needed != self.lock().is_needed_by_workers {
            self.lock().is_needed_by_workers = is_needed;
            self.update_hold();
        }
    }

    fn has_running(&self) -> bool {
        self.lock().owned.iter().any(|&owned| registry::find_running(owned).is_some())
    }

    fn update_hold(&self) {
        let mut state = self.lock();
        let hold = state.is_wanted || state.is_needed_by_workers;
        if state.is_held == hold {
            return;
        }
        state.is_held = hold;
        let Some(ThreadsafeFunction { raw, callback, env }) = state.function else { return };
        drop(state);
        let mut count = 0;
        // SAFETY: on the thread of `env`, which is alive while `function` is there. Failure means
        // that the environment is ending, when nothing needs to be held.
        unsafe {
            if hold {
                sys::napi_reference_ref(env, callback, &mut count);
                sys::napi_ref_threadsafe_function(env, raw);
            } else {
                sys::napi_reference_unref(env, callback, &mut count);
                sys::napi_unref_threadsafe_function(env, raw);
            }
        }
    }

    /// There is something for this copy that is no run's news (a warning, the main thread's signals).
    pub fn ring(&self) {
        self.ring_for(None);
    }

    fn ring_for(&self, run: Option<u32>) {
        let mut state = self.lock();
        if let Some(run) = run.filter(|run| !state.ready.contains(run)) {
            state.ready.push(run);
        }
        if std::mem::replace(&mut state.is_rung, true) {
            return;
        }
        let Some(ThreadsafeFunction { raw, .. }) = state.function else { return };
        let mode = sys::ThreadsafeFunctionCallMode::nonblocking;
        // SAFETY: not released while the lock is held. It only queues and wakes the loop. A full
        // queue means that the bell is ringing anyway.
        unsafe { sys::napi_call_threadsafe_function(raw, ptr::null_mut(), mode) };
    }

    /// Nobody is to be woken any more. On the bell's own thread only.
    pub fn close(&self) {
        let mut state = self.lock();
        state.ready.clear();
        let owned = std::mem::take(&mut state.owned);
        let function = state.function.take();
        let unheard = state.warnings.take();
        drop(state);
        unheard.into_iter().flatten().for_each(|warning| diagnostics::print(&warning));
        if let Some(ThreadsafeFunction { raw, callback, env }) = function {
            // SAFETY: on the thread of `env`; nobody can use either any more. The hook's argument
            // is the address of the bell, as given to `Weak::into_raw`.
            unsafe {
                let hook = ptr::from_ref(self).cast_mut().cast();
                sys::napi_remove_env_cleanup_hook(env, Some(environment_ends), hook);
                sys::napi_delete_reference(env, callback);
                let mode = sys::ThreadsafeFunctionReleaseMode::abort;
                sys::napi_release_threadsafe_function(raw, mode);
            }
            hand_over(owned);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_open(&self) -> bool {
        self.lock().function.is_some()
    }
}

impl Watcher for Doorbell {
    fn wake(&self, run: u32) {
        self.ring_for(Some(run));
    }
}

impl WarningListener for Doorbell {
    fn warned(&self, warning: &Warning) -> bool {
        let mut state = self.lock();
        match &mut state.warnings {
            Some(warnings) if warnings.len() < MOST_WARNINGS => warnings.push(warning.clone()),
            _ => return false,
        }
        drop(state);
        self.ring();
        true
    }
}

/// The process ends: warnings that JavaScript has not fetched go to stderr, and so do later ones.
fn end_warnings() {
    for bell in open_bells() {
        bell.hear_warnings(false);
    }
}

/// Whether there is something that the end of the process must not cut short.
pub fn has_unfinished() -> bool {
    registry::running() > 0 || persistence::unsaved() > 0 || store::has_unfinished()
}

/// Whether there is something unfinished may have changed: has the signals that end the process watched,
/// or no longer. The main thread's JavaScript does it where it has this package.
pub fn runs_changed() {
    // What one thread has seen is done before the next one looks.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut is_watched = false;
    for bell in open_bells().filter(|bell| bell.is_main_thread) {
        bell.ring();
        is_watched = true;
    }
    match has_unfinished() && !is_watched {
        true => signals::watch(end_process),
        false => signals::unwatch(),
    }
}

/// How long the end of the process may wait for the last lines on stderr.
const FLUSH_AT_END: Duration = Duration::from_millis(200);

/// The process ends: ends all runs, and has what is to be said on stderr.
pub fn end_process() {
    engine::close();
    end_warnings();
    diagnostics::flush(FLUSH_AT_END);
}

/// The bell's thread ends. Where no other thread is left to watch the runs, they are ended, and what
/// they said is written first.
unsafe extern "C" fn environment_ends(context: *mut c_void) {
    let end = || {
        // SAFETY: as in `answer`.
        let bell = unsafe { ManuallyDrop::new(Weak::from_raw(context.cast::<Doorbell>())) };
        if let Some(bell) = bell.upgrade() {
            bell.close();
        }
        if open_bells().next().is_none() {
            engine::end_all();
        }
    };
    // Node-API has nobody to tell.
    let _ = panics::caught("the end of a thread", end);
}

/// The owner of these runs ends. One of the other copies takes over those that still run, the main
/// thread's if it has one.
fn hand_over(runs: Vec<u32>) {
    for run in runs.into_iter().filter(|&run| registry::find_running(run).is_some()) {
        // Whoever closes at this moment takes none.
        while let Some(heir) = open_bells().max_by_key(|bell| bell.is_main_thread) {
            if heir.own(run) {
                heir.ring_for(Some(run));
                break;
            }
        }
    }
}

fn open_bells() -> impl Iterator<Item = Arc<Doorbell>> {
    let mut bells = bells();
    bells.retain(|bell| bell.strong_count() > 0);
    let open: Vec<_> = bells.iter().filter_map(Weak::upgrade).collect();
    open.into_iter().filter(|bell| bell.is_open())
}

fn bells() -> MutexGuard<'static, Vec<Weak<Doorbell>>> {
    BELLS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn check(status: sys::napi_status) -> napi::Result<()> {
    match status {
        sys::Status::napi_ok => Ok(()),
        status => Err(napi::Error::from_status(status.into())),
    }
}

/// Node calls this on the bell's thread after a ring.
unsafe extern "C" fn answer(
    env: sys::napi_env,
    _callback: sys::napi_value,
    context: *mut c_void,
    _data: *mut c_void,
) {
    if env.is_null() {
        return;
    }
    let call = || {
        // SAFETY: `context` is the `Weak` made in `Doorbell::new`, which `forget` has not taken back
        // yet. A null from Node-API (no such thing any more, or an exception) ends the way.
        unsafe {
            let bell = ManuallyDrop::new(Weak::from_raw(context.cast::<Doorbell>()));
            let Some(bell) = bell.upgrade() else { return };
            let Some(callback) = bell.lock().function.as_ref().map(|function| function.callback)
            else {
                return;
            };
            let mut function = ptr::null_mut();
            let mut global = ptr::null_mut();
            let mut result = ptr::null_mut();
            sys::napi_get_reference_value(env, callback, &mut function);
            if function.is_null() {
                return;
            }
            sys::napi_get_global(env, &mut global);
            let called =
                sys::napi_call_function(env, global, function, 0, ptr::null(), &mut result);
            if called == sys::Status::napi_pending_exception {
                let mut exception = ptr::null_mut();
                sys::napi_get_and_clear_last_exception(env, &mut exception);
                sys::napi_fatal_exception(env, exception);
            }
        }
    };
    // It cannot go on into Node.js' own frames.
    let _ = panics::caught("the answer to a bell", call);
}

/// Node calls this when the thread-safe function is no more.
unsafe extern "C" fn forget(_env: sys::napi_env, context: *mut c_void, _hint: *mut c_void) {
    // SAFETY: made by `Weak::into_raw` in `Doorbell::new`, given back once.
    let bell = unsafe { Weak::from_raw(context.cast::<Doorbell>()) };
    let _ = panics::caught("the end of a bell", || drop(bell));
}
