//! The store on real files, next to writers that know nothing of it.

use super::*;
use crate::store::line::MARK;
use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    process::{Child, Command},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, SystemTime},
};
use tempfile::TempDir;

const NOW: u64 = 1_771_000_000_000;

/// As [`retry::wait`], for as long as it takes.
fn wait<T>(attempt: impl FnMut(&mut Attempts) -> Result<Turn<T>>) -> Result<T> {
    retry::wait(Duration::from_secs(60), attempt).map(Option::unwrap)
}

/// The store's calls, made until they are done, with the index written.
trait Blocking {
    fn add(&self, session: &SessionId, id: &str, line: &[u8], now_ms: u64) -> Result<bool>;
    fn put_now(
        &self,
        session: &SessionId,
        id: &str,
        write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
        durable: bool,
        now_ms: u64,
    ) -> Result<()>;
    fn has(&self, session: &SessionId, id: &str) -> Result<bool>;
    fn read(&self, session: &SessionId) -> Result<Vec<u8>>;
    fn upsert(
        &self,
        session: &SessionId,
        messages: &[(String, String)],
        title: Option<&str>,
        now_ms: u64,
    ) -> Result<()>;
    fn list(&self) -> Result<String>;
    fn create(
        &self,
        session: &SessionId,
        title: &str,
        path: Option<&str>,
        now_ms: u64,
    ) -> Result<String>;
    fn delete(&self, session: &SessionId) -> Result<bool>;
    fn write_index_now(&self);
}

impl Blocking for Store {
    fn add(&self, session: &SessionId, id: &str, line: &[u8], now_ms: u64) -> Result<bool> {
        let addition = self.add_message(session, id, line.to_vec(), now_ms)?;
        until("what waits is added", || !self.session(session).has_waiting());
        if addition != Addition::AlreadyThere {
            wait(|attempts| self.session(session).tidy(attempts, &self.live))?;
        }
        self.write_index_now();
        Ok(addition != Addition::AlreadyThere)
    }

    fn put_now(
        &self,
        session: &SessionId,
        id: &str,
        write: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
        durable: bool,
        now_ms: u64,
    ) -> Result<()> {
        wait(|attempts| self.put_message(attempts, session, id, write, durable, now_ms))?;
        self.write_index_now();
        Ok(())
    }

    fn has(&self, session: &SessionId, id: &str) -> Result<bool> {
        wait(|attempts| self.still_has(attempts, session, id))
    }

    fn read(&self, session: &SessionId) -> Result<Vec<u8>> {
        wait(|attempts| self.read_messages(attempts, session))
    }

    fn upsert(
        &self,
        session: &SessionId,
        messages: &[(String, String)],
        title: Option<&str>,
        now_ms: u64,
    ) -> Result<()> {
        wait(|attempts| self.upsert_messages(attempts, session, messages, title, now_ms))?;
        self.write_index_now();
        Ok(())
    }

    fn list(&self) -> Result<String> {
        wait(|attempts| self.list_sessions(attempts))
    }

    fn create(
        &self,
        session: &SessionId,
        title: &str,
        path: Option<&str>,
        now_ms: u64,
    ) -> Result<String> {
        wait(|attempts| self.create_session(attempts, session, title, path, now_ms))
    }

    fn delete(&self, session: &SessionId) -> Result<bool> {
        wait(|attempts| self.delete_session(attempts, session))
    }

    fn write_index_now(&self) {
        wait(|attempts| Ok(self.write_index(attempts))).unwrap();
    }
}

struct Fixture {
    folder: TempDir,
    store: Arc<Store>,
    session: SessionId,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path());
        Self { store, session: SessionId::new("s").unwrap(), folder }
    }

    /// With this history, written long enough ago to be at rest.
    fn with(history: impl AsRef<[u8]>) -> Self {
        let fixture = Self::new();
        fixture.write(history);
        let long_ago = SystemTime::now() - Duration::from_secs(10);
        let file = OpenOptions::new().write(true).open(fixture.path()).unwrap();
        file.set_modified(long_ago).unwrap();
        fixture
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("s.jsonl")
    }

    fn index(&self) -> PathBuf {
        self.folder.path().join("index.json")
    }

    fn write(&self, history: impl AsRef<[u8]>) {
        fs::write(self.path(), history).unwrap();
    }

    fn text(&self) -> String {
        String::from_utf8(fs::read(self.path()).unwrap()).unwrap()
    }

    fn index_text(&self) -> String {
        fs::read_to_string(self.index()).unwrap()
    }

    fn add(&self, id: &str) -> bool {
        self.store.add(&self.session, id, message(id, "").as_bytes(), NOW).unwrap()
    }

    /// What is said at once, without waiting until it is there.
    fn add_at_once(&self, id: &str) -> Addition {
        let line = message(id, "").into_bytes();
        self.store.add_message(&self.session, id, line, NOW).unwrap()
    }

    fn put(&self, id: &str, content: &str) {
        self.put_line(id, &message(id, content));
    }

    fn put_line(&self, id: &str, line: &str) {
        let mut write = |out: &mut dyn Write| out.write_all(line.as_bytes());
        self.store.put_now(&self.session, id, &mut write, false, NOW).unwrap();
    }

    fn has(&self, id: &str) -> bool {
        self.store.has(&self.session, id).unwrap()
    }

    /// Work in the background may have one for a moment.
    fn no_temporary_files(&self) {
        let is_temporary = |entry: io::Result<fs::DirEntry>| {
            entry.unwrap().file_name().to_str().unwrap().ends_with(".tmp")
        };
        until("there is no temporary file", || {
            !fs::read_dir(self.folder.path()).unwrap().any(is_temporary)
        });
    }
}

