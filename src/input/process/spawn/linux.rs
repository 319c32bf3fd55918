//! The child between its birth and its `execve`. It runs in the parent's memory, so it must not
//! allocate, lock, panic or return: all it needs is laid out before, and it makes system calls.

use super::NOT_WANTED;
use crate::{
    command::{AgentCommand, variable},
    input::Startup,
};
use rustix::process::Pid;
use std::{
    ffi::{CString, OsStr, c_char, c_int, c_long, c_void},
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    ptr,
    sync::atomic::AtomicI32,
};

/// Where programs are when the environment has no `PATH` (glibc's and libuv's default).
const DEFAULT_PATH: &str = "/bin:/usr/bin";
/// Room for the child's few frames.
const STACK_BYTES: usize = 64 * 1024;
/// Linux has signals 1 to 64.
const LAST_SIGNAL: c_int = 64;

/// All that the child reads, and the one word that it writes.
struct Plan {
    /// What to try, in order, as `execvp` would: the name itself, or the name in each folder.
    candidates: Vec<*const c_char>,
    argv: Vec<*const c_char>,
    /// `argv` of `/bin/sh` for a script without an interpreter line; its second place is the
    /// script's path.
    shell_argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    cwd: *const c_char,
    stdio: [c_int; 3],
    parent: libc::pid_t,
    /// Whether the server is in the usual scheduling class, so that the agent goes back to it.
    is_usual_class: bool,
    /// Whether the agent is still wanted.
    startup: *const Startup,
    /// The error number of the step that failed, or [`NOT_WANTED`]; 0 when the child became the
    /// agent.
    failure: c_int,
}

pub(super) fn start(
    command: &AgentCommand,
    stdio: [OwnedFd; 3],
    startup: &Startup,
) -> io::Result<Pid> {
    let program = c_string(command.program.as_bytes())?;
    let candidates = candidates(command)?;
    let args =
        command.args.iter().map(|arg| c_string(arg.as_bytes())).collect::<io::Result<Vec<_>>>()?;
    let env = command
        .env
        .iter()
        .map(|(key, value)| c_string(&[key.as_bytes(), b"=", value.as_bytes()].concat()))
        .collect::<io::Result<Vec<_>>>()?;
    let cwd = c_string(command.cwd.as_os_str().as_bytes())?;
    // A number below 3 would be overwritten by the `dup2` of its neighbour.
    let [stdin, stdout, stderr] = stdio;
    let stdio = [above_stdio(stdin)?, above_stdio(stdout)?, above_stdio(stderr)?];

    let list = |strings: &[CString]| -> Vec<*const c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
    };
    let args = list(&args);
    // SAFETY: getpid has no preconditions.
    let parent = unsafe { libc::getpid() };
    let mut plan = Plan {
        candidates: list(&candidates),
        argv: [&[program.as_ptr()], &args[..]].concat(),
        shell_argv: [&[c"/bin/sh".as_ptr(), ptr::null()], &args[..]].concat(),
        envp: list(&env),
        cwd: cwd.as_ptr(),
        stdio: [stdio[0].as_raw_fd(), stdio[1].as_raw_fd(), stdio[2].as_raw_fd()],
        parent,
        is_usual_class: is_usual_class(parent),
        startup: ptr::from_ref(startup),
        failure: 0,
    };
    let pid = start_planned(&mut plan, startup.child())?;
    match plan.failure {
        0 => Pid::from_raw(pid).ok_or_else(|| io::Error::other("the child has no pid")),
        failure => {
            startup.forget_child();
            // SAFETY: `pid` is our own child, which ended at the failed step.
            unsafe { libc::waitpid(pid, ptr::null_mut(), 0) };
            Err(io::Error::from_raw_os_error(failure))
        }
    }
}

/// The system notes the child's number in `number` before the child runs.
fn start_planned(plan: &mut Plan, number: &AtomicI32) -> io::Result<libc::pid_t> {
    let mut stack = vec![0_u128; STACK_BYTES / size_of::<u128>()];
    let top = stack.as_mut_ptr_range().end;
    // SAFETY: the two sets are written by the calls that fill them before they are read. The
    // child runs `child` on a stack of its own, which grows down from `top` (16-byte aligned,
    // being `u128`s) and, like `plan`, outlives it: with CLONE_VFORK this thread does not go
    // on before the child has called `execve` or `_exit`. All signals are blocked meanwhile,
    // so that no handler of Node's runs in the child, in the parent's memory.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PARENT_SETTID | libc::SIGCHLD;
        let plan = ptr::from_mut(plan).cast();
        let pid = libc::clone(child, top.cast(), flags, plan, number.as_ptr());
        let error = io::Error::last_os_error();
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, ptr::null_mut());
        if pid < 0 { Err(error) } else { Ok(pid) }
    }
}

/// Has the calling thread preempt nobody when it is woken.
pub(super) fn never_preempt() {
    if is_usual_class(0) {
        set_class(libc::SCHED_BATCH);
    }
}

