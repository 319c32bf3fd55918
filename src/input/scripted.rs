//! An input that does what a test says, without a process: for tests of whole runs.

use super::{End, Exit, Input, Ready};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::sync::Notify;

/// The input, for the run that owns it.
pub(crate) struct Scripted {
    shared: Arc<Shared>,
}

/// The other end of a [`Scripted`], for the test.
#[derive(Clone)]
pub(crate) struct Script {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    unread: VecDeque<Vec<u8>>,
    end: Option<End>,
    /// It ends by itself when it is told to stop.
    is_obedient: bool,
    asked: Vec<Asked>,
}

/// What the run has asked of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Stop(Duration),
    Signal(i32),
    Hurry,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

/// Both ends; `is_obedient` if it ends when it is told to stop, by SIGTERM.
pub(crate) fn scripted(is_obedient: bool) -> (Scripted, Script) {
    let shared = Arc::new(Shared::default());
    shared.state().is_obedient = is_obedient;
    (Scripted { shared: Arc::clone(&shared) }, Script { shared })
}

impl Script {
    pub(crate) fn print(&self, bytes: impl Into<Vec<u8>>) {
        self.shared.state().unread.push_back(bytes.into());
        self.shared.changed.notify_one();
    }

    pub(crate) fn end(&self, exit: Exit, explanation: &str) {
        let explanation = explanation.to_owned();
        self.shared.state().end = Some(End { exit, explanation });
        self.shared.changed.notify_one();
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared.state().asked.clone()
    }
}

impl Scripted {
    fn asked(&mut self, what: Asked) {
        self.shared.state().asked.push(what);
    }
}

impl Input for Scripted {
    async fn ready(&mut self) -> Ready {
        loop {
            {
                let mut state = self.shared.state();
                if !state.unread.is_empty() {
                    return Ready::Bytes;
                }
                if let Some(end) = state.end.take() {
                    return Ready::Ended(end);
                }
            }
            self.shared.changed.notified().await;
        }
    }

    fn read(&mut self, take: &mut dyn FnMut(&[u8])) {
        if let Some(bytes) = self.shared.state().unread.pop_front() {
            take(&bytes);
        }
    }

    fn stop(&mut self, kill_after: Duration) {
        self.asked(Asked::Stop(kill_after));
        let mut state = self.shared.state();
        if state.is_obedient && state.end.is_none() {
            state.end = Some(End { exit: Exit::Signal(15), explanation: String::new() });
        }
        drop(state);
        self.shared.changed.notify_one();
    }

    fn signal(&mut self, signal: i32) {
        self.asked(Asked::Signal(signal));
    }

    fn hurry(&mut self) {
        self.asked(Asked::Hurry);
    }
}