fn message(id: &str, content: &str) -> String {
    format!(r#"{{"id":"{id}","role":"user","content":"{content}"}}"#)
}

fn lines(messages: &[&str]) -> String {
    messages.iter().map(|id| message(id, "") + "\n").collect()
}

/// Waits for what another thread or process does.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "never happened: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

mod session_files {
    use super::*;

    #[test]
    fn the_first_message_makes_folder_and_file_for_this_user_only() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b");
        let store = Store::at(&deep);
        let session = SessionId::new("s").unwrap();
        assert!(store.add(&session, "1", b"{\"id\":\"1\"}", NOW).unwrap());
        assert_eq!(fs::read_to_string(deep.join("s.jsonl")).unwrap(), "{\"id\":\"1\"}\n");
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(&deep.join("s.jsonl")), 0o600);
        assert_eq!((mode(&deep), mode(&folder.path().join("a"))), (0o700, 0o700));
        assert!(!deep.join("index.json").exists());
    }

    #[test]
    fn the_first_put_makes_the_file_for_this_user_only() {
        let fixture = Fixture::new();
        fixture.put("1", "x");
        assert_eq!(fixture.text(), message("1", "x") + "\n");
        assert_eq!(fs::metadata(fixture.path()).unwrap().mode() & 0o777, 0o600);
        fixture.no_temporary_files();
    }

    #[test]
    fn a_message_is_added_once() {
        let fixture = Fixture::with(lines(&["1", "2"]));
        assert!(fixture.add("3"));
        assert!(!fixture.add("1") && !fixture.add("3"));
        assert_eq!(fixture.text(), lines(&["1", "2", "3"]));
    }

    #[test]
    fn a_message_is_replaced_in_its_place_and_everywhere() {
        let fixture = Fixture::with(lines(&["1", "2", "1", "3"]));
        fixture.put("1", "longer than before");
        let new = message("1", "longer than before");
        let expected = [&new, &message("2", ""), &new, &message("3", ""), ""].map(|l| l).join("\n");
        assert_eq!(fixture.text(), expected);
        fixture.put("3", "x");
        fixture.put("1", "");
        assert_eq!(fixture.text(), lines(&["1", "2", "1"]) + &message("3", "x") + "\n");
        fixture.put("4", "y");
        assert!(fixture.text().ends_with(&(message("4", "y") + "\n")));
        assert!(fixture.has("4") && !fixture.has("5"));
    }

    #[test]
    fn a_rewrite_drops_blank_lines_and_keeps_all_others_to_the_byte() {
        let odd =
            b"\xff\xfe broken\n{\"id\":\"1\"}\r\n{\"id\": \"2\", \"x\": 1.0}  \n{\"id\":\"torn\n";
        let history =
            [b"\n \t\n\xef\xbb\xbf\n", &odd[..], b"\r\n\xc2\xa0\n{\"id\":\"3\"}\n\n"].concat();
        for put in [false, true] {
            let fixture = Fixture::with(&history);
            if put {
                fixture.put("4", "")
            } else {
                assert!(fixture.add("4"))
            }
            let last = format!("{{\"id\":\"3\"}}\n{}\n", message("4", ""));
            assert_eq!(fs::read(fixture.path()).unwrap(), [&odd[..], last.as_bytes()].concat());
            assert!(fixture.has("1") && fixture.has("2") && !fixture.has("torn"));
        }
    }

    #[test]
    fn blank_lines_stay_when_nothing_is_added() {
        let history = "\n{\"id\":\"1\"}\n\n";
        let fixture = Fixture::with(history);
        assert!(!fixture.add("1"));
        assert_eq!(fixture.text(), history);
    }

    #[test]
    fn a_missing_last_line_end_is_put_there() {
        for put in [false, true] {
            let fixture = Fixture::with("{\"id\":\"1\"}");
            if put {
                fixture.put("2", "")
            } else {
                assert!(fixture.add("2"))
            }
            assert!(fixture.add("3"));
            assert_eq!(fixture.text(), "{\"id\":\"1\"}\n".to_owned() + &lines(&["2", "3"]));
        }
        let fixture = Fixture::with("{\"id\":\"1\"}\n  ");
        fixture.put("1", "x");
        assert_eq!(fixture.text(), message("1", "x") + "\n");
    }

    #[test]
    fn a_line_that_only_begins_like_the_message_is_not_it() {
        let history = "{\"id\":\"1\",\"x\":\n{\"id\":\"1\",\"id\":\"2\"}\n";
        let fixture = Fixture::with(history);
        assert!(!fixture.has("1"));
        assert!(fixture.add("1"));
        assert_eq!(fixture.text(), history.to_owned() + &lines(&["1"]));
    }

    #[test]
    fn ids_are_found_wherever_and_however_they_are_written() {
        let fixture =
            Fixture::with("{\"role\":\"user\",\"id\":\"a\\u0022b\"}\n{ \"id\" : \"\u{e9}\" }\n");
        assert!(!fixture.store.add(&fixture.session, "a\"b", b"{}", NOW).unwrap());
        fixture.put_line("é", "{\"id\":\"é\"}");
        assert_eq!(fixture.text(), "{\"role\":\"user\",\"id\":\"a\\u0022b\"}\n{\"id\":\"é\"}\n");
    }

    #[test]
    fn no_two_of_many_ids_that_differ_in_their_last_digits_are_taken_for_one() {
        let ids = (0..1_000_000).map(|n| format!("assistant-s-{}", 1_764_134_000_000_u64 + n));
        let mut hashes: Vec<u64> = ids.map(|id| hash_of(&id)).collect();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), 1_000_000);
    }

    #[test]
    fn lines_that_span_blocks_are_found() {
        let big = "x".repeat(300_000);
        let history = [
            message("1", &big),
            format!(r#"{{"content":"{big}","id":"2"}}"#),
            " ".repeat(700_000),
            message("3", &big),
        ]
        .join("\n");
        let fixture = Fixture::with(history + "\n");
        assert!(fixture.has("1") && fixture.has("2") && fixture.has("3"));
        fixture.put("2", "");
        let expected = [message("1", &big), message("2", ""), message("3", &big), String::new()];
        assert_eq!(fixture.text(), expected.join("\n"));
    }

    #[test]
    fn messages_of_any_length_are_appended_to_the_file() {
        let fixture = Fixture::with(lines(&["1"]));
        let inode = || fs::metadata(fixture.path()).unwrap().ino();
        let old = inode();
        let mut expected = lines(&["1"]);
        for (id, length) in [("2", 10), ("3", 5_000), ("4", 300_000), ("5", 10)] {
            let line = message(id, &"x".repeat(length));
            fixture.store.add(&fixture.session, id, line.as_bytes(), NOW).unwrap();
            expected += &(line + "\n");
            assert!(fixture.text() == expected, "{id}");
        }
        assert_eq!(inode(), old);
    }

    #[test]
    fn a_file_with_another_name_is_replaced_and_what_the_other_names_stays() {
        let fixture = Fixture::with(lines(&["1"]));
        let backup = fixture.folder.path().join("backup");
        fs::hard_link(fixture.path(), &backup).unwrap();
        assert!(fixture.add("2"));
        fixture.put("answer", "");
        assert!(fixture.add("3"));
        assert_eq!(fixture.text(), lines(&["1", "2", "answer", "3"]));
        assert_eq!(fs::read_to_string(backup).unwrap(), lines(&["1"]));
    }

    /// So long that it is not read before a message is appended.
    fn long_history() -> String {
        let first = message("first", &"x".repeat(400_000)) + "\n";
        first
            + &(0..200)
                .map(|n| message(&format!("h{n}"), &"x".repeat(1_000)) + "\n")
                .collect::<String>()
    }

    #[test]
    fn a_message_is_appended_to_a_long_history_before_that_is_read() {
        let history = long_history();
        let fixture = Fixture::with(&history);
        let add = |id: &str| fixture.add_at_once(id);
        assert_eq!(add("new"), Addition::Done);
        assert_eq!(fixture.text(), history.clone() + &lines(&["new"]));
        assert_eq!(add("new"), Addition::AlreadyThere);
        assert_eq!(add("h199"), Addition::AlreadyThere, "it is near the end");
        assert_eq!(add("newer"), Addition::Done);
        fixture.put("answer", "");
        assert_eq!(fixture.text(), history + &lines(&["new", "newer", "answer"]));
    }

    #[test]
    fn a_message_that_was_far_in_front_of_a_long_history_is_there_once_again() {
        let history = long_history();
        let fixture = Fixture::with(&history);
        let again = message("first", "").into_bytes();
        fixture.store.add_message(&fixture.session, "first", again, NOW).unwrap();
        until("it is there once", || fixture.text() == history);
        assert!(!fixture.add("first"));
    }

    #[test]
    #[cfg(linux)]
    fn who_adds_a_message_does_not_wait_for_a_lock() {
        let fixture = Fixture::with(lines(&["1"]));
        let held = File::open(fixture.path()).unwrap();
        held.lock().unwrap();
        let add = |id: &str| fixture.add_at_once(id);
        assert_eq!(
            ["2", "3", "2"].map(add),
            [Addition::Done, Addition::Done, Addition::AlreadyThere]
        );
        assert_eq!(fixture.text(), lines(&["1", "2", "3"]));
    }

    #[test]
    #[cfg(linux)]
    fn who_adds_a_message_does_not_wait_for_a_writer_and_keeps_the_order() {
        let fixture = Fixture::with(lines(&["1"]));
        let mut writer = File::create(fixture.path()).unwrap();
        let add = |id: &str| fixture.add_at_once(id);
        assert_eq!(add("2"), Addition::Later);
        assert_eq!(add("3"), Addition::Later);
        writer.write_all(lines(&["1"]).as_bytes()).unwrap();
        drop(writer);
        fixture.put("answer", "");
        // At once, unless what was to be tidied up after the others is being done right now.
        assert_ne!(add("4"), Addition::AlreadyThere);
        until("it is there", || fixture.text() == lines(&["1", "2", "3", "answer", "4"]));
    }

    #[test]
    #[cfg(linux)]
    fn many_messages_that_had_to_wait_are_put_back_when_a_route_writes_what_it_had_read_before() {
        let before = lines(&["1"]);
        let fixture = Fixture::with(before.clone());
        let mut writer = File::create(fixture.path()).unwrap();
        let ids: Vec<String> = (0..300).map(|n| format!("u{n}")).collect();
        for id in &ids {
            let line = message(id, "").into_bytes();
            let added = fixture.store.add_message(&fixture.session, id, line, NOW).unwrap();
            assert_eq!(added, Addition::Later);
        }
        writer.write_all(before.as_bytes()).unwrap();
        drop(writer);
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let expected = before.clone() + &lines(&ids);
        until("all were added", || fixture.text() == expected);
        fs::write(fixture.path(), &before).unwrap();
        until("all were put back", || fixture.text() == expected);
    }

    #[test]
    fn a_replaced_file_keeps_its_mode() {
        let fixture = Fixture::with(lines(&["1"]));
        fs::set_permissions(fixture.path(), fs::Permissions::from_mode(0o640)).unwrap();
        fixture.put("1", "x");
        assert_eq!(fs::metadata(fixture.path()).unwrap().mode() & 0o777, 0o640);
    }

    #[test]
    fn a_symbolic_link_is_refused_and_its_target_untouched() {
        let fixture = Fixture::new();
        let target = fixture.folder.path().join("target");
        fs::write(&target, "mine").unwrap();
        symlink(&target, fixture.path()).unwrap();
        let mut write = |out: &mut dyn Write| out.write_all(b"{}");
        let put = fixture.store.put_now(&fixture.session, "1", &mut write, true, NOW);
        let add = fixture.store.add(&fixture.session, "1", b"{}", NOW).map(drop);
        for error in [put.unwrap_err(), add.unwrap_err()] {
            let path = fixture.path();
            let expected = format!(
                "failed to open {}: it is a symbolic link, which the store does not follow",
                path.display()
            );
            assert_eq!((error.code(), error.to_string()), ("STORE_FAILED", expected));
        }
        assert_eq!(fs::read_to_string(target).unwrap(), "mine");
    }

    #[test]
    fn a_folder_in_the_files_place_is_named() {
        let fixture = Fixture::new();
        fs::create_dir(fixture.path()).unwrap();
        for error in [
            fixture.store.add(&fixture.session, "1", b"{}", NOW).unwrap_err(),
            fixture.store.has(&fixture.session, "1").unwrap_err(),
            fixture.store.read(&fixture.session).unwrap_err(),
            fixture.store.delete(&fixture.session).unwrap_err(),
        ] {
            assert!(error.to_string().contains("s.jsonl: Is a directory"), "{error}");
        }
    }

    #[test]
    fn a_store_that_cannot_be_made_is_an_error_until_it_can() {
        let folder = tempfile::tempdir().unwrap();
        let blocker = folder.path().join("file");
        fs::write(&blocker, "").unwrap();
        let store = Store::at(&blocker.join("store"));
        let session = SessionId::new("s").unwrap();
        let error = store.add(&session, "1", b"{}", NOW).unwrap_err();
        assert_eq!(error.code(), "STORE_FAILED");
        assert!(error.to_string().starts_with("failed to open "), "{error}");
        fs::remove_file(&blocker).unwrap();
        assert!(store.add(&session, "1", b"{}", NOW).unwrap());
    }

    #[test]
    fn a_failing_writer_leaves_the_file_as_it_was() {
        let fixture = Fixture::with(lines(&["1"]));
        let mut fail = |out: &mut dyn Write| {
            out.write_all(b"{\"id\"")?;
            Err(io::ErrorKind::StorageFull.into())
        };
        let error = fixture.store.put_now(&fixture.session, "1", &mut fail, true, NOW).unwrap_err();
        assert_eq!(error.io().unwrap().kind(), io::ErrorKind::StorageFull);
        let mut two_lines = |out: &mut dyn Write| out.write_all(b"{}\n{}");
        assert!(fixture.store.put_now(&fixture.session, "1", &mut two_lines, true, NOW).is_err());
        assert!(fixture.store.add(&fixture.session, "2", b"{}\n", NOW).is_err());
        assert_eq!(fixture.text(), lines(&["1"]));
        fixture.no_temporary_files();
    }

    #[test]
    fn the_longest_session_id_fits() {
        let fixture = Fixture::new();
        let session = SessionId::new(&"é".repeat(100)).unwrap();
        let mut write = |out: &mut dyn Write| out.write_all(b"{\"id\":\"1\"}");
        fixture.store.put_now(&session, "1", &mut write, true, NOW).unwrap();
        assert!(fixture.store.has(&session, "1").unwrap());
    }

    #[test]
    fn a_large_history_is_replaced_at_front_middle_and_end() {
        let filler = "y".repeat(2_000);
        let ids: Vec<String> = (0..10_000).map(|id| format!("m-{id}")).collect();
        let mut all: Vec<String> = ids.iter().map(|id| message(id, &filler)).collect();
        let fixture = Fixture::with(all.join("\n") + "\n");
        for index in [0, 5_000, 9_999, 5_000] {
            let new = message(&ids[index], &"z".repeat(index + 1_000));
            fixture.put_line(&ids[index], &new);
            all[index] = new;
            assert!(fixture.text() == all.join("\n") + "\n", "{index}");
        }
        assert!(fixture.add("last"));
        assert!(fixture.text() == all.join("\n") + "\n" + &lines(&["last"]));
    }

    #[test]
    fn memory_for_sessions_is_bounded() {
        let fixture = Fixture::new();
        let ids: Vec<_> =
            (0..MAX_SESSIONS + 20).map(|id| SessionId::new(&format!("{id}")).unwrap()).collect();
        let used = fixture.store.session(&ids[0]);
        for id in &ids {
            assert!(fixture.store.has(id, "1").unwrap());
        }
        let sessions = fixture.store.sessions.lock().unwrap();
        assert_eq!(sessions.files.len(), MAX_SESSIONS);
        assert!(Arc::ptr_eq(&sessions.files[&ids[0]].1, &used));
    }

    #[test]
    fn stale_temporary_files_are_gone_after_the_first_use() {
        let fixture = Fixture::with(lines(&["1"]));
        let stale = fixture.folder.path().join(".s.abcdefgh.active-runs.tmp");
        File::create(&stale).unwrap();
        assert!(fixture.has("1"));
        assert!(!stale.exists());
    }
}

