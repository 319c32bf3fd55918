//! Gives memory back to the system that ended runs have freed.
//!
//! The allocator keeps what is freed for the next one who asks. A run's events may be hundreds of
//! megabytes, and the next one who asks may never come.

use crate::disk::disk;
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

/// Less is not worth the walk through the allocator's lists.
const WORTH_IT: usize = 1 << 20;
/// Runs that are freed within this time are given back together.
const GATHER: Duration = Duration::from_millis(500);

/// Freed and not given back.
static FREED: AtomicUsize = AtomicUsize::new(0);

/// So many bytes were freed.
pub fn freed(bytes: usize) {
    let before = FREED.fetch_add(bytes, Ordering::Relaxed);
    if before < WORTH_IT
        && before + bytes >= WORTH_IT
        && let Ok(disk) = disk()
    {
        // On a thread that may wait for the allocator's locks.
        disk.run_later(GATHER, || {
            FREED.store(0, Ordering::Relaxed);
            give_back();
        });
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn give_back() {
    // SAFETY: the call has no preconditions.
    unsafe { libc::malloc_trim(0) };
}

/// Other allocators do it by themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn give_back() {}
