//! Which copy of this library serves the process, where several are loaded from several paths.
//!
//! Runs, settings and stores belong to the process and live in the statics of the library. A second
//! copy of the package (two versions among an app's dependencies, a bundled and an installed one)
//! would bring a second set of them. So the copy that was loaded first serves all. Each copy asks the
//! system, whose list of libraries is in the order in which they were loaded and the same for all
//! threads: two that come at once agree, too.

use std::{
    ffi::{CStr, CString, c_void},
    ptr,
};

/// What the JavaScript and the native part of a copy expect of each other, as a number. To be raised,
/// here and in `lib/binding.js`, with each change of what `api` offers, of its meaning, or of what copies
/// of the JavaScript share (`lib/hub.js`).
pub const INTERFACE: u32 = 1;

/// [`INTERFACE`], for other copies.
#[unsafe(no_mangle)]
pub extern "C" fn active_runs_interface() -> u32 {
    INTERFACE
}

/// A copy of this library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Where it was loaded from; none for this one.
    pub path: Option<String>,
    /// Its [`INTERFACE`].
    pub interface: u32,
}

/// The copy that was loaded first; this one, where the system knows no other.
pub fn first() -> Copy {
    let first = loaded_libraries().iter().find_map(|path| {
        let interface = interface_of(path)?;
        let is_this = ptr::fn_addr_eq(interface, active_runs_interface as Interface);
        let path = (!is_this).then(|| path.to_string_lossy().into_owned());
        Some(Copy { path, interface: interface() })
    });
    first.unwrap_or(Copy { path: None, interface: INTERFACE })
}

type Interface = extern "C" fn() -> u32;

/// The function of that name in a library that is loaded.
fn interface_of(path: &CStr) -> Option<Interface> {
    // SAFETY: `RTLD_NOLOAD` runs no code of the library. Addons are never unloaded once a copy of this
    // one is in use (it is linked so), so the symbol outlives the handle.
    let symbol = unsafe {
        let library = libc::dlopen(path.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD);
        if library.is_null() {
            return None;
        }
        let symbol = libc::dlsym(library, c"active_runs_interface".as_ptr());
        libc::dlclose(library);
        symbol
    };
    // SAFETY: whatever has this name is a function of this type.
    (!symbol.is_null()).then(|| unsafe { std::mem::transmute::<*mut c_void, Interface>(symbol) })
}

/// The paths of the Node addons that are loaded, in the order in which they were.
#[cfg(not(target_os = "macos"))]
fn loaded_libraries() -> Vec<CString> {
    unsafe extern "C" fn note(
        library: *mut libc::dl_phdr_info,
        _size: usize,
        paths: *mut c_void,
    ) -> libc::c_int {
        // SAFETY: both are those of the call below, and the name is text or null.
        unsafe {
            let paths = &mut *paths.cast::<Vec<CString>>();
            let name = (*library).dlpi_name;
            if !name.is_null() {
                note_addon(CStr::from_ptr(name), paths);
            }
        }
        0
    }
    let mut paths = Vec::new();
    // SAFETY: `note` is called before this returns, and by this thread alone.
    unsafe { libc::dl_iterate_phdr(Some(note), (&raw mut paths).cast()) };
    paths
}

/// The same.
#[cfg(target_os = "macos")]
#[expect(deprecated, reason = "a crate for two functions of the C library is not worth it")]
fn loaded_libraries() -> Vec<CString> {
    let mut paths = Vec::new();
    // SAFETY: the names of images that are loaded stay; of others the system gives null.
    unsafe {
        for image in 0..libc::_dyld_image_count() {
            let name = libc::_dyld_get_image_name(image);
            if !name.is_null() {
                note_addon(CStr::from_ptr(name), &mut paths);
            }
        }
    }
    paths
}

fn note_addon(name: &CStr, paths: &mut Vec<CString>) {
    if name.to_bytes().ends_with(b".node") {
        paths.push(name.to_owned());
    }
}
