//! Who is writing answers, or may again, so that a session that was deleted stays deleted.
//!
//! Each run's persistence holds an [`Author`] from the run's start until nothing of its answer will be
//! written any more: beyond the run's end, while its message is looked after or could not be written
//! yet. Whoever deletes the session takes back their permission to write, and waits until they are gone.
//! It touches no file and stops no run.

use crate::{session_id::SessionId, store::Store};
use once_cell::sync::Lazy;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};
use tokio::sync::watch;

/// The writer of one run's answer.
#[derive(Debug)]
pub struct Author {
    session: SessionId,
    is_discarded: watch::Receiver<bool>,
    discard: Arc<watch::Sender<bool>>,
}

struct Entry {
    run: u32,
    store: Weak<Store>,
    discard: Arc<watch::Sender<bool>>,
}

static AUTHORS: Lazy<Mutex<HashMap<SessionId, Vec<Entry>>>> = Lazy::new(Mutex::default);

impl Author {
    /// Of the run of this number, which writes into this store.
    pub fn new(run: u32, store: &Arc<Store>, session: &SessionId) -> Self {
        let (discard, is_discarded) = watch::channel(false);
        let discard = Arc::new(discard);
        let entry = Entry { run, store: Arc::downgrade(store), discard: Arc::clone(&discard) };
        authors().entry(session.clone()).or_default().push(entry);
        Self { session: session.clone(), is_discarded, discard }
    }

    /// Whether the session was deleted: nothing is to be written any more.
    pub fn is_discarded(&self) -> bool {
        *self.is_discarded.borrow()
    }

    /// Waits until the session is deleted; for ever, if it never is.
    pub async fn discarded(&self) {
        let mut is_discarded = self.is_discarded.clone();
        if is_discarded.wait_for(|is_discarded| *is_discarded).await.is_err() {
            std::future::pending().await
        }
    }
}

impl Drop for Author {
    fn drop(&mut self) {
        let mut authors = authors();
        if let Some(entries) = authors.get_mut(&self.session) {
            entries.retain(|entry| !Arc::ptr_eq(&entry.discard, &self.discard));
            if entries.is_empty() {
                authors.remove(&self.session);
            }
        }
    }
}

/// The authors whose permission to write was taken back.
pub struct Discarded(Vec<(u32, Arc<watch::Sender<bool>>)>);

/// From now on, the runs of this session begin no write into this store any more.
pub fn discard(store: &Arc<Store>, session: &SessionId) -> Discarded {
    let store = Arc::downgrade(store);
    let meant = {
        let authors = authors();
        let entries = authors.get(session).into_iter().flatten();
        let meant = entries.filter(|entry| entry.store.ptr_eq(&store));
        meant.map(|entry| (entry.run, Arc::clone(&entry.discard))).collect::<Vec<_>>()
    };
    for (_, discard) in &meant {
        discard.send_replace(true);
    }
    Discarded(meant)
}

impl Discarded {
    /// Whether there were none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the run of this number is among them.
    pub fn has(&self, run: u32) -> bool {
        self.0.iter().any(|(other, _)| *other == run)
    }

    /// Waits until they are gone, with the writes that they had begun.
    pub async fn gone(self) {
        for (_, discard) in self.0 {
            discard.closed().await;
        }
    }
}

fn authors() -> MutexGuard<'static, HashMap<SessionId, Vec<Entry>>> {
    AUTHORS.lock().unwrap_or_else(PoisonError::into_inner)
}
