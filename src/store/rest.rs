//! Whether a file is at rest, or somebody is in the midst of writing it.
//!
//! A program that rewrites a file has emptied it before it writes: taken for the real one, such a file
//! would cost the history. Where the system tells who has a file open for writing ([`Writers`]), that
//! decides. A writer that stays, and writes nothing for a while, is not waited for, unless the file
//! looks as if it had been left in the middle: emptied, cut, or shorter than it was known to be.

use super::{
    identity::Identity,
    layout::byte_at,
    lease::Writers,
    retry::{Attempts, Trouble},
};
use std::{fs::File, io, time::Duration};

/// How long a file that somebody has open, or that looks cut, must stay unchanged.
pub(super) const STILL: Duration = Duration::from_secs(1);
/// The same, where more is to be feared: emptied, or never seen before.
const LONG_STILL: Duration = Duration::from_secs(5);
/// Where it cannot be learnt who has the file open: a change so recent may be followed by more.
const FRESH: Duration = Duration::from_millis(20);

/// The file's state, once nobody is in the midst of writing it; [`Trouble::Busy`] until then. `known`
/// is its state before, if that is known. `file` must be open for reading only.
pub(super) fn at_rest(
    file: &File,
    known: Option<&Identity>,
    attempts: &mut Attempts,
) -> Result<Identity, Trouble> {
    let writers = Writers::of(file);
    let now = Identity::of(file)?;
    // To empty a file that is empty changes nothing that can be seen.
    let is_told_by_state = now.size > 0 || !matches!(writers, Writers::Somebody);
    if matches!(writers, Writers::Nobody(_)) || (known == Some(&now) && is_told_by_state) {
        return Ok(now);
    }
    let unchanged_for = attempts.unchanged_for(now);
    if known == Some(&now) && unchanged_for > STILL {
        return Ok(now);
    }
    let is_still = if let Writers::Somebody = writers {
        // It could go on at any time: what looks cut is not believed, and what is not known may be.
        let still = if known.is_some() { STILL } else { LONG_STILL };
        unchanged_for > still && now.size > 0 && !looks_cut(file, &now, known)?
    } else if looks_cut(file, &now, known)? {
        let still = if now.size == 0 && known.is_some() { LONG_STILL } else { STILL };
        unchanged_for > still || !now.modified_within(still)
    } else {
        unchanged_for > FRESH || !now.modified_within(FRESH)
    };
    if is_still { Ok(now) } else { Err(Trouble::Busy) }
}

/// Empty, as far as it is not known to be; shorter than before; or ending in mid-line.
fn looks_cut(file: &File, now: &Identity, known: Option<&Identity>) -> io::Result<bool> {
    let is_shorter = known.is_some_and(|known| known.same_file(now) && now.size < known.size);
    let is_empty = now.size == 0 && known.is_none();
    if is_shorter || now.size == 0 {
        return Ok(is_shorter || is_empty);
    }
    Ok(byte_at(file, now.size - 1)? != Some(b'\n'))
}
