//! Which ids the answers in a session's file can have, with little reading. Takes no lock and writes
//! nothing.

use super::{Store, lock::open_to_read};
use crate::session_id::SessionId;
use memchr::memmem::find_iter;
use std::{os::unix::fs::FileExt, time::UNIX_EPOCH};

/// So much of the file's end is looked through.
const TAIL: u64 = 1 << 16;

impl Store {
    /// The lowest stamp, in milliseconds since 1970, that is above those in the ids of the session's
    /// answers, and not below `now`. Ids begin with `prefix`. The file's time of change tells, and where
    /// the clock was ahead or stands still, the last ids.
    pub fn free_stamp(&self, session: &SessionId, prefix: &str, now: u64) -> u64 {
        let Ok(Some(file)) = open_to_read(&self.session_path(session)) else { return now };
        let Ok(metadata) = file.metadata() else { return now };
        let changed = metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let changed = changed.map_or(0, |since| since.as_millis() as u64);
        let by_time = if changed > now { changed + 1 } else { now };
        let start = metadata.len().saturating_sub(TAIL);
        let mut tail = vec![0; (metadata.len() - start) as usize];
        let count = file.read_at(&mut tail, start).unwrap_or(0);
        tail.truncate(count);
        let begin = format!("\"id\":\"{prefix}");
        let numbers = find_iter(&tail, begin.as_bytes()).filter_map(|at| {
            let digits = &tail[at + begin.len()..];
            let length = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
            std::str::from_utf8(&digits[..length]).ok()?.parse::<u64>().ok()
        });
        // Above what any clock says, it is no stamp.
        let by_ids = numbers.filter(|&number| number < 1 << 52).map(|number| number + 1).max();
        by_time.max(by_ids.unwrap_or(0))
    }
}
