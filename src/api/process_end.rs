//! What happens to agents when the process ends: they end too, and their answers are written.
//!
//! On the main thread only: a worker's end is heard by its bell.

use crate::{
    dispatch::{end_process, has_unfinished},
    panics,
};
use napi::bindgen_prelude::{Env, Function, FunctionRef};
use std::cell::{Cell, RefCell};

/// Ends all runs, as `process_end.js` is given it.
type EndRuns<'env> = Function<'env, (), ()>;

/// Begins or ends listening for the signals that would end the process at once.
type ListenForSignals = FunctionRef<bool, ()>;

thread_local! {
    /// On the main thread, once [`watch_process_end`] has run.
    static LISTEN: RefCell<Option<ListenForSignals>> = const { RefCell::new(None) };
    static IS_LISTENING: Cell<bool> = const { Cell::new(false) };
}

/// On the main thread: has agents ended, and their answers written, before the process ends.
pub(super) fn watch_process_end(env: &Env) -> napi::Result<()> {
    if LISTEN.with_borrow(Option::is_some) {
        return Ok(());
    }
    let install: Function<'_, EndRuns<'_>, Function<'_, bool, ()>> =
        env.run_script(include_str!("process_end.js"))?;
    let end_runs = env.create_function_from_closure::<(), (), _>("endRuns", |_| {
        panics::caught("the end of the process", end_process)
            .map_err(|error| napi::Error::from_reason(error.to_string()))
    })?;
    let listen = install.call(end_runs)?.create_ref()?;
    LISTEN.set(Some(listen));
    Ok(())
}

/// On the main thread: listens for signals while runs are running, or answers are to be saved.
pub(super) fn watch_signals(env: &Env) {
    let is_wanted = has_unfinished();
    LISTEN.with_borrow(|listen| {
        if let Some(listen) = listen.as_ref().filter(|_| IS_LISTENING.get() != is_wanted) {
            IS_LISTENING.set(is_wanted);
            // Without a listener, the signals keep their default effect.
            let _ = listen.borrow_back(env).and_then(|listen| listen.call(is_wanted));
        }
    });
}
