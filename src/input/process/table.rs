//! Which processes there are, whose children they are, and which bear a mark in their environment.
//!
//! All of it may block: `/proc/<pid>/environ` waits for a lock that a process holds which is stuck in
//! a dead file system, and other systems than Linux are asked through `ps`. So looks are taken
//! [`in_background`], and those that are wanted at the same time share one.

use crate::panics;
use once_cell::sync::OnceCell;
use std::{
    cell::{self, RefCell},
    collections::HashMap,
    io,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};
use tokio::sync::oneshot;

/// The variable that every agent is started with, and that its children inherit: a value of their
/// run's own, by which they are found when they have left their parents and their group.
pub const MARK: &str = "ACTIVE_RUNS_RUN";

/// One process, as it is in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number.
    pub pid: i32,
    /// Its parent's.
    pub parent: i32,
    /// Its process group's.
    pub group: i32,
    /// When it began, in a unit and from a moment that are the system's own; tells it from others that
    /// had or get its number.
    pub start: u64,
    /// Whether it has ended and waits for its parent.
    pub is_zombie: bool,
}

impl Entry {
    /// Whether both are of one process.
    pub fn is_of(&self, other: &Self) -> bool {
        (self.pid, self.start) == (other.pid, other.start)
    }
}

/// One look at the processes, taken when it is first needed.
#[derive(Default)]
pub struct Table {
    entries: cell::OnceCell<Vec<Entry>>,
    /// The marks of the processes that were asked for them.
    marks: RefCell<HashMap<i32, Vec<Vec<u8>>>>,
}

type Job = Box<dyn FnOnce(&Table) + Send>;

/// The way to the thread that looks.
static LOOKER: OnceCell<Sender<Job>> = OnceCell::new();

/// Starts the thread that looks, if it was not started. It never ends.
///
/// # Errors
/// When the system refuses it; the next call tries again.
pub fn start_looker() -> io::Result<&'static Sender<Job>> {
    LOOKER.get_or_try_init(|| {
        let (sender, jobs) = channel();
        thread::Builder::new().name("active-runs-look".into()).spawn(move || do_jobs(&jobs))?;
        Ok(sender)
    })
}

/// Calls `look` on a thread of its own: the runtime's must not wait, and the disk's may all be waiting.
/// Where the system has refused it, `look` is called here.
pub async fn in_background<R: Send + 'static>(
    look: impl FnOnce(&Table) -> R + Send + 'static,
) -> R {
    let (done, result) = oneshot::channel();
    // Nobody waits for it any more when the runtime ends.
    let job = move |table: &Table| drop(done.send(look(table)));
    match start_looker() {
        // The thread never ends, so there is always somebody to take it.
        Ok(looker) => drop(looker.send(Box::new(job))),
        Err(_) => job(&Table::default()),
    }
    match result.await {
        Ok(result) => result,
        Err(_) => panic!("a look at the processes has panicked"),
    }
}

fn do_jobs(jobs: &Receiver<Job>) {
    while let Ok(first) = jobs.recv() {
        // Those that come from now on wait for the next look.
        let jobs: Vec<Job> = [first].into_iter().chain(jobs.try_iter()).collect();
        let table = Table::default();
        for job in jobs {
            // Whoever waits for it learns it.
            let _ = panics::caught("a look at the processes", || job(&table));
        }
    }
}

impl Table {
    /// All processes.
    pub fn entries(&self) -> &[Entry] {
        self.entries.get_or_init(system::all)
    }

    /// Whether the process of this number bears this mark.
    fn has_mark(&self, pid: i32, mark: &str) -> bool {
        let mut known = self.marks.borrow_mut();
        let marks = known.entry(pid).or_insert_with(|| marks_of(pid));
        marks.iter().any(|found| found == mark.as_bytes())
    }

    /// The processes that descend from `roots` or bear `mark`, and their descendants. Processes that
    /// began before `since` are none of them. The roots themselves are left out.
    pub fn descendants(&self, roots: &[i32], mark: &str, since: u64) -> Vec<Entry> {
        descendants(self.entries(), roots, since, |pid| self.has_mark(pid, mark))
    }
}