mod other_writers {
    use super::*;

    #[test]
    fn what_others_change_between_writes_is_kept() {
        let long = "x".repeat(5_000);
        let changes: [&dyn Fn(&Fixture); 6] = [
            &|f| {
                let mut file = OpenOptions::new().append(true).open(f.path()).unwrap();
                file.write_all(lines(&["other"]).as_bytes()).unwrap();
            },
            &|f| f.write(lines(&["a", "other"])),
            &|f| f.write(message("other", &long) + "\n" + &lines(&["a", "b"])),
            // The same size.
            &|f| f.write(f.text().replace("\"1\"", "\"0\"").replace("\"2\"", "\"other\"")),
            &|f| {
                let beside = f.folder.path().join("beside");
                fs::write(&beside, lines(&["other"])).unwrap();
                fs::rename(beside, f.path()).unwrap();
            },
            &|f| {
                fs::remove_file(f.path()).unwrap();
                f.write(lines(&["other", "1"]));
            },
        ];
        for (index, change) in changes.iter().enumerate() {
            let fixture = Fixture::with(lines(&["1", "2"]));
            fixture.put("answer", "one");
            change(&fixture);
            let theirs = fixture.text();
            fixture.put("answer", "two");
            let expected = if theirs.contains("answer") {
                theirs.replace("\"one\"", "\"two\"")
            } else {
                theirs + &message("answer", "two") + "\n"
            };
            assert_eq!(fixture.text(), expected, "{index}");
            assert!(!fixture.add("other"), "{index}");
        }
    }

