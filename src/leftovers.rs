//! What servers of a store have left running that were killed: the next server ends it, once, at its
//! first use of the store.

use crate::{
    diagnostics::{self, Warning},
    input::process::end_marked,
    runtime::runtime,
    settings,
    store::Store,
};
use std::sync::Arc;
use tokio::task::spawn_blocking;

/// To be called at every use of a store; does its work, in the background, at the first.
pub fn end(store: &Arc<Store>) {
    if !store.is_first_use() {
        return;
    }
    let Ok(runtime) = runtime() else { return };
    let store = Arc::clone(store);
    runtime.spawn(async move {
        let ledger = Arc::clone(store.ledger());
        let Ok(left) = spawn_blocking(move || ledger.left()).await else { return };
        let marks: Vec<_> = left.iter().flat_map(|left| left.marks.iter().cloned()).collect();
        if !marks.is_empty() {
            tell(&end_marked(&marks, settings::current().kill_after).await);
        }
        left.into_iter().for_each(|left| left.remove());
    });
}

fn tell(ended: &[i32]) {
    if ended.is_empty() {
        return;
    }
    let numbers: Vec<_> = ended.iter().map(i32::to_string).collect();
    diagnostics::warn(&Warning {
        code: "LEFTOVERS_ENDED",
        message: format!(
            "Ended what runs of a server that was killed had left: process {}",
            numbers.join(", ")
        ),
        session: None,
    });
}
