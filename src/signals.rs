//! Ends the runs at a signal that would end the process at once, where no JavaScript can: the package
//! is loaded in worker threads only, and Node.js tells signals to the main thread alone.
//!
//! Only a signal that has its default effect is watched, and only while runs are running. Whoever sets
//! up a listener of his own decides himself what the signal means. The handler does nothing but write a byte.

use once_cell::sync::OnceCell;
use std::{
    ffi::c_int,
    io::{self, PipeReader, PipeWriter, Read},
    mem,
    os::fd::AsRawFd,
    ptr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI32, Ordering},
    },
    thread,
};

const SIGNALS: [c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// The signals that are watched, with what they did before.
static WATCHED: Mutex<Vec<(c_int, libc::sigaction)>> = Mutex::new(Vec::new());

/// Where the handler writes to; kept open as long as the process lives.
static PIPE: OnceCell<PipeWriter> = OnceCell::new();
/// Its number, for the handler.
static PIPE_FD: AtomicI32 = AtomicI32::new(-1);

/// Has `end` called, on a thread, when a signal comes that would end the process; which it then does.
/// Where the system refuses the thread, signals keep their effect.
pub fn watch(end: fn()) {
    if start_thread(end).is_err() {
        return;
    }
    let mut watched = watched();
    for signal in SIGNALS {
        let before = action(signal, None);
        if !before.is_some_and(|before| ends_process(&before)) {
            continue;
        }
        // SAFETY: all zeros are a `sigaction` with no flags and an empty mask.
        let mut ours: libc::sigaction = unsafe { mem::zeroed() };
        ours.sa_sigaction = on_signal as extern "C" fn(c_int) as usize;
        ours.sa_flags = libc::SA_RESTART;
        if let Some(before) = action(signal, Some(&ours)) {
            watched.retain(|(known, _)| *known != signal);
            watched.push((signal, before));
        }
    }
}

/// Gives the signals their effect back.
pub fn unwatch() {
    for (signal, before) in watched().drain(..) {
        give_back(signal, &before);
    }
}

fn give_back(signal: c_int, before: &libc::sigaction) {
    // Not to somebody who has set up a listener meanwhile.
    let is_ours =
        |now: libc::sigaction| now.sa_sigaction == on_signal as extern "C" fn(c_int) as usize;
    if action(signal, None).is_some_and(is_ours) {
        action(signal, Some(before));
    }
}

/// Whether the signal ends the process. Node.js has handlers that do so after they have put the terminal
/// in order; they are the ones that are for one time only.
fn ends_process(action: &libc::sigaction) -> bool {
    action.sa_sigaction == libc::SIG_DFL || action.sa_flags & libc::SA_RESETHAND != 0
}

/// Sets what a signal does, or asks; what it did before.
fn action(signal: c_int, new: Option<&libc::sigaction>) -> Option<libc::sigaction> {
    let new = new.map_or(ptr::null(), ptr::from_ref);
    // SAFETY: `new` is null or a whole action, whose handler may be called on any thread at any time;
    // the old one is written before it is read, unless the call fails.
    unsafe {
        let mut before = mem::zeroed();
        (libc::sigaction(signal, new, &mut before) == 0).then_some(before)
    }
}

/// Does no more than a handler may. A byte that finds no room has thousands before it.
extern "C" fn on_signal(signal: c_int) {
    let byte = signal as u8;
    let way = PIPE_FD.load(Ordering::Relaxed);
    // SAFETY: the descriptor stays open; the byte is there until the call returns. What the thread was in
    // the middle of finds its own error code.
    unsafe {
        let before = *error_code();
        libc::write(way, (&raw const byte).cast(), 1);
        *error_code() = before;
    }
}

#[cfg(target_os = "linux")]
use libc::__errno_location as error_code;

#[cfg(not(target_os = "linux"))]
use libc::__error as error_code;

fn start_thread(end: fn()) -> io::Result<()> {
    let start = || {
        let (signals, way) = io::pipe()?;
        // The handler must not wait.
        rustix::io::ioctl_fionbio(&way, true)?;
        PIPE_FD.store(way.as_raw_fd(), Ordering::Relaxed);
        let thread = thread::Builder::new().name("active-runs-signal".into());
        thread.spawn(move || end_at(signals, end))?;
        Ok::<_, io::Error>(way)
    };
    PIPE.get_or_try_init(start).map(drop)
}

fn end_at(mut signals: PipeReader, end: fn()) {
    let mut byte = [0];
    while signals.read_exact(&mut byte).is_ok() {
        let signal = c_int::from(byte[0]);
        end();
        unwatch();
        // SAFETY: the calls take numbers. To the first process of a container the system sends no signal
        // that it does not listen for.
        unsafe {
            libc::kill(libc::getpid(), signal);
            if libc::getpid() == 1 {
                libc::_exit(128 + signal);
            }
        }
    }
}

fn watched() -> MutexGuard<'static, Vec<(c_int, libc::sigaction)>> {
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner)
}