    #[test]
    fn a_change_of_the_same_size_is_noticed() {
        let fixture = Fixture::with(lines(&["1", "2"]));
        assert!(fixture.has("2") && !fixture.has("3"));
        fixture.write(lines(&["1", "3"]));
        assert!(fixture.has("3") && !fixture.has("2"));
        assert!(!fixture.add("3"));
    }

    #[test]
    fn a_message_that_others_lost_is_missed_and_a_deleted_file_is_not() {
        let fixture = Fixture::with(lines(&["1"]));
        fixture.put("answer", "");
        assert!(fixture.has("answer"));
        fixture.write(lines(&["1", "2"]));
        assert!(!fixture.has("answer"));
        fs::remove_file(fixture.path()).unwrap();
        assert!(fixture.has("answer"));
    }

    #[test]
    fn a_writer_in_the_midst_of_its_write_is_waited_for() {
        let fixture = Fixture::with(lines(&["1", "2"]));
        assert!(fixture.has("1"));
        let mut file = File::create(fixture.path()).unwrap();
        let text = lines(&["1", "2", "theirs"]);
        thread::scope(|scope| {
            let put = scope.spawn(|| fixture.put("answer", ""));
            // However the two meet, within the store's patience or not, nothing is lost.
            file.write_all(&text.as_bytes()[..40]).unwrap();
            thread::yield_now();
            file.write_all(&text.as_bytes()[40..]).unwrap();
            drop(file);
            put.join().unwrap();
        });
        assert!(fixture.has("theirs") && fixture.has("answer") && fixture.has("1"));
    }

    /// What a route does, taken apart: the file is empty for a while before it is written. Elsewhere
    /// nobody can tell for more than a second that it will be.
    #[cfg(linux)]
    #[test]
    fn a_file_that_is_empty_because_somebody_is_about_to_write_it_is_waited_for() {
        for known in [false, true] {
            let fixture = Fixture::with(lines(&["1", "2"]));
            assert!(!known || fixture.has("1"));
            let mut file = File::create(fixture.path()).unwrap();
            let line = message("question", "").into_bytes();
            let addition = fixture.store.add_message(&fixture.session, "question", line, NOW);
            assert_eq!(addition.unwrap(), Addition::Later);
            thread::scope(|scope| {
                let put = scope.spawn(|| fixture.put("answer", ""));
                let read = scope.spawn(|| fixture.store.read(&fixture.session).unwrap());
                // Far longer than anybody would wait who went by the time of the last change.
                thread::sleep(Duration::from_millis(1_500));
                assert_eq!(fixture.text(), "", "{known}");
                file.write_all(lines(&["1", "2", "theirs"]).as_bytes()).unwrap();
                drop(file);
                put.join().unwrap();
                assert!(String::from_utf8(read.join().unwrap()).unwrap().contains("theirs"));
            });
            let expected = lines(&["1", "2", "theirs", "question", "answer"]);
            assert_eq!(fixture.text(), expected, "{known}");
        }
    }

    #[test]
    fn a_shorter_file_that_nobody_is_writing_is_what_somebody_wanted() {
        let fixture = Fixture::with(lines(&["1", "2", "3"]));
        fixture.put("answer", "one");
        fixture.write(lines(&["1", "answer"]));
        fixture.put("answer", "two");
        let expected = message("1", "") + "\n" + &message("answer", "two") + "\n";
        assert_eq!(fixture.text(), expected);
    }

    #[test]
    fn a_program_that_keeps_the_file_open_for_writing_holds_nobody_up_for_long() {
        let fixture = Fixture::with(lines(&["1"]));
        let _open = OpenOptions::new().append(true).open(fixture.path()).unwrap();
        fixture.put("answer", "");
        assert!(fixture.add("2"));
        assert_eq!(fixture.text(), lines(&["1", "answer", "2"]));
    }

    #[test]
    fn what_is_written_into_a_replaced_file_is_taken_over_though_nobody_uses_the_store() {
        let fixture = Fixture::with(lines(&["1"]));
        fixture.put("answer", "");
        let old = File::open(fixture.path()).unwrap();
        fixture.put("answer", "x");
        // As somebody does it who had looked the path up before.
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&old));
        if !Path::new(&path).exists() {
            return;
        }
        fs::write(path, lines(&["1", "answer", "theirs"])).unwrap();
        let expected =
            message("1", "") + "\n" + &message("answer", "x") + "\n" + &lines(&["theirs"]);
        until("both are there", || fixture.text() == expected);
    }

    #[test]
    fn a_writer_that_was_too_slow_writes_into_a_replaced_file_and_is_still_heard() {
        let fixture = Fixture::with(lines(&["1", "2"]));
        fixture.put("answer", "one");
        // Opened before the rename, written after: the app's read-modify-write at its worst.
        let mut file = OpenOptions::new().write(true).open(fixture.path()).unwrap();
        let theirs = fixture.text().replace("\"2\"", "\"two\"") + &lines(&["theirs"]);
        fixture.put("answer", "two");
        assert!(fixture.add("mine"));
        file.set_len(0).unwrap();
        file.write_all(theirs.as_bytes()).unwrap();
        drop(file);
        until("it is taken over", || fixture.has("theirs"));
        let expected = theirs.replace("\"one\"", "\"two\"") + &lines(&["mine"]);
        assert_eq!(fixture.text(), expected);
        fixture.put("answer", "three");
        assert_eq!(
            fixture.text(),
            expected.replace("\"content\":\"two\"", "\"content\":\"three\"")
        );
        fixture.no_temporary_files();
    }

    #[test]
    fn replaced_files_are_closed_though_nobody_uses_the_store_any_more() {
        let fixture = Fixture::with(lines(&["1"]));
        fixture.put("2", "");
        let file = fixture.store.session(&fixture.session);
        assert_eq!(file.watched(), 1);
        until("the replaced file is closed", || file.watched() == 0);
    }

    #[test]
    fn what_a_slow_writer_deleted_stays_deleted() {
        let fixture = Fixture::with(lines(&["1", "2"]));
        let mut file = OpenOptions::new().write(true).open(fixture.path()).unwrap();
        fixture.put("answer", "");
        file.set_len(0).unwrap();
        file.write_all(lines(&["2"]).as_bytes()).unwrap();
        drop(file);
        assert!(fixture.has("answer"));
        until("it is taken over", || fixture.text() == lines(&["2", "answer"]));
    }

    #[test]
    fn a_replaced_file_that_was_only_emptied_does_not_empty_the_session() {
        let fixture = Fixture::with(lines(&["1", "2"]));
        let file = OpenOptions::new().write(true).open(fixture.path()).unwrap();
        fixture.put("answer", "");
        file.set_len(0).unwrap();
        drop(file);
        assert!(fixture.has("1"));
        assert_eq!(fixture.text(), lines(&["1", "2", "answer"]));
    }

    #[test]
    fn a_replaced_file_is_taken_from_once_also_when_no_more_can_be_watched() {
        for place in 0..4 {
            let fixture = Fixture::with(lines(&["1", "2"]));
            let mut opened = Vec::new();
            for version in 0..4 {
                let file = OpenOptions::new().write(true).open(fixture.path()).unwrap();
                opened.push((file, fixture.text() + &lines(&["theirs"])));
                fixture.put("answer", &version.to_string());
            }
            let (mut file, theirs) = opened.remove(place);
            file.set_len(0).unwrap();
            file.write_all(theirs.as_bytes()).unwrap();
            drop(file);
            until("it is taken over", || fixture.has("theirs"));
            // What others now change in the version that was made of both must not be undone.
            let edited = fixture.text().replace(&message("2", ""), &message("2", "edited"));
            fixture.write(&edited);
            assert!(fixture.has("1"));
            assert_eq!(fixture.text(), edited, "{place}");
        }
    }

    #[test]
    fn a_change_during_the_copy_is_not_overwritten() {
        let fixture = Fixture::with(lines(&["1"]));
        let mut calls = 0;
        let mut write = |out: &mut dyn Write| {
            calls += 1;
            if calls == 1 {
                fixture.write(lines(&["1", "theirs"]));
            }
            out.write_all(message("answer", "").as_bytes())
        };
        fixture.store.put_now(&fixture.session, "answer", &mut write, false, NOW).unwrap();
        assert_eq!(calls, 2);
        assert_eq!(fixture.text(), lines(&["1", "theirs", "answer"]));
        fixture.no_temporary_files();
    }

    #[test]
    fn adding_during_a_copy_neither_waits_nor_is_lost() {
        let fixture = Fixture::with(lines(&["1"]));
        let mut calls = 0;
        let mut write = |out: &mut dyn Write| {
            calls += 1;
            if calls == 1 {
                assert!(fixture.add("question"));
            }
            out.write_all(message("answer", "").as_bytes())
        };
        fixture.store.put_now(&fixture.session, "answer", &mut write, true, NOW).unwrap();
        assert_eq!(fixture.text(), lines(&["1", "question", "answer"]));
    }

    #[test]
    fn a_file_that_never_holds_still_is_written_under_the_lock_or_refused() {
        let fixture = Fixture::with(lines(&["1"]));
        let mut calls = 0;
        let mut write = |out: &mut dyn Write| {
            calls += 1;
            fixture.write(lines(&["1", &format!("theirs-{calls}")]));
            out.write_all(message("answer", "").as_bytes())
        };
        let result = fixture.store.put_now(&fixture.session, "answer", &mut write, false, NOW);
        let error = result.unwrap_err().to_string();
        assert!(error.ends_with("s.jsonl: others keep changing it"), "{error}");
        fixture.no_temporary_files();
    }
}

