//! What servers of a store have left that were killed: the next server, at its first use of the store, ends
//! what is still running, and puts the store in order. Never touches what a living server has started.

use crate::{
    diagnostics::{self, Warning},
    disk::disk,
    input::process::{end_marked, listed},
    runtime::runtime,
    settings,
    store::Store,
};
use std::sync::Arc;

/// To be called at every use of a store; does its work, in the background, at the first.
pub fn end(store: &Arc<Store>) {
    // Without threads it is not the first use yet.
    let (Ok(disk), Ok(runtime)) = (disk(), runtime()) else { return };
    if !store.take_first_use() {
        return;
    }
    let store = Arc::clone(store);
    runtime.spawn(async move {
        let put_in_order = move || {
            store.sweep();
            store.ledger().left()
        };
        let Ok(left) = disk.run(None, put_in_order).await else { return };
        let marks: Vec<_> = left.iter().flat_map(|left| left.marks.iter().cloned()).collect();
        let mut is_done = true;
        if !marks.is_empty() {
            let ended = end_marked(marks, settings::current().kill_after).await;
            tell(&ended.gone);
            is_done = ended.living.is_empty();
        }
        // What could not be ended is left to the next server.
        if is_done {
            left.into_iter().for_each(|left| left.remove());
        }
    });
}

fn tell(ended: &[i32]) {
    if !ended.is_empty() {
        let ended = listed(ended);
        diagnostics::warn(&Warning {
            code: "LEFTOVERS_ENDED",
            message: format!("Ended what runs of a killed server had left: process {ended}"),
            session: None,
        });
    }
}
