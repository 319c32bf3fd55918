//! Which ids the answers in a session's file can have, without reading it.

use super::Store;
use crate::session_id::SessionId;
use std::{fs, time::UNIX_EPOCH};

impl Store {
    /// When the session's file was written last, in milliseconds since 1970; 0 when there is none. The ids
    /// of the answers in it are made of earlier times, whatever the clock says by now.
    pub fn last_written(&self, session: &SessionId) -> u64 {
        let modified = fs::metadata(self.session_path(session)).and_then(|file| file.modified());
        let since = modified.ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX - 1))
    }
}