/// The process of this number, if there is one.
pub fn entry(pid: i32) -> Option<Entry> {
    system::entry(pid)
}

/// When a child of this process began; 0 where that cannot be asked quickly.
pub fn start_of_child(pid: i32) -> u64 {
    system::start_of_child(pid)
}

/// The time now, in the unit of [`Entry::start`]; none where that cannot be asked quickly.
pub fn now() -> Option<u64> {
    system::now()
}

/// Whether the process surely has no children now; false where that cannot be asked quickly.
pub fn has_no_children(pid: i32) -> bool {
    system::has_no_children(pid)
}

fn descendants(
    table: &[Entry],
    roots: &[i32],
    since: u64,
    has_mark: impl Fn(i32) -> bool,
) -> Vec<Entry> {
    let younger = || table.iter().filter(|entry| entry.start >= since);
    let mut children: HashMap<i32, Vec<&Entry>> = HashMap::new();
    for entry in younger() {
        children.entry(entry.parent).or_default().push(entry);
    }
    let mut found: HashMap<i32, Entry> = HashMap::new();
    let add_family = |found: &mut HashMap<i32, Entry>, of: i32| {
        let mut parents = vec![of];
        while let Some(parent) = parents.pop() {
            for &&child in children.get(&parent).into_iter().flatten() {
                if !roots.contains(&child.pid) && found.insert(child.pid, child).is_none() {
                    parents.push(child.pid);
                }
            }
        }
    };
    for &root in roots {
        add_family(&mut found, root);
    }
    for entry in younger() {
        let is_known = found.contains_key(&entry.pid) || roots.contains(&entry.pid);
        if !is_known && !entry.is_zombie && has_mark(entry.pid) {
            found.insert(entry.pid, *entry);
            add_family(&mut found, entry.pid);
        }
    }
    found.into_values().collect()
}

/// The marks that the process of this number bears. Another user's cannot be asked.
pub fn marks_of(pid: i32) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    system::with_environment(pid, |environment| {
        found.extend(marks(environment).map(<[u8]>::to_vec));
    });
    found
}

/// The marks in an environment: `KEY=value` texts, each ended by a NUL. A server that was itself
/// started by an agent adds its runs' marks to the one that it has.
fn marks(environment: &[u8]) -> impl Iterator<Item = &[u8]> {
    let variables = environment.split(|&byte| byte == 0);
    let values =
        variables.filter_map(|variable| variable.strip_prefix(MARK.as_bytes())?.strip_prefix(b"="));
    values.flat_map(|value| value.split(|&byte| byte == b'.')).filter(|mark| !mark.is_empty())
}

#[cfg(linux)]
mod system {
    use super::Entry;
    use std::{fs, io::Read, path::PathBuf, str::SplitAsciiWhitespace, thread, time::Duration};

    pub fn all() -> Vec<Entry> {
        // Without `/proc` nobody is found but by the group.
        let names = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
        let pids = names.filter_map(|name| name.file_name().to_str()?.parse().ok());
        pids.filter_map(entry).collect()
    }

    pub fn entry(pid: i32) -> Option<Entry> {
        let mut stat = [0; 1024];
        let mut fields = stat_fields(pid, &mut stat)?;
        let state = fields.next()?;
        let mut number = |skipped| fields.nth(skipped)?.parse::<u64>().ok();
        let (parent, group, start) = (number(0)?, number(0)?, number(16)?);
        Some(Entry {
            pid,
            parent: parent as i32,
            group: group as i32,
            start,
            // Its first thread may have ended, and others live.
            is_zombie: matches!(state, "Z" | "X") && threads(pid).nth(1).is_none(),
        })
    }

