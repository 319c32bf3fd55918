//! A session's file, damaged in any way: a message is put into it and found in it, and no other line
//! is lost or changed.
#![no_main]

use active_runs::{
    session_id::SessionId,
    store::{Store, wait},
};
use libfuzzer_sys::fuzz_target;
use std::{
    cell::LazyCell,
    fs,
    io::Write,
    time::{Duration, SystemTime},
};
use tempfile::TempDir;

thread_local! {
    static FOLDER: LazyCell<TempDir> = LazyCell::new(|| {
        // In memory where the system has such a place: this is about bytes, not about disks.
        let shared = std::path::Path::new("/dev/shm");
        let folder = if shared.is_dir() { tempfile::tempdir_in(shared) } else { tempfile::tempdir() };
        folder.expect("a temporary folder")
    });
}

const PATIENCE: Duration = Duration::from_secs(60);

const LINE: &str = r#"{"id":"b","role":"user","content":"new"}"#;

/// What JavaScript's `trim` leaves nothing of.
fn is_blank(line: &[u8]) -> bool {
    let is_white = |char: char| (char.is_whitespace() && char != '\u{85}') || char == '\u{feff}';
    std::str::from_utf8(line).is_ok_and(|line| line.chars().all(is_white))
}

fuzz_target!(|input: (bool, &[u8])| {
    let (is_put, history) = input;
    FOLDER.with(|folder| {
        let path = folder.path().join("s.jsonl");
        let _ = fs::remove_file(&path);
        fs::write(&path, history).expect("the file can be written");
        // At rest for long, and open nowhere, or the store waits for its writer.
        let file = fs::File::options().write(true).open(&path).expect("it can be opened");
        file.set_modified(SystemTime::UNIX_EPOCH).expect("its time can be set");
        drop(file);
        let store = Store::at(folder.path());
        let session = SessionId::new("s").expect("a good id");
        if is_put {
            let mut write = |out: &mut dyn Write| out.write_all(LINE.as_bytes());
            let put = wait(PATIENCE, |attempts| {
                store.put_message(attempts, &session, "b", &mut write, false, 1)
            });
            assert!(put.expect("it can be put").is_some());
        } else {
            store.add_message(&session, "b", LINE.into(), 1).expect("it can be added");
        }
        // First: a message that was not added within three milliseconds waits until somebody reads.
        let read = wait(PATIENCE, |attempts| store.read_messages(attempts, &session));
        assert!(read.expect("it can be read").is_some());
        let has = wait(PATIENCE, |attempts| store.still_has(attempts, &session, "b"));
        assert_eq!(has.expect("it can be read"), Some(true));

        let written = fs::read(&path).expect("it can be read");
        let mut left = written.split(|&byte| byte == b'\n');
        let others = history.split(|&byte| byte == b'\n').filter(|line| {
            let text = String::from_utf8_lossy(line);
            // Lines that may be the message itself, or lose a stale mark, change.
            !is_blank(line) && !text.contains("id") && !text.contains('\\')
        });
        for line in others {
            assert!(left.any(|other| other == line), "a line is lost");
        }
    });
});
