//! A panic is a fault of this package. It must not end the server, so it is caught at the edge of every
//! thread and of every call from JavaScript, and becomes an error there. None is hidden: it is told as
//! `INTERNAL`.

use crate::error::{Error, Result};
use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Does `work`; an error, `INTERNAL`, when it panics. `what` is who does it.
///
/// What `work` shares with others must hold at any point at which it may panic: the locks of this
/// package are taken also when one who held them has panicked.
///
/// # Errors
/// When it panics.
pub fn caught<T>(what: &str, work: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
        let error = Error::internal(format!("{what} has panicked: {}", text(&*payload)));
        // Dropping it might panic again.
        std::mem::forget(payload);
        error
    })
}

fn text(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no reason given")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_that_says_who_and_why() {
        assert_eq!(caught("it", || 7).unwrap(), 7);
        let error = caught("the cook", || panic!("no {}", "salt")).unwrap_err();
        assert_eq!(error.code(), "INTERNAL");
        assert_eq!(error.to_string(), "a fault of active-runs: the cook has panicked: no salt");
        let error = caught("the cook", || std::panic::panic_any(7)).unwrap_err();
        assert!(error.to_string().ends_with("no reason given"));
    }
}