mod concurrency {
    use super::*;

    const CHILD_FOLDER: &str = "ACTIVE_RUNS_TEST_CHILD_FOLDER";
    const CHILD_NAME: &str = "ACTIVE_RUNS_TEST_CHILD_NAME";
    const EACH: usize = 40;

    /// What every writer does: a question, then an answer that grows, in turn.
    fn write_many(store: &Arc<Store>, name: &str) {
        let session = SessionId::new("s").unwrap();
        for round in 0..EACH {
            let question = format!("{name}-q{round}");
            store
                .add(&session, &question, message(&question, &"q".repeat(300)).as_bytes(), NOW)
                .unwrap();
            let answer = format!("{name}-a{}", round / 4);
            let line = message(&answer, &"a".repeat(round * 50));
            let mut write = |out: &mut dyn Write| out.write_all(line.as_bytes());
            store.put_now(&session, &answer, &mut write, false, NOW).unwrap();
        }
    }

    fn expect_all(fixture: &Fixture, names: &[&str]) {
        let text = fixture.text();
        for name in names {
            for round in 0..EACH {
                assert_eq!(
                    text.matches(&format!("\"{name}-q{round}\"")).count(),
                    1,
                    "{name} {round}"
                );
            }
            for answer in 0..EACH / 4 {
                assert_eq!(text.matches(&format!("\"{name}-a{answer}\"")).count(), 1);
            }
        }
        let expected = names.len() * (EACH + EACH / 4);
        assert_eq!(text.lines().count(), expected);
        assert!(text.lines().all(|line| line::Facts::read(line.as_bytes()).is_some()));
        // One that another process was about to count may have been counted here as well, for a moment.
        let count = format!("\"messageCount\": {expected}");
        until("all are counted", || fixture.index_text().contains(&count));
        fixture.no_temporary_files();
    }

    fn child(folder: &Path, name: &str) -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "store::tests::concurrency::a_child_process_writes_when_it_is_told_to",
            ])
            .env(CHILD_FOLDER, folder)
            .env(CHILD_NAME, name)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap()
    }

    /// The other process of the tests below; on its own it has nothing to do.
    #[test]
    fn a_child_process_writes_when_it_is_told_to() {
        let (Some(folder), Ok(name)) = (std::env::var_os(CHILD_FOLDER), std::env::var(CHILD_NAME))
        else {
            return;
        };
        let store = Store::at(Path::new(&folder));
        if name == "live" {
            let live = store.claim_message(&SessionId::new("s").unwrap(), "answer").unwrap();
            fs::write(Path::new(&folder).join("ready"), "").unwrap();
            // Until it is killed, or the test that started it is gone.
            io::stdin().read_line(&mut String::new()).unwrap();
            drop(live);
            return;
        }
        write_many(&store, &name);
    }

    #[test]
    fn two_threads_on_one_session_and_one_index_lose_nothing() {
        let fixture = Fixture::new();
        fixture.store.create(&fixture.session, "", None, NOW).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| write_many(&fixture.store, "one"));
            write_many(&fixture.store, "two");
        });
        expect_all(&fixture, &["one", "two"]);
    }

    #[test]
    fn three_processes_on_one_session_and_one_index_lose_nothing() {
        let fixture = Fixture::new();
        fixture.store.create(&fixture.session, "", None, NOW).unwrap();
        let mut children =
            [child(fixture.folder.path(), "one"), child(fixture.folder.path(), "two")];
        write_many(&fixture.store, "three");
        for child in &mut children {
            assert!(child.wait().unwrap().success());
        }
        expect_all(&fixture, &["one", "two", "three"]);
    }

    #[test]
    fn a_process_killed_at_work_leaves_no_lock_and_whole_lines_but_for_one_it_was_appending() {
        let fixture = Fixture::new();
        // The system may leave a line of which it has written one page and not the next.
        let mut cut = Vec::new();
        for round in 0..8 {
            let name = format!("killed{round}");
            let before = fs::read_to_string(fixture.path()).unwrap_or_default();
            let mut child = child(fixture.folder.path(), &name);
            let needle = format!("\"{name}-q{round}\"");
            until("the child writes", || {
                fs::read_to_string(fixture.path()).is_ok_and(|t| t.contains(&needle))
            });
            child.kill().unwrap();
            child.wait().unwrap();
            let text = fixture.text();
            assert!(text.starts_with(&before));
            let (whole, last) = text.rsplit_once('\n').unwrap();
            cut.push(last.to_owned());
            assert!(whole.lines().all(|line| {
                line::Facts::read(line.as_bytes()).is_some() || cut.iter().any(|cut| cut == line)
            }));
            assert!(fixture.add(&format!("after{round}")));
        }
    }

    #[test]
    fn a_reader_sees_whole_lines_but_for_one_that_is_being_appended() {
        let fixture = Fixture::with(lines(&["1"]));
        fixture.store.create(&fixture.session, "", None, NOW).unwrap();
        let done = AtomicBool::new(false);
        let reads = AtomicUsize::new(0);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let text = fixture.text();
                    assert!(text.starts_with(&lines(&["1"])));
                    let (whole, _) = text.rsplit_once('\n').unwrap();
                    assert!(whole.lines().all(|line| line.ends_with('}')));
                    let index = fixture.index_text();
                    assert!(index.starts_with("[\n") && index.ends_with("\n]"), "{index}");
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            });
            write_many(&fixture.store, "one");
            until("the reader reads", || reads.load(Ordering::Relaxed) > 20);
            done.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    #[cfg_attr(not(linux), ignore = "other processes can be asked on Linux only")]
    fn a_mark_of_another_living_process_stays_until_that_dies() {
        let marked = r#"{"id":"answer","role":"assistant","content":"","_streaming":true}"#;
        let fixture = Fixture::with(format!("{marked}\n"));
        let mut child = child(fixture.folder.path(), "live");
        until("the child has its mark", || fixture.folder.path().join("ready").exists());
        assert!(fixture.add("1"));
        fixture.put("2", "");
        assert!(fixture.text().starts_with(marked));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(fixture.add("3"));
        assert!(!fixture.text().contains("_streaming"));
    }
}