    /// What the system tells of a process, from its third field on: behind the name, which may have any
    /// character and stands in parentheses.
    fn stat_fields(pid: i32, stat: &mut [u8; 1024]) -> Option<SplitAsciiWhitespace<'_>> {
        let mut file = fs::File::open(format!("/proc/{pid}/stat")).ok()?;
        let len = file.read(stat).ok()?;
        let behind = memchr::memrchr(b')', &stat[..len])? + 1;
        Some(str::from_utf8(&stat[behind..len]).ok()?.split_ascii_whitespace())
    }

    pub fn start_of_child(pid: i32) -> u64 {
        entry(pid).map_or(0, |entry| entry.start)
    }

    pub fn has_no_children(pid: i32) -> bool {
        let children = |thread: PathBuf| fs::read(thread.join("children"));
        let mut threads = threads(pid).peekable();
        threads.peek().is_some()
            && threads.all(|thread| children(thread).is_ok_and(|children| children.is_empty()))
    }

    /// So often a process is asked again that is just being replaced (`execve`), a millisecond apart.
    const REPLACED_LOOKS: u32 = 200;

    pub fn with_environment(pid: i32, mut look: impl FnMut(&[u8])) {
        let path = format!("/proc/{pid}/environ");
        let mut was_empty = false;
        for _ in 0..REPLACED_LOOKS {
            let Ok(environment) = fs::read(&path) else { break };
            let Some(len) = environment_len(pid) else { break };
            let is_whole = len == Some(environment.len() as u64);
            if is_whole && (was_empty || !environment.is_empty()) {
                return look(&environment);
            }
            // In the middle of `execve` it is cut or empty, and for a moment said to be so.
            was_empty = is_whole;
            thread::sleep(Duration::from_millis(1));
        }
        // Its first thread may have ended, and others live.
        let mut environments = threads(pid).flat_map(|thread| fs::read(thread.join("environ")));
        if let Some(environment) = environments.find(|environment| !environment.is_empty()) {
            look(&environment);
        }
    }

    /// How many bytes the process's environment has, none as long as `execve` has not made it; nothing
    /// when the process has no memory, as one that has ended.
    fn environment_len(pid: i32) -> Option<Option<u64>> {
        let mut stat = [0; 1024];
        let fields = stat_fields(pid, &mut stat)?;
        // `proc_pid_stat(5)`: the state is the third field.
        let number = |field: usize| fields.clone().nth(field - 3)?.parse::<u64>().ok();
        let (memory, start, end) = (number(23)?, number(50)?, number(51)?);
        (memory > 0).then(|| end.checked_sub(start).filter(|_| end > 0))
    }

    fn threads(pid: i32) -> impl Iterator<Item = PathBuf> {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        threads.map(|thread| thread.path())
    }

    /// How long the system has been up, in the unit of [`Entry::start`].
    pub fn now() -> Option<u64> {
        let uptime = fs::read_to_string("/proc/uptime").ok()?;
        let seconds: f64 = uptime.split_ascii_whitespace().next()?.parse().ok()?;
        Some((seconds * rustix::param::clock_ticks_per_second() as f64) as u64)
    }
}

#[cfg(not(linux))]
mod system {
    use super::Entry;
    use std::process::{Command, Stdio};

    /// What `ps` prints of each process; every Unix system has these.
    const COLUMNS: &str = "pid=,ppid=,pgid=,stat=,lstart=";

    pub fn all() -> Vec<Entry> {
        list(&["-A"])
    }

    pub fn entry(pid: i32) -> Option<Entry> {
        list(&["-p", &pid.to_string()]).into_iter().find(|entry| entry.pid == pid)
    }

    fn list(which: &[&str]) -> Vec<Entry> {
        let ps = Command::new("ps")
            .args(which)
            .args(["-o", COLUMNS])
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output();
        let text = ps.map(|output| output.stdout).unwrap_or_default();
        String::from_utf8_lossy(&text).lines().filter_map(parse).collect()
    }

