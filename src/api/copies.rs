//! Which copy of the package's native part serves the process.

use crate::copies;
use napi_derive::napi;

/// The native part of a copy of the package.
#[napi(object, object_from_js = false)]
pub struct NativeCopy {
    /// Its file; none for the one that is asked.
    pub path: Option<String>,
    /// The version of what it offers.
    pub interface: u32,
}

/// The copy that was loaded first in this process.
#[napi(catch_unwind)]
pub fn first_copy() -> NativeCopy {
    let copies::Copy { path, interface } = copies::first();
    NativeCopy { path, interface }
}