mod stale_marks {
    use super::*;

    const STALE: &str = r#"{"id":"old","role":"assistant","content":"","_streaming":true}"#;
    const CLEARED: &str = r#"{"id":"old","role":"assistant","content":""}"#;

    #[test]
    #[cfg_attr(not(linux), ignore = "other processes can be asked on Linux only")]
    fn a_message_is_claimed_by_one_run_of_one_process() {
        let fixture = Fixture::new();
        let claim = || fixture.store.claim_message(&fixture.session, "answer");
        let other_process = Live::new(fixture.folder.path());
        let claim_there = || other_process.claim(&fixture.session, hash_of("answer"));
        let ours = claim().unwrap();
        assert!(claim().is_none());
        assert!(!claim_there());
        drop(ours);
        assert!(claim_there());
        assert!(claim().is_none());
        other_process.remove(&fixture.session, hash_of("answer"));
        assert!(claim().is_some());
    }

    #[test]
    #[cfg_attr(not(linux), ignore = "other processes can be asked on Linux only")]
    fn a_mark_moves_into_a_store_that_was_deleted_and_made_anew() {
        let fixture = Fixture::new();
        let live = fixture.store.claim_message(&fixture.session, "answer").unwrap();
        fs::remove_dir_all(fixture.folder.path()).unwrap();
        fs::create_dir(fixture.folder.path()).unwrap();
        let other = fixture.store.claim_message(&fixture.session, "other").unwrap();
        // What another process would see: its own open folder, and no marks of its own.
        let seen = Live::new(fixture.folder.path());
        for id in ["answer", "other"] {
            assert!(seen.contains(&fixture.session, hash_of(id)), "{id}");
        }
        drop((live, other));
        assert!(!seen.contains(&fixture.session, hash_of("answer")));
    }

    #[test]
    fn a_stale_mark_is_cleared_by_the_next_write() {
        for put in [false, true] {
            let fixture = Fixture::with(format!("{STALE}\n{}", lines(&["1"])));
            if put {
                fixture.put("2", "")
            } else {
                assert!(fixture.add("2"))
            }
            assert_eq!(fixture.text(), format!("{CLEARED}\n{}", lines(&["1", "2"])));
            fixture.put("old", "x");
            assert!(fixture.text().starts_with(&message("old", "x")));
        }
    }

    #[test]
    fn the_mark_of_a_run_of_this_process_stays_until_it_ends() {
        let fixture = Fixture::new();
        let live = fixture.store.claim_message(&fixture.session, "old").unwrap();
        fixture.put_line("old", STALE);
        assert!(fixture.add("1"));
        fixture.put("2", "");
        assert!(fixture.text().starts_with(STALE));
        fixture.put_line("old", &STALE.replace("\"\"", "\"more\""));
        assert!(fixture.text().contains("more\",\"_streaming"));
        drop(live);
        assert!(fixture.add("3"));
        assert!(!fixture.text().contains("_streaming"));
    }

    #[test]
    fn only_assistants_messages_have_marks() {
        let others = [
            r#"{"id":"1","role":"user","_streaming":true}"#,
            r#"{"role":"assistant","x":1,"_streaming":true}"#,
            r#"{"id":"2","role":"assistant","x":{"y":1,"_streaming":true}"#,
            r#"x,"_streaming":true}"#,
            r#"{"id":"3","role":"assistant","content":",\"_streaming\":true}"}"#,
        ]
        .join("\n");
        assert!(others.as_bytes().windows(MARK.len()).any(|bytes| bytes == MARK));
        let fixture = Fixture::with(others.clone() + "\n");
        assert!(fixture.add("new"));
        assert_eq!(fixture.text(), others + "\n" + &lines(&["new"]));
    }
}

mod sessions {
    use super::*;

    #[test]
    fn the_index_is_updated_as_the_module_does_it() {
        let fixture = Fixture::new();
        let before = r#"[{"id":"x","n":1.0,"2":[],"1":{}},5,{"z":"é\u00e9","messageCount":3,"id":"s","updatedAt":1}]"#;
        fs::write(fixture.index(), before).unwrap();
        fixture.add("1");
        let after = |count: &str| {
            format!(
                "[\n  {{\n    \"1\": {{}},\n    \"2\": [],\n    \"id\": \"x\",\n    \"n\": 1\n  }},\n  5,\n  {{\n    \"z\": \"éé\",\n    \"messageCount\": {count},\n    \"id\": \"s\",\n    \"updatedAt\": {NOW}\n  }}\n]"
            )
        };
        assert_eq!(fixture.index_text(), after("4"));
        fixture.put("2", "");
        fixture.put("2", "again");
        assert_eq!(fixture.index_text(), after("5"));
        assert!(!fixture.add("2"));
        assert_eq!(fixture.index_text(), after("5"));
    }

    #[test]
    fn message_counts_add_up_as_in_javascript_and_what_is_no_number_counts_as_none() {
        for (before, after) in [
            ("0", "1"),
            ("1.5", "2.5"),
            ("1e999", "null"),
            ("9007199254740992", "9007199254740992"),
            ("null", "1"),
            ("\"5\"", "1"),
            ("true", "1"),
            ("{}", "1"),
        ] {
            let fixture = Fixture::new();
            fs::write(fixture.index(), format!("[{{\"id\":\"s\",\"messageCount\":{before}}}]"))
                .unwrap();
            fixture.add("1");
            let expected = format!(
                "[\n  {{\n    \"id\": \"s\",\n    \"messageCount\": {after},\n    \"updatedAt\": {NOW}\n  }}\n]"
            );
            assert_eq!(fixture.index_text(), expected);
        }
    }

    #[test]
    fn an_index_that_cannot_be_updated_is_left_alone_and_hinders_nobody() {
        for index in [
            "",
            "{}",
            "[",
            "[null,{\"id\":\"s\"}]",
            "[{\"id\":\"other\"}]",
            "\u{feff}[{\"id\":\"s\"}]",
        ] {
            let fixture = Fixture::new();
            fs::write(fixture.index(), index).unwrap();
            assert!(fixture.add("1"));
            fixture.put("2", "");
            assert_eq!(fixture.index_text(), index);
            fixture.no_temporary_files();
        }
        let fixture = Fixture::new();
        fs::create_dir(fixture.index()).unwrap();
        assert!(fixture.add("1"));
    }