    /// `PID PPID PGID STAT Thu Nov 26 01:10:05 2026`
    fn parse(line: &str) -> Option<Entry> {
        const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
        let mut fields = line.split_ascii_whitespace();
        let mut number = || fields.next()?.parse().ok();
        let (pid, parent, group) = (number()?, number()?, number()?);
        let state = fields.next()?;
        let month = MONTHS.find(fields.nth(1)?)? as u64 / 3;
        let day: u64 = fields.next()?.parse().ok()?;
        let mut time = fields.next()?.split(':').map(|part| part.parse::<u64>().ok());
        let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
        let year: u64 = fields.next()?.parse().ok()?;
        // Only compared: months of 31 days keep the order.
        let start = ((((year * 12 + month) * 31 + day) * 24 + hour) * 60 + minute) * 60 + second;
        Some(Entry { pid, parent, group, start, is_zombie: state.starts_with('Z') })
    }

    pub fn start_of_child(_pid: i32) -> u64 {
        0
    }

    pub fn has_no_children(_pid: i32) -> bool {
        false
    }

    pub fn now() -> Option<u64> {
        None
    }

    #[cfg(not(target_os = "macos"))]
    pub fn with_environment(_pid: i32, _look: impl FnMut(&[u8])) {}

    /// What `execve` was given: the system shows it of one's own processes, but of its own programs
    /// (`/bin/sh`) without the environment.
    #[cfg(target_os = "macos")]
    pub fn with_environment(pid: i32, mut look: impl FnMut(&[u8])) {
        let mut name = [libc::CTL_KERN, libc::KERN_PROCARGS2, pid];
        let mut bytes = vec![0_u8; 1 << 20];
        let mut len = bytes.len();
        // SAFETY: the name has three numbers, and `bytes` room for `len`; nothing is set.
        let read = unsafe {
            libc::sysctl(
                name.as_mut_ptr(),
                3,
                bytes.as_mut_ptr().cast(),
                &raw mut len,
                std::ptr::null_mut(),
                0,
            )
        };
        if read == 0 {
            look(&bytes[..len.min(bytes.len())]);
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_line_of_ps_is_read() {
            let entry = parse("  4711     1  4700 Ss   Thu Nov 26 01:10:05 2026").unwrap();
            assert_eq!((entry.pid, entry.parent, entry.group), (4711, 1, 4700));
            let later = parse("4711 1 4700 Z Tue Dec  1 00:00:00 2026").unwrap();
            assert!(later.start > entry.start && later.is_zombie && !entry.is_zombie);
            assert!(parse("PID PPID").is_none());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(pid: i32, parent: i32, start: u64) -> Entry {
        Entry { pid, parent, group: pid, start, is_zombie: false }
    }

    #[test]
    fn children_and_theirs_are_found_in_any_order() {
        let table =
            [entry(5, 4, 9), entry(4, 3, 8), entry(3, 2, 7), entry(9, 1, 8), entry(6, 2, 1)];
        let mut found: Vec<_> =
            descendants(&table, &[2], 5, |_| false).iter().map(|e| e.pid).collect();
        found.sort_unstable();
        assert_eq!(found, [3, 4, 5], "6 began before the agent: its parent's number was another's");
    }

    #[test]
    fn this_process_and_its_parent_are_in_the_table() {
        let own = super::entry(std::process::id() as i32).unwrap();
        let table = Table::default();
        let found = table.entries().iter().find(|entry| entry.pid == own.pid).unwrap();
        assert_eq!(found, &own);
        assert!(own.parent > 0 && own.start > 0 && !own.is_zombie);
        assert!(super::entry(i32::MAX).is_none());
    }

    #[test]
    fn a_mark_is_a_part_of_the_variables_value() {
        let environment = |value: &str| format!("A=1\0{MARK}={value}\0B=ab\0").into_bytes();
        let found = |value: &str| {
            let environment = environment(value);
            marks(&environment)
                .map(|mark| String::from_utf8_lossy(mark).into_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(found("ab"), ["ab"]);
        assert_eq!(found("outer.ab"), ["outer", "ab"]);
        assert!(found("").is_empty());
        assert_eq!(marks(b"X=ab\0").count(), 0);
    }
}