/// Whether a thread, or the calling one (0), is in the scheduling class of almost all threads.
fn is_usual_class(thread: libc::pid_t) -> bool {
    // SAFETY: the call takes numbers only. By number, because musl's function refuses.
    unsafe {
        libc::syscall(libc::SYS_sched_getscheduler, thread) == c_long::from(libc::SCHED_OTHER)
    }
}

/// Puts the calling thread into a class without priorities.
fn set_class(class: c_int) {
    // Its one field is the same with every libc.
    let priority: c_int = 0;
    // SAFETY: the call reads a `sched_param`, which to the system is an integer, and it is there
    // until the call returns.
    unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, class, &raw const priority) };
}

/// From birth to `execve`; its argument is the [`Plan`].
extern "C" fn child(plan: *mut c_void) -> c_int {
    // SAFETY: `start_planned` hands over its exclusively borrowed plan and waits for this
    // child; every pointer in it is to a NUL-ended string, or is the null that ends a list.
    // Only calls that are safe after `fork` are made.
    unsafe {
        let plan = &mut *plan.cast::<Plan>();
        plan.failure = become_agent(plan);
        libc::_exit(127)
    }
}

/// Returns only on failure, with the error number.
///
/// # Safety
/// To be called in the child, with a complete plan.
unsafe fn become_agent(plan: &mut Plan) -> c_int {
    // SAFETY: as `child` says.
    unsafe {
        // Node ignores SIGPIPE, and what is ignored stays so over `execve`. (KILL, STOP and the
        // two that belong to libc refuse to be set, which is fine.)
        let mut default: libc::sigaction = std::mem::zeroed();
        default.sa_sigaction = libc::SIG_DFL;
        for signal in 1..=LAST_SIGNAL {
            libc::sigaction(signal, &default, ptr::null_mut());
        }
        if libc::setpgid(0, 0) != 0 {
            return errno();
        }
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        // The server may have died before that call.
        if libc::getppid() != plan.parent {
            return libc::ESRCH;
        }
        for (target, &fd) in (0..).zip(&plan.stdio) {
            if libc::dup2(fd, target) < 0 {
                return errno();
            }
        }
        if libc::chdir(plan.cwd) != 0 {
            return errno();
        }
        if plan.is_usual_class {
            // Without it the agent works, too.
            set_class(libc::SCHED_OTHER);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, ptr::null_mut());
        // Last of all: who cancels the start later finds an agent to be signalled.
        if !(*plan.startup).wanted() {
            return NOT_WANTED;
        }
        execute(plan)
    }
}

/// Tries the candidates as `execvp` does: on where one is missing, and a folder that may not be
/// searched is remembered, because it is the better explanation.
///
/// # Safety
/// As for [`become_agent`].
unsafe fn execute(plan: &mut Plan) -> c_int {
    let mut denied = false;
    let mut last = libc::ENOENT;
    let mut next = plan.candidates.as_ptr();
    // SAFETY: as `child` says; `next` stops at the null that ends the list.
    unsafe {
        while !(*next).is_null() {
            libc::execve(*next, plan.argv.as_ptr(), plan.envp.as_ptr());
            last = errno();
            match last {
                libc::ENOEXEC => {
                    *plan.shell_argv.as_mut_ptr().add(1) = *next;
                    let shell = c"/bin/sh".as_ptr();
                    libc::execve(shell, plan.shell_argv.as_ptr(), plan.envp.as_ptr());
                    return errno();
                }
                libc::EACCES => denied = true,
                libc::ENOENT | libc::ENOTDIR | libc::ESTALE | libc::ENODEV => {}
                _ => return last,
            }
            next = next.add(1);
        }
    }
    if denied { libc::EACCES } else { last }
}

fn errno() -> c_int {
    // SAFETY: the address is always valid; the thread that shares it with the child waits.
    unsafe { *libc::__errno_location() }
}

fn candidates(command: &AgentCommand) -> io::Result<Vec<CString>> {
    let program = command.program.as_bytes();
    if program.contains(&b'/') {
        return Ok(vec![c_string(command.program.as_bytes())?]);
    }
    let path = variable(&command.env, "PATH").unwrap_or(OsStr::new(DEFAULT_PATH));
    path.as_bytes()
        .split(|&byte| byte == b':')
        .map(|folder| {
            // An empty entry means the working directory.
            let folder: &[u8] = if folder.is_empty() { b"." } else { folder };
            c_string(&[folder, b"/", program].concat())
        })
        .collect()
}

fn c_string(text: &[u8]) -> io::Result<CString> {
    CString::new(text).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

fn above_stdio(fd: OwnedFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() > 2 {
        return Ok(fd);
    }
    // SAFETY: fcntl gives a new descriptor that nobody else owns, or -1.
    unsafe {
        match libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3) {
            -1 => Err(io::Error::last_os_error()),
            moved => Ok(OwnedFd::from_raw_fd(moved)),
        }
    }
}