    #[test]
    fn sessions_are_made_listed_and_deleted() {
        let fixture = Fixture::new();
        let other = SessionId::new("other").unwrap();
        let store = &fixture.store;
        assert_eq!(store.list().unwrap(), "[]");
        assert!(!store.delete(&other).unwrap());
        let first = store.create(&fixture.session, "A \"title\"", Some("/a/b"), 5).unwrap();
        let expected = r#"{"id":"s","title":"A \"title\"","createdAt":5,"updatedAt":5,"messageCount":0,"filePath":"/a/b"}"#;
        assert_eq!(first, expected);
        assert_eq!(fixture.text(), "");
        let second = store.create(&other, "B", None, 5).unwrap();
        assert_eq!(store.list().unwrap(), format!("[{second},{first}]"));
        fixture.add("1");
        let listed = store.list().unwrap();
        assert!(listed.starts_with(r#"[{"id":"s","title":"A \"title\"","createdAt":5,"updatedAt":1771000000000,"messageCount":1"#));
        assert_eq!(store.create(&other, "again", None, 9).unwrap(), second);
        assert!(store.delete(&fixture.session).unwrap());
        assert!(!fixture.path().exists());
        assert_eq!(store.list().unwrap(), format!("[{second}]"));
        assert!(!store.delete(&fixture.session).unwrap());
        assert_eq!(fs::metadata(fixture.index()).unwrap().mode() & 0o777, 0o600);
        fixture.no_temporary_files();
    }

    #[test]
    fn a_broken_index_is_reported_and_never_overwritten() {
        let fixture = Fixture::new();
        fs::write(fixture.index(), "{").unwrap();
        let error = fixture.store.create(&fixture.session, "", None, NOW).unwrap_err();
        let expected =
            format!("failed to update {}: it is no JSON array", fixture.index().display());
        assert_eq!(error.to_string(), expected);
        assert!(fixture.store.list().is_err());
        assert_eq!(fixture.index_text(), "{");
    }

    #[test]
    fn messages_are_upserted_in_their_places_in_one_commit() {
        let fixture = Fixture::with(lines(&["1", "2", "3"]));
        fixture.store.create(&fixture.session, "old", None, 5).unwrap();
        let messages: Vec<(String, String)> = ["4", "2", "5", "4"]
            .iter()
            .enumerate()
            .map(|(index, id)| (id.to_string(), message(id, &index.to_string())))
            .collect();
        fixture.store.upsert(&fixture.session, &messages, Some("new"), NOW).unwrap();
        let expected = [
            message("1", ""),
            message("2", "1"),
            message("3", ""),
            message("4", "3"),
            message("5", "2"),
            String::new(),
        ];
        assert_eq!(fixture.text(), expected.join("\n"));
        let listed = fixture.store.list().unwrap();
        assert_eq!(
            listed,
            format!(
                r#"[{{"id":"s","title":"new","createdAt":5,"updatedAt":{NOW},"messageCount":2}}]"#
            )
        );
        let read = fixture.store.read(&fixture.session).unwrap();
        assert_eq!(String::from_utf8(read).unwrap(), format!("[{}]", expected[..5].join(",")));
    }

    #[test]
    fn unreadable_lines_are_left_out_of_what_is_read_and_stay_on_the_disk() {
        let fixture = Fixture::new();
        assert_eq!(fixture.store.read(&fixture.session).unwrap(), b"[]");
        let history = b"{\"id\":\"a\xff\"}\r\n\n{\"id\":\nnull\n[]\n {\"x\":1} ";
        fixture.write(history);
        let read = fixture.store.read(&fixture.session).unwrap();
        assert_eq!(String::from_utf8(read).unwrap(), "[{\"id\":\"a\u{fffd}\"},{\"x\":1}]");
        assert_eq!(fs::read(fixture.path()).unwrap(), history);
    }
}

mod lost_updates {
    use super::*;

    fn entry(id: &str, count: usize, updated: u64, title: &str) -> String {
        format!(
            r#"[{{"id":"{id}","title":"{title}","updatedAt":{updated},"messageCount":{count}}}]"#
        )
    }

    fn counts(fixture: &Fixture, count: usize) -> bool {
        fixture.index_text().contains(&format!("\"messageCount\": {count}"))
    }

    /// As a route does it that needs longer than a replaced file is watched without a writer. Elsewhere
    /// nobody can tell that there is one.
    #[cfg(linux)]
    #[test]
    fn a_writer_of_a_replaced_file_is_heard_however_long_it_takes() {
        for append in [false, true] {
            let fixture = Fixture::with(lines(&["1", "2"]));
            fixture.put("answer", "one");
            let mut file =
                OpenOptions::new().write(true).append(append).open(fixture.path()).unwrap();
            let theirs = if append { String::new() } else { fixture.text() };
            fixture.put("answer", "two");
            if !append {
                file.set_len(0).unwrap();
            }
            thread::sleep(Duration::from_millis(2_500));
            file.write_all((theirs + &lines(&["theirs"])).as_bytes()).unwrap();
            drop(file);
            until("it is taken over", || fixture.text().contains("theirs"));
        }
    }

    #[test]
    fn a_message_that_was_appended_twice_counts_once() {
        let big = "x".repeat(1_000);
        let history: String = (0..600).map(|n| message(&format!("m{n}"), &big) + "\n").collect();
        let fixture = Fixture::with(&history);
        fs::write(fixture.index(), entry("s", 600, 5, "t")).unwrap();
        let add = |id: &str| fixture.add_at_once(id);
        assert_eq!(add("m3"), Addition::Done);
        until("it is there once", || fixture.text().lines().count() == 600);
        assert_ne!(add("new"), Addition::AlreadyThere);
        until("all are counted", || counts(&fixture, 601));
    }

    #[test]
    fn a_message_that_is_there_stays_in_a_file_with_two_names() {
        let fixture = Fixture::with(lines(&["1"]));
        fs::hard_link(fixture.path(), fixture.folder.path().join("other")).unwrap();
        fixture.store.add(&fixture.session, "1", message("1", "again").as_bytes(), NOW).unwrap();
        assert_eq!(fixture.text(), lines(&["1"]));
    }

    #[test]
    fn a_title_is_put_back_though_something_was_written_after_it() {
        let fixture = Fixture::with(lines(&["1"]));
        let before = entry("s", 1, 5, "old");
        fs::write(fixture.index(), &before).unwrap();
        let upsert = |id: &str, title, now| {
            let messages = [(id.to_owned(), message(id, ""))];
            fixture.store.upsert(&fixture.session, &messages, title, now).unwrap();
        };
        upsert("2", Some("new"), NOW);
        upsert("3", None, NOW + 5);
        // A route that had read before both.
        fs::write(fixture.index(), &before).unwrap();
        until("it is put back", || fixture.index_text().contains("new"));
    }

    #[test]
    fn a_count_that_a_route_has_lost_is_put_right() {
        let fixture = Fixture::with(lines(&["1"]));
        fs::write(fixture.index(), entry("s", 1, 5, "t")).unwrap();
        assert!(fixture.add("ours"));
        assert!(counts(&fixture, 2));
        // A route that had read the index before: it adds a message of its own, file first.
        fs::write(fixture.path(), lines(&["1", "ours", "theirs"])).unwrap();
        fs::write(fixture.index(), entry("s", 2, NOW + 50, "t")).unwrap();
        until("all are counted", || counts(&fixture, 3));
    }

    #[test]
    fn an_answer_that_a_route_has_lost_and_that_is_added_again_counts_once() {
        let fixture = Fixture::with(lines(&["1"]));
        fs::write(fixture.index(), entry("s", 1, 5, "t")).unwrap();
        fixture.put("answer", "one");
        assert!(counts(&fixture, 2));
        // A route that had read the file before the answer came, and the index after it.
        fs::write(fixture.path(), lines(&["1", "theirs"])).unwrap();
        fs::write(fixture.index(), entry("s", 3, NOW + 50, "t")).unwrap();
        fixture.put("answer", "two");
        fixture.store.write_index_now();
        assert_eq!(fixture.text().lines().count(), 3);
        assert!(counts(&fixture, 3), "{}", fixture.index_text());
    }

    #[test]
    #[cfg(linux)]
    fn what_comes_after_a_deletion_is_kept_though_an_older_message_still_waits() {
        let fixture = Fixture::with(lines(&["1"]));
        let writer = File::create(fixture.path()).unwrap();
        let add = |id: &str| fixture.add_at_once(id);
        assert_eq!(add("before"), Addition::Later);
        fs::remove_file(fixture.path()).unwrap();
        drop(writer);
        assert_eq!(add("after"), Addition::Later);
        until("it is there", || {
            fs::read_to_string(fixture.path()).is_ok_and(|t| t == lines(&["after"]))
        });
    }

    #[test]
    #[cfg(linux)]
    fn what_a_route_has_lost_is_put_back_before_what_comes_next_and_as_it_was_edited() {
        let fixture = Fixture::with(lines(&["1"]));
        let mut writer = File::create(fixture.path()).unwrap();
        let add = |id: &str| fixture.add_at_once(id);
        assert_eq!(add("2"), Addition::Later);
        writer.write_all(lines(&["1"]).as_bytes()).unwrap();
        drop(writer);
        until("it is added", || fixture.text() == lines(&["1", "2"]));
        let edited = message("2", "edited");
        fixture.store.upsert(&fixture.session, &[("2".into(), edited.clone())], None, NOW).unwrap();
        // A route that had read the file before all this.
        fs::write(fixture.path(), lines(&["1", "theirs"])).unwrap();
        assert_ne!(add("3"), Addition::AlreadyThere);
        let expected = lines(&["1", "theirs"]) + &edited + "\n" + &lines(&["3"]);
        until("both are there", || fixture.text() == expected);
    }

    #[test]
    #[cfg(linux)]
    fn nothing_is_appended_to_an_empty_file_that_a_route_has_open() {
        let fixture = Fixture::with("");
        fixture.store.create(&fixture.session, "t", None, NOW).unwrap();
        let mut route = File::create(fixture.path()).unwrap();
        let line = message("2", "").into_bytes();
        let added = fixture.store.add_message(&fixture.session, "2", line, NOW).unwrap();
        assert_eq!(added, Addition::Later);
        route.write_all(lines(&["1"]).as_bytes()).unwrap();
        drop(route);
        until("it is added", || fixture.text() == lines(&["1", "2"]));
    }

    /// Elsewhere it cannot be asked whether another process is about to count.
    #[test]
    #[cfg(linux)]
    fn a_count_that_a_killed_server_left_behind_is_put_right_also_when_more_was_counted_since() {
        let ids: Vec<String> = (0..40).map(|n| n.to_string()).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let fixture = Fixture::with(lines(&ids));
        let now = crate::clock::now_ms();
        // Two were appended and not counted, and something was counted after them.
        fs::write(fixture.index(), entry("s", 38, now + 5_000, "t")).unwrap();
        assert!(fixture.add("ours"));
        until("all are counted", || counts(&fixture, 41));
    }

    #[test]
    fn a_session_that_was_there_keeps_its_time_when_it_is_made_again() {
        let fixture = Fixture::with(lines(&["1"]));
        fs::write(fixture.index(), entry("s", 1, 5, "old")).unwrap();
        fixture.store.create(&fixture.session, "x", None, NOW).unwrap();
        assert!(!fixture.store.index.has_work(), "nothing to look after: nothing was changed");
    }

    #[test]
    fn a_session_that_somebody_else_deletes_stays_deleted() {
        for _ in 0..10 {
            let fixture = Fixture::new();
            fixture.store.create(&fixture.session, "x", None, NOW).unwrap();
            // As `await writeFile(index); await unlink(file)`.
            fs::write(fixture.index(), "[]").unwrap();
            thread::sleep(Duration::from_millis(5));
            fs::remove_file(fixture.path()).unwrap();
            until("it was looked at", || fixture.store.index.has_seen_others());
            assert_eq!(fixture.index_text(), "[]");
        }
    }

    #[test]
    fn a_replaced_file_that_was_emptied_holds_up_no_message() {
        let fixture = Fixture::with(lines(&["1", "2"]));
        let file = OpenOptions::new().write(true).open(fixture.path()).unwrap();
        fixture.put("answer", "");
        file.set_len(0).unwrap();
        // Somebody who is about to write it, or was killed.
        assert!(fixture.add("3"));
        drop(file);
        assert!(fixture.add("4"));
        assert_eq!(fixture.text(), lines(&["1", "2", "answer", "3", "4"]));
    }

    #[test]
    fn the_end_of_the_process_does_not_wait_for_who_hangs() {
        let fixture = Fixture::with(lines(&["1"]));
        fs::write(fixture.index(), entry("s", 1, 5, "t")).unwrap();
        let _hangs = fixture.store.index.hold();
        let line = message("2", "").into_bytes();
        fixture.store.add_message(&fixture.session, "2", line, NOW).unwrap();
        let (store, (done, ended)) = (Arc::clone(&fixture.store), std::sync::mpsc::channel());
        thread::spawn(move || {
            store.finish(Instant::now() + Duration::from_millis(100));
            done.send(()).unwrap();
        });
        ended.recv_timeout(Duration::from_secs(30)).unwrap();
    }

    #[test]
    fn patience_with_a_lock_is_not_added_up_by_those_who_wait_one_behind_the_other() {
        let fixture = Fixture::with(lines(&["1"]));
        let held = File::open(fixture.path()).unwrap();
        held.lock().unwrap();
        let (done, ended) = std::sync::mpsc::channel();
        for number in 0..6 {
            let (session, done) = (fixture.session.clone(), done.clone());
            let put = move |store: &Store, attempts: &mut Attempts| {
                let mut write = |out: &mut dyn Write| out.write_all(b"{\"id\":\"a\"}");
                store.put_message(attempts, &session, "a", &mut write, false, NOW)
            };
            let disk = disk().unwrap();
            fixture.store.call_then(disk, Some(&fixture.session), put, move |outcome| {
                done.send((number, outcome.is_err())).unwrap();
            });
        }
        // Each would wait for five seconds of its own.
        for number in 0..6 {
            let patience = Duration::from_secs(if number == 0 { 60 } else { 4 });
            assert_eq!(ended.recv_timeout(patience), Ok((number, true)));
        }
    }
}

mod damaged_files {
    use super::*;
    use proptest::prelude::*;

    fn piece() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            Just(b"\n".to_vec()),
            Just(b"\r\n".to_vec()),
            Just(b"  \n".to_vec()),
            Just(b"\xc2\xa0\n\xef\xbb\xbf\n".to_vec()),
            Just(MARK.to_vec()),
            Just(b"{\"id\":\"a\",\"role\":\"assistant\",\"_streaming\":true}\n".to_vec()),
            "[a-c]".prop_map(|id| message(&id, "").into_bytes()),
            "[a-c]".prop_map(|id| (message(&id, "x") + "\n").into_bytes()),
            proptest::collection::vec(any::<u8>(), 0..20),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn every_line_survives_and_the_message_is_there(
            pieces in proptest::collection::vec(piece(), 0..12),
            put in any::<bool>(),
        ) {
            let history = pieces.concat();
            let fixture = Fixture::with(&history);
            let new = message("b", "new");
            if put {
                fixture.put_line("b", &new);
            } else {
                fixture.store.add(&fixture.session, "b", new.as_bytes(), NOW).unwrap();
            }
            let written = fs::read(fixture.path()).unwrap();
            let is_b = |line: &[u8]| line::Facts::read(line).is_some_and(|facts| facts.is("b"));
            let had = history.split(|&byte| byte == b'\n').any(is_b);
            if !put && had {
                prop_assert_eq!(&written, &history);
                return Ok(());
            }
            // The module's way, line by line.
            let mut expected: Vec<Vec<u8>> = history
                .split(|&byte| byte == b'\n')
                .filter(|line| !line::is_blank(line))
                .map(|line| match line::Facts::read(line) {
                    Some(facts) if facts.is("b") => new.clone().into_bytes(),
                    Some(Facts { id: Some(_), by_assistant: true }) if line.ends_with(MARK) => {
                        [&line[..line.len() - MARK.len()], b"}"].concat()
                    }
                    _ => line.to_vec(),
                })
                .collect();
            if !had {
                expected.push(new.clone().into_bytes());
            }
            expected.push(Vec::new());
            prop_assert_eq!(written, expected.join(&b'\n'));
            prop_assert!(fixture.has("b"));
            fixture.store.read(&fixture.session).unwrap();
            fixture.no_temporary_files();
        }
    }

    use line::Facts;
}
